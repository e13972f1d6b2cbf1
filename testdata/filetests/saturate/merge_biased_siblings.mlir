// Two products with biases become one product and one bias.
// pipeline: builtin.module(saturate,fold-weights)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<?x7x4xf32, ["batch"]>):
    %1 = "djinn.constant"() {value = dense<0.1> : tensor<4x6xf32>} : () -> tensor<4x6xf32>
    %2 = "djinn.constant"() {value = dense<0.2> : tensor<4x6xf32>} : () -> tensor<4x6xf32>
    %3 = "djinn.constant"() {value = dense<0.3> : tensor<6xf32>} : () -> tensor<6xf32>
    %4 = "djinn.constant"() {value = dense<0.4> : tensor<6xf32>} : () -> tensor<6xf32>
    %5 = "djinn.matmul"(%0, %1) : (tensor<?x7x4xf32, ["batch"]>, tensor<4x6xf32>) -> tensor<?x7x6xf32, ["batch"]>
    %6 = "djinn.add"(%5, %3) : (tensor<?x7x6xf32, ["batch"]>, tensor<6xf32>) -> tensor<?x7x6xf32, ["batch"]>
    %7 = "djinn.matmul"(%0, %2) : (tensor<?x7x4xf32, ["batch"]>, tensor<4x6xf32>) -> tensor<?x7x6xf32, ["batch"]>
    %8 = "djinn.add"(%7, %4) : (tensor<?x7x6xf32, ["batch"]>, tensor<6xf32>) -> tensor<?x7x6xf32, ["batch"]>
    %9 = "djinn.silu"(%6) : (tensor<?x7x6xf32, ["batch"]>) -> tensor<?x7x6xf32, ["batch"]>
    %10 = "djinn.mul"(%9, %8) : (tensor<?x7x6xf32, ["batch"]>, tensor<?x7x6xf32, ["batch"]>) -> tensor<?x7x6xf32, ["batch"]>
    "djinn.return"(%10) : (tensor<?x7x6xf32, ["batch"]>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
