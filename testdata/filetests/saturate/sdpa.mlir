// softmax(s·Q·Kᵀ + M)·V is attention; the scale is gathered from both operands.
// pipeline: builtin.module(saturate)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4x5x8xf32>, %1: tensor<2x4x8x7xf32>, %2: tensor<2x4x7x8xf32>, %3: tensor<2x1x5x7xf32>):
    %4 = "djinn.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
    %5 = "djinn.mul"(%0, %4) : (tensor<2x4x5x8xf32>, tensor<f32>) -> tensor<2x4x5x8xf32>
    %6 = "djinn.mul"(%1, %4) : (tensor<2x4x8x7xf32>, tensor<f32>) -> tensor<2x4x8x7xf32>
    %7 = "djinn.matmul"(%5, %6) : (tensor<2x4x5x8xf32>, tensor<2x4x8x7xf32>) -> tensor<2x4x5x7xf32>
    %8 = "djinn.add"(%7, %3) : (tensor<2x4x5x7xf32>, tensor<2x1x5x7xf32>) -> tensor<2x4x5x7xf32>
    %9 = "djinn.softmax"(%8) {axis = 3 : i64} : (tensor<2x4x5x7xf32>) -> tensor<2x4x5x7xf32>
    %10 = "djinn.matmul"(%9, %2) : (tensor<2x4x5x7xf32>, tensor<2x4x7x8xf32>) -> tensor<2x4x5x8xf32>
    "djinn.return"(%10) : (tensor<2x4x5x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}, {kind = "input", name = "x1"}, {kind = "input", name = "x2"}, {kind = "input", name = "x3"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
