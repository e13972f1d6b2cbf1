// A graph that no rule improves stays as it is.
// pipeline: builtin.module(saturate)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x3x4xf32>):
    %1 = "djinn.tanh"(%0) : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    %2 = "djinn.exp"(%1) : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    "djinn.return"(%2) : (tensor<2x3x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
