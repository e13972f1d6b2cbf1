// Layers of which some share their weight: which weight is what a call says.
// pipeline: builtin.module(outline{min-ops=4})
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4xf32>, %1: tensor<2x4xf32>):
    %2 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %3 = "djinn.constant"() {value = dense<1.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %4 = "djinn.matmul"(%0, %2) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.0.proj")
    %5 = "djinn.gelu"(%4) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0.act")
    %6 = "djinn.mul"(%5, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0.gate")
    %7 = "djinn.add"(%0, %6) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0")
    %8 = "djinn.matmul"(%7, %2) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.1.proj")
    %9 = "djinn.gelu"(%8) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1.act")
    %10 = "djinn.mul"(%9, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1.gate")
    %11 = "djinn.add"(%7, %10) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1")
    %12 = "djinn.matmul"(%11, %3) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.2.proj")
    %13 = "djinn.gelu"(%12) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2.act")
    %14 = "djinn.mul"(%13, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2.gate")
    %15 = "djinn.add"(%11, %14) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2")
    %16 = "djinn.matmul"(%15, %2) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.3.proj")
    %17 = "djinn.gelu"(%16) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.3.act")
    %18 = "djinn.mul"(%17, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.3.gate")
    %19 = "djinn.add"(%15, %18) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.3")
    "djinn.return"(%19) : (tensor<2x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "mask"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
