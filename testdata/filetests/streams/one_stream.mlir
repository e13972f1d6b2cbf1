// One stream is allowed, so the branches run one after another.
// pipeline: builtin.module(partition,streams{max-streams=1})
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x8xf32>, %1: tensor<8x8xf32>):
    %2 = "djinn.matmul"(%0, %1) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    %3 = "djinn.matmul"(%1, %0) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    %4 = "djinn.matmul"(%2, %2) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    %5 = "djinn.matmul"(%3, %3) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    %6 = "djinn.softmax"(%4) {axis = 1} : (tensor<8x8xf32>) -> tensor<8x8xf32>
    %7 = "djinn.softmax"(%5) {axis = 1} : (tensor<8x8xf32>) -> tensor<8x8xf32>
    %8 = "djinn.matmul"(%6, %1) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    %9 = "djinn.matmul"(%7, %0) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    %10 = "djinn.add"(%8, %9) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    "djinn.return"(%10) : (tensor<8x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "w"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
