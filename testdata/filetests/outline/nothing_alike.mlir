// Layers with other functions in them are no instances of one region.
// pipeline: builtin.module(outline{min-ops=4})
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4xf32>, %1: tensor<2x4xf32>):
    %2 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %3 = "djinn.matmul"(%0, %2) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.0.proj")
    %4 = "djinn.gelu"(%3) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0.act")
    %5 = "djinn.mul"(%4, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0.gate")
    %6 = "djinn.add"(%0, %5) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0")
    %7 = "djinn.constant"() {value = dense<1.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %8 = "djinn.matmul"(%6, %7) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.1.proj")
    %9 = "djinn.relu"(%8) : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1.act")
    %10 = "djinn.mul"(%9, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1.gate")
    %11 = "djinn.add"(%6, %10) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1")
    %12 = "djinn.constant"() {value = dense<2.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %13 = "djinn.matmul"(%11, %12) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.2.proj")
    %14 = "djinn.silu"(%13) : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2.act")
    %15 = "djinn.mul"(%14, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2.gate")
    %16 = "djinn.add"(%11, %15) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2")
    "djinn.return"(%16) : (tensor<2x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "mask"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
