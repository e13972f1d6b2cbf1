// Sizes computed by tensors become symbolic sizes.
// pipeline: builtin.module(canonicalize)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<?x4xf32, ["s"]>):
    %1 = "djinn.dim_expr"() {exprs = ["s"], scalar = true} : () -> tensor<i64>
    %2 = "djinn.constant"() {value = dense<2> : tensor<i64>} : () -> tensor<i64>
    %3 = "djinn.mul"(%1, %2) : (tensor<i64>, tensor<i64>) -> tensor<i64>
    %4 = "djinn.cast"(%3) {to = f32} : (tensor<i64>) -> tensor<f32>
    %5 = "djinn.mul"(%0, %4) : (tensor<?x4xf32, ["s"]>, tensor<f32>) -> tensor<?x4xf32, ["s"]>
    "djinn.return"(%5, %3) : (tensor<?x4xf32, ["s"]>, tensor<i64>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}, {kind = "output", name = "y1"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
