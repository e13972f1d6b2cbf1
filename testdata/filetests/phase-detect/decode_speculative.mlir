// Four tokens on top of a far longer cache: a step that verifies guesses is a decode.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4xi64>, %1: tensor<2x1x32x4xf32>, %2: tensor<2x1x32x4xf32>):
    %3 = "djinn.constant"() {value = dense<0.25> : tensor<16x4xf32>} : () -> tensor<16x4xf32>
    %4 = "djinn.gather"(%3, %0) {axis = 0 : i64} : (tensor<16x4xf32>, tensor<2x4xi64>) -> tensor<2x4x4xf32>
    %5 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %6 = "djinn.matmul"(%4, %5) : (tensor<2x4x4xf32>, tensor<4x4xf32>) -> tensor<2x4x4xf32>
    %7 = "djinn.reshape"(%6) {shape = ["2", "1", "4", "4"]} : (tensor<2x4x4xf32>) -> tensor<2x1x4x4xf32>
    %8 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %9 = "djinn.matmul"(%4, %8) : (tensor<2x4x4xf32>, tensor<4x4xf32>) -> tensor<2x4x4xf32>
    %10 = "djinn.reshape"(%9) {shape = ["2", "1", "4", "4"]} : (tensor<2x4x4xf32>) -> tensor<2x1x4x4xf32>
    %11 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %12 = "djinn.matmul"(%4, %11) : (tensor<2x4x4xf32>, tensor<4x4xf32>) -> tensor<2x4x4xf32>
    %13 = "djinn.reshape"(%12) {shape = ["2", "1", "4", "4"]} : (tensor<2x4x4xf32>) -> tensor<2x1x4x4xf32>
    %14 = "djinn.constant"() {value = dense<[3, 4, 5, 6]> : tensor<4xi64>} : () -> tensor<4xi64>
    %15 = "djinn.index_copy"(%1, %14, %10) {axis = 2 : i64} : (tensor<2x1x32x4xf32>, tensor<4xi64>, tensor<2x1x4x4xf32>) -> tensor<2x1x32x4xf32>
    %16 = "djinn.index_copy"(%2, %14, %13) {axis = 2 : i64} : (tensor<2x1x32x4xf32>, tensor<4xi64>, tensor<2x1x4x4xf32>) -> tensor<2x1x32x4xf32>
    %17 = "djinn.sdpa"(%7, %15, %16) {causal = false, causal_offset = "0", kv_heads = 0 : i64, query_heads = 0 : i64, scale = 0.5 : f64} : (tensor<2x1x4x4xf32>, tensor<2x1x32x4xf32>, tensor<2x1x32x4xf32>) -> tensor<2x1x4x4xf32>
    %18 = "djinn.reshape"(%17) {shape = ["2", "4", "4"]} : (tensor<2x1x4x4xf32>) -> tensor<2x4x4xf32>
    %19 = "djinn.constant"() {value = dense<0.5> : tensor<4x16xf32>} : () -> tensor<4x16xf32>
    %20 = "djinn.matmul"(%18, %19) : (tensor<2x4x4xf32>, tensor<4x16xf32>) -> tensor<2x4x16xf32>
    "djinn.return"(%20, %15, %16) : (tensor<2x4x16xf32>, tensor<2x1x32x4xf32>, tensor<2x1x32x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "ids"}, {kind = "input", name = "past.key"}, {kind = "input", name = "past.value"}], results = [{kind = "output", name = "logits"}, {kind = "output", name = "present.key"}, {kind = "output", name = "present.value"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
