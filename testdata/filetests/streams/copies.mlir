// A copy runs on a copy stream, numbered apart from those of kernels; views go along with their producer.
// pipeline: builtin.module(partition,streams)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<8x8xf32>):
    %1 = "djinn.exp"(%0) : (tensor<8x8xf32>) -> tensor<8x8xf32>
    %2 = "djinn.transfer"(%1) {device = "host"} : (tensor<8x8xf32>) -> tensor<8x8xf32>
    %3 = "djinn.softmax"(%1) {axis = 1} : (tensor<8x8xf32>) -> tensor<8x8xf32>
    %4 = "djinn.reshape"(%1) {shape = ["64"]} : (tensor<8x8xf32>) -> tensor<64xf32>
    %5 = "djinn.constant"() {value = dense<0.5> : tensor<8x8xf32>} : () -> tensor<8x8xf32>
    %6 = "djinn.add"(%3, %5) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    "djinn.return"(%2, %6, %4) : (tensor<8x8xf32>, tensor<8x8xf32>, tensor<64xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}, {kind = "output", name = "z"}, {kind = "output", name = "v"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
