// One token goes through a selective scan whose state comes in and goes out: a decode.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x1xi64>, %1: tensor<2x4x3xf32>):
    %2 = "djinn.constant"() {value = dense<0.25> : tensor<16x4xf32>} : () -> tensor<16x4xf32>
    %3 = "djinn.gather"(%2, %0) {axis = 0 : i64} : (tensor<16x4xf32>, tensor<2x1xi64>) -> tensor<2x1x4xf32>
    %4 = "djinn.reshape"(%3) {shape = ["2", "4", "1"]} : (tensor<2x1x4xf32>) -> tensor<2x4x1xf32>
    %5 = "djinn.softplus"(%4) : (tensor<2x4x1xf32>) -> tensor<2x4x1xf32>
    %6 = "djinn.constant"() {value = dense<-1.0> : tensor<1x4x3xf32>} : () -> tensor<1x4x3xf32>
    %7 = "djinn.mul"(%5, %6) : (tensor<2x4x1xf32>, tensor<1x4x3xf32>) -> tensor<2x4x3xf32>
    %8 = "djinn.exp"(%7) : (tensor<2x4x3xf32>) -> tensor<2x4x3xf32>
    %9 = "djinn.mul"(%8, %1) : (tensor<2x4x3xf32>, tensor<2x4x3xf32>) -> tensor<2x4x3xf32>
    %10 = "djinn.add"(%9, %4) : (tensor<2x4x3xf32>, tensor<2x4x1xf32>) -> tensor<2x4x3xf32>
    %11 = "djinn.reduce_sum"(%10) {axes = array<i64: 2>, keepdims = false} : (tensor<2x4x3xf32>) -> tensor<2x4xf32>
    %12 = "djinn.constant"() {value = dense<0.1> : tensor<4x16xf32>} : () -> tensor<4x16xf32>
    %13 = "djinn.matmul"(%11, %12) : (tensor<2x4xf32>, tensor<4x16xf32>) -> tensor<2x16xf32>
    "djinn.return"(%13, %10) : (tensor<2x16xf32>, tensor<2x4x3xf32>) -> ()
  }) {arguments = [{kind = "input", name = "ids"}, {kind = "input", name = "state"}], results = [{kind = "output", name = "logits"}, {kind = "output", name = "state"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
