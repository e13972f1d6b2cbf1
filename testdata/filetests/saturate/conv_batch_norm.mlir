// Batch normalisation is folded into the convolution before it.
// pipeline: builtin.module(saturate,fold-weights)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<1x2x8x8xf32>):
    %1 = "djinn.constant"() {value = dense<0.1> : tensor<3x2x3x3xf32>} : () -> tensor<3x2x3x3xf32>
    %2 = "djinn.constant"() {value = dense<1.5> : tensor<3xf32>} : () -> tensor<3xf32>
    %3 = "djinn.constant"() {value = dense<0.25> : tensor<3xf32>} : () -> tensor<3xf32>
    %4 = "djinn.constant"() {value = dense<0.5> : tensor<3xf32>} : () -> tensor<3xf32>
    %5 = "djinn.constant"() {value = dense<2.0> : tensor<3xf32>} : () -> tensor<3xf32>
    %6 = "djinn.conv"(%0, %1) {dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>, tensor<3x2x3x3xf32>) -> tensor<1x3x8x8xf32>
    %7 = "djinn.batch_norm"(%6, %2, %3, %4, %5) {epsilon = 1.0e-5 : f64} : (tensor<1x3x8x8xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<1x3x8x8xf32>
    "djinn.return"(%7) : (tensor<1x3x8x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
