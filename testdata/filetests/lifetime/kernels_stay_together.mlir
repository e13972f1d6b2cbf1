// The operations of a kernel group move as one; what they hand to one another inside takes no memory.
// pipeline: builtin.module(lifetime)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x8xf32>):
    %1 = "djinn.tile"(%0) {djinn.kernel = 0, repeats = ["16", "16"]} : (tensor<8x8xf32>) -> tensor<128x128xf32>
    %2 = "djinn.tile"(%0) {djinn.kernel = 1, repeats = ["32", "16"]} : (tensor<8x8xf32>) -> tensor<256x128xf32>
    %3 = "djinn.softmax"(%1) {axis = 1, djinn.kernel = 2} : (tensor<128x128xf32>) -> tensor<128x128xf32>
    %4 = "djinn.softmax"(%2) {axis = 1, djinn.kernel = 3} : (tensor<256x128xf32>) -> tensor<256x128xf32>
    %5 = "djinn.reduce_max"(%3) {axes = array<i64: 0>, djinn.kernel = 2, keepdims = false} : (tensor<128x128xf32>) -> tensor<128xf32>
    %6 = "djinn.reduce_max"(%4) {axes = array<i64: 0>, djinn.kernel = 3, keepdims = false} : (tensor<256x128xf32>) -> tensor<128xf32>
    %7 = "djinn.add"(%5, %6) : (tensor<128xf32>, tensor<128xf32>) -> tensor<128xf32>
    "djinn.return"(%7) : (tensor<128xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
