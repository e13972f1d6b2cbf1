// Two regions, not three: the branch without the unsupported operation runs with the first.
// pipeline: builtin.module(partition)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<4x8xf32>, %1: tensor<8x8xf32>):
    %2 = "djinn.matmul"(%0, %1) : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    %3 = "djinn.cumprod"(%2) {axis = 0, exclusive = false, reverse = false} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %4 = "djinn.matmul"(%3, %1) : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    %5 = "djinn.softmax"(%0) {axis = 1} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %6 = "djinn.add"(%4, %5) : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
    "djinn.return"(%6) : (tensor<4x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "w"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
