// A softmax over a product with a weight chooses among experts: no attention.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<4x8xf32>):
    %1 = "djinn.constant"() {value = dense<0.1> : tensor<8x3xf32>} : () -> tensor<8x3xf32>
    %2 = "djinn.matmul"(%0, %1) : (tensor<4x8xf32>, tensor<8x3xf32>) -> tensor<4x3xf32>
    %3 = "djinn.softmax"(%2) {axis = 1 : i64} : (tensor<4x3xf32>) -> tensor<4x3xf32>
    %4 = "djinn.constant"() {value = dense<0.2> : tensor<3x8xf32>} : () -> tensor<3x8xf32>
    %5 = "djinn.matmul"(%3, %4) : (tensor<4x3xf32>, tensor<3x8xf32>) -> tensor<4x8xf32>
    "djinn.return"(%5) : (tensor<4x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "o"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
