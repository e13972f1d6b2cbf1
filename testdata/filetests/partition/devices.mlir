// Launches and engines lie on one device and in one phase; a transfer is a unit of its own.
// pipeline: builtin.module(partition)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<4x8xf32>):
    %1 = "djinn.exp"(%0) {djinn.device = "gpu0", djinn.phase = "llm_prefill"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %2 = "djinn.transfer"(%1) {device = "gpu1", djinn.device = "gpu1"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %3 = "djinn.tanh"(%2) {djinn.device = "gpu1"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %4 = "djinn.neg"(%3) {djinn.device = "gpu1", djinn.phase = "llm_decode"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    "djinn.return"(%4) : (tensor<4x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
