// Under a limit, a large value that is cheap to compute is computed again instead of kept.
// pipeline: builtin.module(lifetime{memory-limit=150000})
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x8xf32>):
    %1 = "djinn.tile"(%0) {repeats = ["16", "16"]} : (tensor<8x8xf32>) -> tensor<128x128xf32>
    %2 = "djinn.reduce_max"(%1) {axes = array<i64: 0>, keepdims = false} : (tensor<128x128xf32>) -> tensor<128xf32>
    %3 = "djinn.tile"(%2) {repeats = ["256"]} : (tensor<128xf32>) -> tensor<32768xf32>
    %4 = "djinn.reduce_max"(%3) {axes = array<i64: 0>, keepdims = true} : (tensor<32768xf32>) -> tensor<1xf32>
    %5 = "djinn.add"(%1, %4) : (tensor<128x128xf32>, tensor<1xf32>) -> tensor<128x128xf32>
    "djinn.return"(%5) : (tensor<128x128xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
