// A transposed weight is computed once; what depends on the input stays.
// pipeline: builtin.module(fold-weights)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4xf32>):
    %1 = "djinn.constant"() {value = dense<[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]> : tensor<2x4xf32>} : () -> tensor<2x4xf32>
    %2 = "djinn.transpose"(%1) {perm = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<4x2xf32>
    %3 = "djinn.matmul"(%0, %2) : (tensor<2x4xf32>, tensor<4x2xf32>) -> tensor<2x2xf32>
    "djinn.return"(%3) : (tensor<2x2xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
