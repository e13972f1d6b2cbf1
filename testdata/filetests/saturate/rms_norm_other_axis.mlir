// A mean over another axis is no RMS normalisation of the last one.
// pipeline: builtin.module(saturate)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x3x8xf32>):
    %1 = "djinn.constant"() {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
    %2 = "djinn.pow"(%0, %1) : (tensor<2x3x8xf32>, tensor<f32>) -> tensor<2x3x8xf32>
    %3 = "djinn.reduce_mean"(%2) {axes = array<i64: 1>, keepdims = true} : (tensor<2x3x8xf32>) -> tensor<2x1x8xf32>
    %4 = "djinn.constant"() {value = dense<1.0e-6> : tensor<f32>} : () -> tensor<f32>
    %5 = "djinn.add"(%3, %4) : (tensor<2x1x8xf32>, tensor<f32>) -> tensor<2x1x8xf32>
    %6 = "djinn.sqrt"(%5) : (tensor<2x1x8xf32>) -> tensor<2x1x8xf32>
    %7 = "djinn.reciprocal"(%6) : (tensor<2x1x8xf32>) -> tensor<2x1x8xf32>
    %8 = "djinn.mul"(%0, %7) : (tensor<2x3x8xf32>, tensor<2x1x8xf32>) -> tensor<2x3x8xf32>
    %9 = "djinn.constant"() {value = dense<0.75> : tensor<8xf32>} : () -> tensor<8xf32>
    %10 = "djinn.mul"(%9, %8) : (tensor<8xf32>, tensor<2x3x8xf32>) -> tensor<2x3x8xf32>
    "djinn.return"(%10) : (tensor<2x3x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
