// Softmax over the queries is no attention.
// pipeline: builtin.module(saturate)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4x5x8xf32>, %1: tensor<2x4x8x7xf32>, %2: tensor<2x4x7x8xf32>):
    %3 = "djinn.matmul"(%0, %1) : (tensor<2x4x5x8xf32>, tensor<2x4x8x7xf32>) -> tensor<2x4x5x7xf32>
    %4 = "djinn.softmax"(%3) {axis = 2 : i64} : (tensor<2x4x5x7xf32>) -> tensor<2x4x5x7xf32>
    %5 = "djinn.matmul"(%4, %2) : (tensor<2x4x5x7xf32>, tensor<2x4x7x8xf32>) -> tensor<2x4x5x8xf32>
    "djinn.return"(%5) : (tensor<2x4x5x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}, {kind = "input", name = "x1"}, {kind = "input", name = "x2"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
