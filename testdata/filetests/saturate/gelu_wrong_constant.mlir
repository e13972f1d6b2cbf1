// Another constant inside erf is no GELU.
// pipeline: builtin.module(saturate)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x3x8xf32>):
    %1 = "djinn.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
    %2 = "djinn.constant"() {value = dense<0.75> : tensor<f32>} : () -> tensor<f32>
    %3 = "djinn.constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
    %4 = "djinn.mul"(%0, %1) : (tensor<2x3x8xf32>, tensor<f32>) -> tensor<2x3x8xf32>
    %5 = "djinn.mul"(%0, %2) : (tensor<2x3x8xf32>, tensor<f32>) -> tensor<2x3x8xf32>
    %6 = "djinn.erf"(%5) : (tensor<2x3x8xf32>) -> tensor<2x3x8xf32>
    %7 = "djinn.add"(%6, %3) : (tensor<2x3x8xf32>, tensor<f32>) -> tensor<2x3x8xf32>
    %8 = "djinn.mul"(%4, %7) : (tensor<2x3x8xf32>, tensor<2x3x8xf32>) -> tensor<2x3x8xf32>
    "djinn.return"(%8) : (tensor<2x3x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
