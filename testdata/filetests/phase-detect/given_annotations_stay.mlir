// The frontend says that the picture is a spectrogram: it is not overruled, and the modality flows on.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x3x8x8xf32>):
    %1 = "djinn.constant"() {value = dense<0.1> : tensor<4x3x3x3xf32>} : () -> tensor<4x3x3x3xf32>
    %2 = "djinn.conv"(%0, %1) {dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>, djinn.modality = "audio", djinn.phase = "forward"} : (tensor<2x3x8x8xf32>, tensor<4x3x3x3xf32>) -> tensor<2x4x8x8xf32>
    %3 = "djinn.relu"(%2) : (tensor<2x4x8x8xf32>) -> tensor<2x4x8x8xf32>
    "djinn.return"(%3) : (tensor<2x4x8x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
