// A broadcast of a literal to a large shape stays for run time.
// pipeline: builtin.module(fold-weights)
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<512x512xf32>):
    %1 = "djinn.constant"() {value = dense<0.5> : tensor<1x512xf32>} : () -> tensor<1x512xf32>
    %2 = "djinn.broadcast"(%1) {shape = ["512", "512"]} : (tensor<1x512xf32>) -> tensor<512x512xf32>
    %3 = "djinn.add"(%0, %2) : (tensor<512x512xf32>, tensor<512x512xf32>) -> tensor<512x512xf32>
    "djinn.return"(%3) : (tensor<512x512xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x0"}], results = [{kind = "output", name = "y0"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
