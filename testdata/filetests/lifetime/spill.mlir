// Under a limit, a large value whose operands are gone waits in host memory.
// pipeline: builtin.module(lifetime{memory-limit=200000})
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<128x128xf32>):
    %1 = "djinn.matmul"(%0, %0) : (tensor<128x128xf32>, tensor<128x128xf32>) -> tensor<128x128xf32>
    %2 = "djinn.softmax"(%1) {axis = 1} : (tensor<128x128xf32>) -> tensor<128x128xf32>
    %3 = "djinn.reduce_max"(%2) {axes = array<i64: 0>, keepdims = false} : (tensor<128x128xf32>) -> tensor<128xf32>
    %4 = "djinn.tile"(%3) {repeats = ["320"]} : (tensor<128xf32>) -> tensor<40960xf32>
    %5 = "djinn.reduce_max"(%4) {axes = array<i64: 0>, keepdims = true} : (tensor<40960xf32>) -> tensor<1xf32>
    %6 = "djinn.add"(%2, %5) : (tensor<128x128xf32>, tensor<1xf32>) -> tensor<128x128xf32>
    "djinn.return"(%6) : (tensor<128x128xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
