// Attention between inputs is no cache: nothing says that keys and values stay.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<1x2x1x4xf32>, %1: tensor<1x2x6x4xf32>, %2: tensor<1x2x6x4xf32>):
    %3 = "djinn.sdpa"(%0, %1, %2) {causal = false, causal_offset = "0", kv_heads = 0 : i64, query_heads = 0 : i64, scale = 0.5 : f64} : (tensor<1x2x1x4xf32>, tensor<1x2x6x4xf32>, tensor<1x2x6x4xf32>) -> tensor<1x2x1x4xf32>
    "djinn.return"(%3) : (tensor<1x2x1x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "q"}, {kind = "input", name = "k"}, {kind = "input", name = "v"}], results = [{kind = "output", name = "o"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
