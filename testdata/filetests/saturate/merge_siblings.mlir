// Three products of one value become one, then slices.
// pipeline: builtin.module(saturate)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<?x7x4xf32, ["batch"]>):
    %1 = "djinn.constant"() {value = dense<0.1> : tensor<4x6xf32>} : () -> tensor<4x6xf32>
    %2 = "djinn.constant"() {value = dense<0.2> : tensor<4x2xf32>} : () -> tensor<4x2xf32>
    %3 = "djinn.constant"() {value = dense<0.3> : tensor<4x2xf32>} : () -> tensor<4x2xf32>
    %4 = "djinn.matmul"(%0, %1) : (tensor<?x7x4xf32, ["batch"]>, tensor<4x6xf32>) -> tensor<?x7x6xf32, ["batch"]>
    %5 = "djinn.matmul"(%0, %2) : (tensor<?x7x4xf32, ["batch"]>, tensor<4x2xf32>) -> tensor<?x7x2xf32, ["batch"]>
    %6 = "djinn.matmul"(%0, %3) : (tensor<?x7x4xf32, ["batch"]>, tensor<4x2xf32>) -> tensor<?x7x2xf32, ["batch"]>
    "djinn.return"(%4, %5, %6) : (tensor<?x7x6xf32, ["batch"]>, tensor<?x7x2xf32, ["batch"]>, tensor<?x7x2xf32, ["batch"]>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}, {kind = "output", name = "y1"}, {kind = "output", name = "y2"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
