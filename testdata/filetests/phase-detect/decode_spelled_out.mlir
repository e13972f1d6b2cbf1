// The same with a cache of fixed length and attention spelled out.
// pipeline: builtin.module(phase-detect)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x1xi64>, %1: tensor<2x1x8x4xf32>, %2: tensor<2x1x8x4xf32>):
    %3 = "djinn.constant"() {value = dense<0.25> : tensor<16x4xf32>} : () -> tensor<16x4xf32>
    %4 = "djinn.gather"(%3, %0) {axis = 0 : i64} : (tensor<16x4xf32>, tensor<2x1xi64>) -> tensor<2x1x4xf32>
    %5 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %6 = "djinn.matmul"(%4, %5) : (tensor<2x1x4xf32>, tensor<4x4xf32>) -> tensor<2x1x4xf32>
    %7 = "djinn.reshape"(%6) {shape = ["2", "1", "1", "4"]} : (tensor<2x1x4xf32>) -> tensor<2x1x1x4xf32>
    %8 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %9 = "djinn.matmul"(%4, %8) : (tensor<2x1x4xf32>, tensor<4x4xf32>) -> tensor<2x1x4xf32>
    %10 = "djinn.reshape"(%9) {shape = ["2", "1", "1", "4"]} : (tensor<2x1x4xf32>) -> tensor<2x1x1x4xf32>
    %11 = "djinn.constant"() {value = dense<0.5> : tensor<4x4xf32>} : () -> tensor<4x4xf32>
    %12 = "djinn.matmul"(%4, %11) : (tensor<2x1x4xf32>, tensor<4x4xf32>) -> tensor<2x1x4xf32>
    %13 = "djinn.reshape"(%12) {shape = ["2", "1", "1", "4"]} : (tensor<2x1x4xf32>) -> tensor<2x1x1x4xf32>
    %14 = "djinn.constant"() {value = dense<[3]> : tensor<1xi64>} : () -> tensor<1xi64>
    %15 = "djinn.index_copy"(%1, %14, %10) {axis = 2 : i64} : (tensor<2x1x8x4xf32>, tensor<1xi64>, tensor<2x1x1x4xf32>) -> tensor<2x1x8x4xf32>
    %16 = "djinn.index_copy"(%2, %14, %13) {axis = 2 : i64} : (tensor<2x1x8x4xf32>, tensor<1xi64>, tensor<2x1x1x4xf32>) -> tensor<2x1x8x4xf32>
    %17 = "djinn.transpose"(%15) {perm = array<i64: 0, 1, 3, 2>} : (tensor<2x1x8x4xf32>) -> tensor<2x1x4x8xf32>
    %18 = "djinn.matmul"(%7, %17) : (tensor<2x1x1x4xf32>, tensor<2x1x4x8xf32>) -> tensor<2x1x1x8xf32>
    %19 = "djinn.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
    %20 = "djinn.mul"(%18, %19) : (tensor<2x1x1x8xf32>, tensor<f32>) -> tensor<2x1x1x8xf32>
    %21 = "djinn.softmax"(%20) {axis = 3 : i64} : (tensor<2x1x1x8xf32>) -> tensor<2x1x1x8xf32>
    %22 = "djinn.matmul"(%21, %16) : (tensor<2x1x1x8xf32>, tensor<2x1x8x4xf32>) -> tensor<2x1x1x4xf32>
    %23 = "djinn.reshape"(%22) {shape = ["2", "1", "4"]} : (tensor<2x1x1x4xf32>) -> tensor<2x1x4xf32>
    %24 = "djinn.constant"() {value = dense<0.5> : tensor<4x16xf32>} : () -> tensor<4x16xf32>
    %25 = "djinn.matmul"(%23, %24) : (tensor<2x1x4xf32>, tensor<4x16xf32>) -> tensor<2x1x16xf32>
    "djinn.return"(%25, %15, %16) : (tensor<2x1x16xf32>, tensor<2x1x8x4xf32>, tensor<2x1x8x4xf32>) -> ()
  }) {arguments = [{kind = "input", name = "ids"}, {kind = "input", name = "past.key"}, {kind = "input", name = "past.value"}], results = [{kind = "output", name = "logits"}, {kind = "output", name = "present.key"}, {kind = "output", name = "present.value"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
