// Weights that are copied from the host come before the work that runs beside their copies.
// pipeline: builtin.module(lifetime{memory-limit=4000000})
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<256x512xf32>):
    %10 = "djinn.constant"() {value = dense<0.1> : tensor<1x1xf32>} : () -> tensor<1x1xf32>
    %11 = "djinn.constant"() {value = dense<0.2> : tensor<1x1xf32>} : () -> tensor<1x1xf32>
    %12 = "djinn.constant"() {value = dense<0.3> : tensor<1x1xf32>} : () -> tensor<1x1xf32>
    %1 = "djinn.tile"(%10) {repeats = ["512", "512"]} : (tensor<1x1xf32>) -> tensor<512x512xf32>
    %2 = "djinn.tile"(%11) {repeats = ["512", "512"]} : (tensor<1x1xf32>) -> tensor<512x512xf32>
    %3 = "djinn.tile"(%12) {repeats = ["512", "512"]} : (tensor<1x1xf32>) -> tensor<512x512xf32>
    %4 = "djinn.transfer"(%1) {device = "device", djinn.device = "device"} : (tensor<512x512xf32>) -> tensor<512x512xf32>
    %5 = "djinn.matmul"(%0, %4) {djinn.device = "device"} : (tensor<256x512xf32>, tensor<512x512xf32>) -> tensor<256x512xf32>
    %6 = "djinn.transfer"(%2) {device = "device", djinn.device = "device"} : (tensor<512x512xf32>) -> tensor<512x512xf32>
    %7 = "djinn.matmul"(%5, %6) {djinn.device = "device"} : (tensor<256x512xf32>, tensor<512x512xf32>) -> tensor<256x512xf32>
    %8 = "djinn.transfer"(%3) {device = "device", djinn.device = "device"} : (tensor<512x512xf32>) -> tensor<512x512xf32>
    %9 = "djinn.matmul"(%7, %8) {djinn.device = "device"} : (tensor<256x512xf32>, tensor<512x512xf32>) -> tensor<256x512xf32>
    "djinn.return"(%9) : (tensor<256x512xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}], results = [{kind = "output", name = "y"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
