// Transposes move towards the results, meet and cancel.
// pipeline: builtin.module(saturate)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x3x4xf32>, %1: tensor<2x3x4xf32>):
    %2 = "djinn.transpose"(%0) {perm = array<i64: 2, 0, 1>} : (tensor<2x3x4xf32>) -> tensor<4x2x3xf32>
    %3 = "djinn.transpose"(%1) {perm = array<i64: 2, 0, 1>} : (tensor<2x3x4xf32>) -> tensor<4x2x3xf32>
    %4 = "djinn.mul"(%2, %3) : (tensor<4x2x3xf32>, tensor<4x2x3xf32>) -> tensor<4x2x3xf32>
    %5 = "djinn.relu"(%4) : (tensor<4x2x3xf32>) -> tensor<4x2x3xf32>
    %6 = "djinn.transpose"(%5) {perm = array<i64: 1, 2, 0>} : (tensor<4x2x3xf32>) -> tensor<2x3x4xf32>
    "djinn.return"(%6) : (tensor<2x3x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}, {kind = "input", name = "x1"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
