// Latents go in and come out, a time step sets the noise, attention reads a prompt: the attention is fusion, what
// follows stays vision.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<1x4x2x2xf32>, %1: tensor<i64>, %2: tensor<1x3x4xf32>):
    %3 = "djinn.cast"(%1) {to = f32} : (tensor<i64>) -> tensor<f32>
    %4 = "djinn.constant"() {value = dense<[1.0, 0.1]> : tensor<2xf32>} : () -> tensor<2xf32>
    %5 = "djinn.mul"(%3, %4) : (tensor<f32>, tensor<2xf32>) -> tensor<2xf32>
    %6 = "djinn.sin"(%5) : (tensor<2xf32>) -> tensor<2xf32>
    %7 = "djinn.cos"(%5) : (tensor<2xf32>) -> tensor<2xf32>
    %8 = "djinn.concat"(%6, %7) {axis = 0 : i64} : (tensor<2xf32>, tensor<2xf32>) -> tensor<4xf32>
    %9 = "djinn.reshape"(%8) {shape = ["4", "1", "1"]} : (tensor<4xf32>) -> tensor<4x1x1xf32>
    %10 = "djinn.constant"() {value = dense<0.1> : tensor<4x4x1x1xf32>} : () -> tensor<4x4x1x1xf32>
    %11 = "djinn.conv"(%0, %10) {dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>} : (tensor<1x4x2x2xf32>, tensor<4x4x1x1xf32>) -> tensor<1x4x2x2xf32>
    %12 = "djinn.add"(%11, %9) : (tensor<1x4x2x2xf32>, tensor<4x1x1xf32>) -> tensor<1x4x2x2xf32>
    %13 = "djinn.reshape"(%12) {shape = ["1", "1", "4", "4"]} : (tensor<1x4x2x2xf32>) -> tensor<1x1x4x4xf32>
    %14 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %15 = "djinn.matmul"(%2, %14) : (tensor<1x3x4xf32>, tensor<4x4xf32>) -> tensor<1x3x4xf32>
    %16 = "djinn.reshape"(%15) {shape = ["1", "1", "3", "4"]} : (tensor<1x3x4xf32>) -> tensor<1x1x3x4xf32>
    %17 = "djinn.sdpa"(%13, %16, %16) {causal = false, causal_offset = "0", kv_heads = 0 : i64, query_heads = 0 : i64, scale = 0.5 : f64} : (tensor<1x1x4x4xf32>, tensor<1x1x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x1x4x4xf32>
    %18 = "djinn.reshape"(%17) {shape = ["1", "4", "2", "2"]} : (tensor<1x1x4x4xf32>) -> tensor<1x4x2x2xf32>
    %19 = "djinn.add"(%18, %12) : (tensor<1x4x2x2xf32>, tensor<1x4x2x2xf32>) -> tensor<1x4x2x2xf32>
    "djinn.return"(%19) : (tensor<1x4x2x2xf32>) -> ()
  }) {arguments = [{kind = "input", name = "sample"}, {kind = "input", name = "timestep"}, {kind = "input", name = "prompt"}], results = [{kind = "output", name = "noise"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
