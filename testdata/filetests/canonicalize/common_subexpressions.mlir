// Equal operations are merged, unused ones removed.
// pipeline: builtin.module(canonicalize)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x3x4xf32>):
    %1 = "djinn.relu"(%0) : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    %2 = "djinn.relu"(%0) : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    %3 = "djinn.add"(%1, %2) : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    %4 = "djinn.exp"(%3) : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    "djinn.return"(%3) : (tensor<2x3x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
