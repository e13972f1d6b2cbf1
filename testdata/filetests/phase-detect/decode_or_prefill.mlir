// A symbolic number of tokens on top of a cache: the answer is guarded.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x?xi64, ["s1"]>, %1: tensor<2x1x?x4xf32, ["s0"]>, %2: tensor<2x1x?x4xf32, ["s0"]>):
    %3 = "djinn.constant"() {value = dense<0.25> : tensor<16x4xf32>} : () -> tensor<16x4xf32>
    %4 = "djinn.gather"(%3, %0) {axis = 0 : i64} : (tensor<16x4xf32>, tensor<2x?xi64, ["s1"]>) -> tensor<2x?x4xf32, ["s1"]>
    %5 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %6 = "djinn.matmul"(%4, %5) : (tensor<2x?x4xf32, ["s1"]>, tensor<4x4xf32>) -> tensor<2x?x4xf32, ["s1"]>
    %7 = "djinn.reshape"(%6) {shape = ["2", "1", "s1", "4"]} : (tensor<2x?x4xf32, ["s1"]>) -> tensor<2x1x?x4xf32, ["s1"]>
    %8 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %9 = "djinn.matmul"(%4, %8) : (tensor<2x?x4xf32, ["s1"]>, tensor<4x4xf32>) -> tensor<2x?x4xf32, ["s1"]>
    %10 = "djinn.reshape"(%9) {shape = ["2", "1", "s1", "4"]} : (tensor<2x?x4xf32, ["s1"]>) -> tensor<2x1x?x4xf32, ["s1"]>
    %11 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %12 = "djinn.matmul"(%4, %11) : (tensor<2x?x4xf32, ["s1"]>, tensor<4x4xf32>) -> tensor<2x?x4xf32, ["s1"]>
    %13 = "djinn.reshape"(%12) {shape = ["2", "1", "s1", "4"]} : (tensor<2x?x4xf32, ["s1"]>) -> tensor<2x1x?x4xf32, ["s1"]>
    %14 = "djinn.concat"(%1, %10) {axis = 2 : i64} : (tensor<2x1x?x4xf32, ["s0"]>, tensor<2x1x?x4xf32, ["s1"]>) -> tensor<2x1x?x4xf32, ["s0 + s1"]>
    %15 = "djinn.concat"(%2, %13) {axis = 2 : i64} : (tensor<2x1x?x4xf32, ["s0"]>, tensor<2x1x?x4xf32, ["s1"]>) -> tensor<2x1x?x4xf32, ["s0 + s1"]>
    %16 = "djinn.sdpa"(%7, %14, %15) {causal = false, causal_offset = "0", kv_heads = 0 : i64, query_heads = 0 : i64, scale = 0.5 : f64} : (tensor<2x1x?x4xf32, ["s1"]>, tensor<2x1x?x4xf32, ["s0 + s1"]>, tensor<2x1x?x4xf32, ["s0 + s1"]>) -> tensor<2x1x?x4xf32, ["s1"]>
    %17 = "djinn.reshape"(%16) {shape = ["2", "s1", "4"]} : (tensor<2x1x?x4xf32, ["s1"]>) -> tensor<2x?x4xf32, ["s1"]>
    %18 = "djinn.constant"() {value = dense<0.5> : tensor<4x16xf32>} : () -> tensor<4x16xf32>
    %19 = "djinn.matmul"(%17, %18) : (tensor<2x?x4xf32, ["s1"]>, tensor<4x16xf32>) -> tensor<2x?x16xf32, ["s1"]>
    "djinn.return"(%19, %14, %15) : (tensor<2x?x16xf32, ["s1"]>, tensor<2x1x?x4xf32, ["s0 + s1"]>, tensor<2x1x?x4xf32, ["s0 + s1"]>) -> ()
  }) {arguments = [{kind = "input", name = "ids"}, {kind = "input", name = "past.key"}, {kind = "input", name = "past.value"}], results = [{kind = "output", name = "logits"}, {kind = "output", name = "present.key"}, {kind = "output", name = "present.value"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {s0 = {divisor = 1 : i64, max = 32 : i64, min = 1 : i64}, s1 = {divisor = 1 : i64, max = 32 : i64, min = 1 : i64}}} : () -> ()
