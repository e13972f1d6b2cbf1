// A contraction takes in bias, activation and residual; a softmax the work on its rows; views cost no launch.
// pipeline: builtin.module(partition)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<4x8xf32>):
    %1 = "djinn.constant"() {value = dense<0.5> : tensor<8x8xf32>} : () -> tensor<8x8xf32>
    %2 = "djinn.constant"() {value = dense<0.25> : tensor<8xf32>} : () -> tensor<8xf32>
    %3 = "djinn.exp"(%2) : (tensor<8xf32>) -> tensor<8xf32>
    %4 = "djinn.matmul"(%0, %1) : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    %5 = "djinn.add"(%4, %3) : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
    %6 = "djinn.relu"(%5) : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %7 = "djinn.add"(%6, %0) : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
    %8 = "djinn.neg"(%7) : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %9 = "djinn.softmax"(%8) {axis = 1} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %10 = "djinn.mul"(%9, %7) : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
    %11 = "djinn.reshape"(%10) {shape = ["2", "2", "8"]} : (tensor<4x8xf32>) -> tensor<2x2x8xf32>
    "djinn.return"(%11) : (tensor<2x2x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
