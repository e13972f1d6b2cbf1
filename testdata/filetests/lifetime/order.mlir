// Each large value is reduced before the next one is made.
// pipeline: builtin.module(lifetime)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x8xf32>):
    %1 = "djinn.tile"(%0) {repeats = ["16", "16"]} : (tensor<8x8xf32>) -> tensor<128x128xf32>
    %2 = "djinn.tile"(%0) {repeats = ["32", "16"]} : (tensor<8x8xf32>) -> tensor<256x128xf32>
    %3 = "djinn.reduce_max"(%1) {axes = array<i64: 0>, keepdims = false} : (tensor<128x128xf32>) -> tensor<128xf32>
    %4 = "djinn.reduce_max"(%2) {axes = array<i64: 0>, keepdims = false} : (tensor<256x128xf32>) -> tensor<128xf32>
    %5 = "djinn.add"(%3, %4) : (tensor<128xf32>, tensor<128xf32>) -> tensor<128xf32>
    "djinn.return"(%5) : (tensor<128xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
