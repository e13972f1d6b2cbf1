// Operations within regions take phase and modality of their function; what was given to one stays.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<i1>, %1: tensor<2x3x4x4xf32>):
    %2 = "djinn.constant"() {value = dense<0.1> : tensor<3x3x1x1xf32>} : () -> tensor<3x3x1x1xf32>
    %3 = "djinn.conv"(%1, %2) {dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 4, 4>} : (tensor<2x3x4x4xf32>, tensor<3x3x1x1xf32>) -> tensor<2x3x1x1xf32>
    %4 = "djinn.if"(%0, %3) ({
    ^bb0(%5: tensor<2x3x1x1xf32>):
      %6 = "djinn.relu"(%5) : (tensor<2x3x1x1xf32>) -> tensor<2x3x1x1xf32>
      "djinn.return"(%6) : (tensor<2x3x1x1xf32>) -> ()
    }, {
    ^bb0(%5: tensor<2x3x1x1xf32>):
      %6 = "djinn.tanh"(%5) {djinn.modality = "text"} : (tensor<2x3x1x1xf32>) -> tensor<2x3x1x1xf32>
      "djinn.return"(%6) : (tensor<2x3x1x1xf32>) -> ()
    }) : (tensor<i1>, tensor<2x3x1x1xf32>) -> tensor<2x3x1x1xf32>
    "djinn.return"(%4) : (tensor<2x3x1x1xf32>) -> ()
  }) {arguments = [{kind = "input", name = "c"}, {kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
