// A state and its update live from call to call, whatever they hold.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4xf32>, %1: tensor<i64>):
    %2 = "djinn.constant"() {value = dense<1> : tensor<i64>} : () -> tensor<i64>
    %3 = "djinn.add"(%1, %2) : (tensor<i64>, tensor<i64>) -> tensor<i64>
    %4 = "djinn.relu"(%0) : (tensor<2x4xf32>) -> tensor<2x4xf32>
    "djinn.return"(%4, %3) : (tensor<2x4xf32>, tensor<i64>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "state", name = "count"}], results = [{kind = "output", name = "y"}, {argument = 1 : i64, kind = "update", name = "count"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
