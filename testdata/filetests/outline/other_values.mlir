// Layers that use one weight, each with a value of its own from outside.
// pipeline: builtin.module(outline{min-ops=4})
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x4xf32>, %1: tensor<2x4xf32>, %2: tensor<2x4xf32>, %3: tensor<2x4xf32>):
    %4 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %5 = "djinn.matmul"(%0, %4) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.0.proj")
    %6 = "djinn.gelu"(%5) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0.act")
    %7 = "djinn.mul"(%6, %1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0.gate")
    %8 = "djinn.add"(%0, %7) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.0")
    %9 = "djinn.matmul"(%8, %4) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.1.proj")
    %10 = "djinn.gelu"(%9) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1.act")
    %11 = "djinn.mul"(%10, %2) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1.gate")
    %12 = "djinn.add"(%8, %11) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.1")
    %13 = "djinn.matmul"(%12, %4) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32> loc("layers.2.proj")
    %14 = "djinn.gelu"(%13) {approximate = "none"} : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2.act")
    %15 = "djinn.mul"(%14, %3) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2.gate")
    %16 = "djinn.add"(%12, %15) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32> loc("layers.2")
    "djinn.return"(%16) : (tensor<2x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "a"}, {kind = "input", name = "b"}, {kind = "input", name = "c"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
