// A step of gradient descent on two layers: one weight comes out improved, of the other the gradient.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<5x3xf32>, %1: tensor<5x2xf32>):
    %2 = "djinn.constant"() {value = dense<0.5> : tensor<3x4xf32>} : () -> tensor<3x4xf32>
    %3 = "djinn.constant"() {value = dense<0.25> : tensor<4x2xf32>} : () -> tensor<4x2xf32>
    %4 = "djinn.matmul"(%0, %2) : (tensor<5x3xf32>, tensor<3x4xf32>) -> tensor<5x4xf32>
    %5 = "djinn.tanh"(%4) : (tensor<5x4xf32>) -> tensor<5x4xf32>
    %6 = "djinn.matmul"(%5, %3) : (tensor<5x4xf32>, tensor<4x2xf32>) -> tensor<5x2xf32>
    %7 = "djinn.sub"(%6, %1) : (tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
    %8 = "djinn.mul"(%7, %7) : (tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
    %9 = "djinn.reduce_sum"(%8) {axes = array<i64: 0, 1>, keepdims = false} : (tensor<5x2xf32>) -> tensor<f32>
    %10 = "djinn.transpose"(%5) {perm = array<i64: 1, 0>} : (tensor<5x4xf32>) -> tensor<4x5xf32>
    %11 = "djinn.matmul"(%10, %7) : (tensor<4x5xf32>, tensor<5x2xf32>) -> tensor<4x2xf32>
    %12 = "djinn.transpose"(%3) {perm = array<i64: 1, 0>} : (tensor<4x2xf32>) -> tensor<2x4xf32>
    %13 = "djinn.matmul"(%7, %12) : (tensor<5x2xf32>, tensor<2x4xf32>) -> tensor<5x4xf32>
    %14 = "djinn.mul"(%5, %5) : (tensor<5x4xf32>, tensor<5x4xf32>) -> tensor<5x4xf32>
    %15 = "djinn.constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
    %16 = "djinn.sub"(%15, %14) : (tensor<f32>, tensor<5x4xf32>) -> tensor<5x4xf32>
    %17 = "djinn.mul"(%13, %16) : (tensor<5x4xf32>, tensor<5x4xf32>) -> tensor<5x4xf32>
    %18 = "djinn.transpose"(%0) {perm = array<i64: 1, 0>} : (tensor<5x3xf32>) -> tensor<3x5xf32>
    %19 = "djinn.matmul"(%18, %17) : (tensor<3x5xf32>, tensor<5x4xf32>) -> tensor<3x4xf32>
    %20 = "djinn.constant"() {value = dense<0.1> : tensor<f32>} : () -> tensor<f32>
    %21 = "djinn.mul"(%19, %20) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
    %22 = "djinn.sub"(%2, %21) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
    "djinn.return"(%9, %22, %11) : (tensor<f32>, tensor<3x4xf32>, tensor<4x2xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "target"}], results = [{kind = "output", name = "loss"}, {kind = "output", name = "w1"}, {kind = "output", name = "dw2"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
