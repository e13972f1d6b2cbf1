// A state is renewed in place, so everything that reads its old value stays before: the reader may not move down.
// pipeline: builtin.module(lifetime)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<64x64xf32>, %1: tensor<64x64xf32>):
    %2 = "djinn.softmax"(%0) {axis = 1} : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %3 = "djinn.add"(%0, %1) : (tensor<64x64xf32>, tensor<64x64xf32>) -> tensor<64x64xf32>
    %4 = "djinn.reduce_max"(%3) {axes = array<i64: 0>, keepdims = false} : (tensor<64x64xf32>) -> tensor<64xf32>
    %5 = "djinn.add"(%2, %4) : (tensor<64x64xf32>, tensor<64xf32>) -> tensor<64x64xf32>
    "djinn.return"(%5, %3) : (tensor<64x64xf32>, tensor<64x64xf32>) -> ()
  }) {arguments = [{kind = "state", name = "cache"}, {kind = "input", name = "x"}], results = [{kind = "output", name = "y"}, {argument = 0, kind = "update", name = "cache.new"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
