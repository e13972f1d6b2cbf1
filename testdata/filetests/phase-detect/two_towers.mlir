// Text and image are encoded side by side and meet in a product: towers, then fusion.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x3xi64>, %1: tensor<2x3x4x4xf32>):
    %2 = "djinn.constant"() {value = dense<0.25> : tensor<16x4xf32>} : () -> tensor<16x4xf32>
    %3 = "djinn.gather"(%2, %0) {axis = 0 : i64} : (tensor<16x4xf32>, tensor<2x3xi64>) -> tensor<2x3x4xf32>
    %4 = "djinn.reduce_mean"(%3) {axes = array<i64: 1>, keepdims = false} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
    %5 = "djinn.constant"() {value = dense<0.1> : tensor<4x3x4x4xf32>} : () -> tensor<4x3x4x4xf32>
    %6 = "djinn.conv"(%1, %5) {dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 4, 4>} : (tensor<2x3x4x4xf32>, tensor<4x3x4x4xf32>) -> tensor<2x4x1x1xf32>
    %7 = "djinn.reshape"(%6) {shape = ["2", "4"]} : (tensor<2x4x1x1xf32>) -> tensor<2x4xf32>
    %8 = "djinn.transpose"(%7) {perm = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<4x2xf32>
    %9 = "djinn.matmul"(%4, %8) : (tensor<2x4xf32>, tensor<4x2xf32>) -> tensor<2x2xf32>
    "djinn.return"(%9) : (tensor<2x2xf32>) -> ()
  }) {arguments = [{kind = "input", name = "ids"}, {kind = "input", name = "pixels"}], results = [{kind = "output", name = "logits"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
