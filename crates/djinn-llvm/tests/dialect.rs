//! The definition of the dialect: right modules are accepted and come back as they were; wrong ones are refused for the
//! right reason.

use djinn_ir::text::{self, PrintOptions};
use djinn_ir::verify;
use djinn_mlir::{Compiler, dialect};
use std::path::Path;

fn compiler() -> Compiler {
    Compiler::load().expect("cargo built the plugin for this test")
}

fn for_mlir() -> PrintOptions {
    PrintOptions { for_mlir: true, inline_weights_up_to: 64 }
}

/// A module around the lines of a body over `%f: tensor<2x3xf32>`, `%i: tensor<2x3xi64>`, `%b: tensor<i1>`.
fn module(body: &str) -> String {
    format!(
        "\"builtin.module\"() ({{\n\"djinn.func\"() ({{\n\
         ^bb0(%f: tensor<2x3xf32>, %i: tensor<2x3xi64>, %b: tensor<i1>, %s: tensor<?xf32, [\"s0\"]>):\n\
         %ff = \"djinn.constant\"() {{value = dense<0.0> : tensor<f16>}} : () -> tensor<f16>\n\
         %e = \"djinn.constant\"() {{value = dense<0> : tensor<i64>}} : () -> tensor<i64>\n\
         {body}\n\"gpu.yield\"() : () -> ()\n\
         }}) {{arguments = [], results = [], sym_name = \"main\"}} : () -> ()\n\
         }}) {{djinn.metadata = {{}}, djinn.symbols = {{}}}} : () -> ()\n"
    )
}

/// The refusal of a body, as text; panics if there is none.
fn refusal(compiler: &Compiler, body: &str) -> String {
    let text = module(body);
    match compiler.check(&text, Some(&dialect::irdl(&text))) {
        Ok(_) => panic!("accepted: {body}"),
        Err(refusal) => {
            assert_eq!(refusal.code, "mlir.module", "{body}: {refusal}");
            refusal.to_string()
        }
    }
}

const RIGHT: &[&str] = &[
    "%0 = \"djinn.exp\"(%f) : (tensor<2x3xf32>) -> tensor<2x3xf32>",
    "%0 = \"djinn.add\"(%f, %s) {djinn.phase = \"forward\"} : (tensor<2x3xf32>, tensor<?xf32, [\"s0\"]>) -> tensor<2x3xf32>",
    "%0 = \"djinn.cast\"(%f) {to = i64} : (tensor<2x3xf32>) -> tensor<2x3xi64>",
    "%0 = \"djinn.compare\"(%e, %e) {predicate = \"lt\"} : (tensor<i64>, tensor<i64>) -> tensor<i1>",
    "%0 = \"djinn.softmax\"(%f) {axis = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
    "%0 = \"djinn.concat_3\"(%f, %f, %f) {axis = 0 : i64} : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<6x3xf32>",
    "%0 = \"djinn.rms_norm\"(%f, %s) {axis = 1 : i64, epsilon = 1.0e-5 : f64} : (tensor<2x3xf32>, tensor<?xf32, [\"s0\"]>) -> tensor<2x3xf32>",
    "%0:2 = \"djinn.opaque_2_2\"(%f, %b) {op = \"x\", payload = \"\", types = [tensor<i1>, tensor<f16>]} : (tensor<2x3xf32>, tensor<i1>) -> (tensor<i1>, tensor<f16>)",
    "%0 = \"djinn.if_2_1\"(%b, %f) ({\n^bb0(%x: tensor<2x3xf32>):\n\"gpu.yield\"(%x) : (tensor<2x3xf32>) -> ()\n}, {\n^bb0(%x: tensor<2x3xf32>):\n\"gpu.yield\"(%x) : (tensor<2x3xf32>) -> ()\n}) : (tensor<i1>, tensor<2x3xf32>) -> tensor<2x3xf32>",
];

/// A body, and what its refusal says.
const WRONG: &[(&str, &str)] = &[
    // Element types.
    ("%0 = \"djinn.exp\"(%i) : (tensor<2x3xi64>) -> tensor<2x3xi64>", "'tensor<2x3xi64>' does not satisfy"),
    ("%0 = \"djinn.not\"(%f) : (tensor<2x3xf32>) -> tensor<2x3xf32>", "'tensor<2x3xf32>' does not satisfy"),
    (
        "%0 = \"djinn.add\"(%f, %i) : (tensor<2x3xf32>, tensor<2x3xi64>) -> tensor<2x3xf32>",
        "'tensor<2x3xi64>' does not satisfy",
    ),
    ("%0 = \"djinn.add\"(%b, %b) : (tensor<i1>, tensor<i1>) -> tensor<i1>", "'tensor<i1>' does not satisfy"),
    (
        "%0 = \"djinn.add\"(%f, %f) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi64>",
        "'tensor<2x3xi64>' does not satisfy",
    ),
    ("%0 = \"djinn.cast\"(%f) {to = f32} : (tensor<2x3xf32>) -> tensor<2x3xi64>", "does not satisfy"),
    (
        "%0 = \"djinn.compare\"(%e, %e) {predicate = \"lt\"} : (tensor<i64>, tensor<i64>) -> tensor<i64>",
        "expected 'tensor<i1>' but got 'tensor<i64>'",
    ),
    (
        "%0 = \"djinn.gather\"(%f, %s) {axis = 0 : i64} : (tensor<2x3xf32>, tensor<?xf32, [\"s0\"]>) -> tensor<2x3xf32>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.concat_2\"(%f, %i) {axis = 0 : i64} : (tensor<2x3xf32>, tensor<2x3xi64>) -> tensor<2x3xf32>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.exp\"(%f) : (tensor<2x3xf32>) -> tensor<2x3xi64>",
        "expected 'tensor<2x3xf32>' but got 'tensor<2x3xi64>'",
    ),
    // Ranks.
    (
        "%0 = \"djinn.trilu\"(%s) {k = 0 : i64, upper = true} : (tensor<?xf32, [\"s0\"]>) -> tensor<?xf32, [\"s0\"]>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.transpose\"(%f) {perm = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<?xf32, [\"s0\"]>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.add\"(%f, %f) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<?xf32, [\"s0\"]>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.clamp\"(%f, %f, %f) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.rms_norm\"(%s, %f) {axis = 0 : i64, epsilon = 1.0e-5 : f64} : (tensor<?xf32, [\"s0\"]>, tensor<2x3xf32>) -> tensor<?xf32, [\"s0\"]>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.softmax\"(%f) {axis = 2 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "does not satisfy",
    ),
    (
        "%0 = \"djinn.softmax\"(%f) {axis = -1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "'-1 : i64' does not satisfy",
    ),
    ("%0 = \"djinn.softmax\"(%ff) {axis = 0 : i64} : (tensor<f16>) -> tensor<f16>", "does not satisfy"),
    // Attributes.
    (
        "%0 = \"djinn.softmax\"(%f) : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "attribute \"axis\" is expected but not provided",
    ),
    (
        "%0 = \"djinn.softmax\"(%f) {axes = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "attribute \"axis\" is expected but not provided",
    ),
    ("%0 = \"djinn.softmax\"(%f) {axis = \"1\"} : (tensor<2x3xf32>) -> tensor<2x3xf32>", "\"1\""),
    (
        "%0 = \"djinn.elu\"(%f) {alpha = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "expected base attribute 'builtin.float'",
    ),
    (
        "%0 = \"djinn.gelu\"(%f) {approximate = \"exact\"} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "'\"exact\"' does not satisfy",
    ),
    (
        "%0 = \"djinn.reduce_sum\"(%f) {axes = [0], keepdims = true} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "expected base attribute 'builtin.dense_array'",
    ),
    (
        "%0 = \"djinn.reduce_sum\"(%f) {axes = array<i64: 0>, keepdims = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "'1 : i64' does not satisfy",
    ),
    (
        "%0 = \"djinn.cast\"(%f) {to = \"i64\"} : (tensor<2x3xf32>) -> tensor<2x3xi64>",
        "'\"i64\"' does not satisfy",
    ),
    // Counts and names.
    (
        "%0 = \"djinn.exp\"(%f, %f) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>",
        "op expects exactly 1 operands, but got 2",
    ),
    (
        "%0 = \"djinn.add\"(%f) : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "op expects exactly 2 operands, but got 1",
    ),
    ("\"djinn.exp\"(%f) : (tensor<2x3xf32>) -> ()", "op expects exactly 1 results, but got 0"),
    (
        "%0 = \"djinn.concat_3\"(%f) {axis = 0 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "op expects exactly 3 operands, but got 1",
    ),
    (
        "%0 = \"djinn.concat\"(%f) {axis = 0 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>",
        "unregistered operation 'djinn.concat'",
    ),
    ("%0 = \"djinn.expp\"(%f) : (tensor<2x3xf32>) -> tensor<2x3xf32>", "unregistered operation 'djinn.expp'"),
    ("%0 = \"djinn.exp\"(%f) ({\n}) : (tensor<2x3xf32>) -> tensor<2x3xf32>", "region"),
    ("%0 = \"other.exp\"(%f) : (tensor<2x3xf32>) -> tensor<2x3xf32>", "unregistered"),
];

#[test]
fn right_operations_are_accepted() {
    let compiler = compiler();
    for body in RIGHT {
        let text = module(body);
        if let Err(refusal) = compiler.check(&text, Some(&dialect::irdl(&text))) {
            panic!("{body}: {refusal}");
        }
    }
}

#[test]
fn wrong_operations_are_refused_for_the_right_reason() {
    let compiler = compiler();
    let mut failed = Vec::new();
    for (body, reason) in WRONG {
        let refusal = refusal(&compiler, body);
        if !refusal.contains(reason) {
            failed.push(format!("{body}\n  wanted: {reason}\n  {refusal}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn types_that_the_definition_does_not_list_are_refused() {
    let compiler = compiler();
    let right = module(RIGHT[0]);
    let irdl = dialect::irdl(&right);
    let other = right.replace("2x3xf32", "2x4xf32");
    let refusal = compiler.check(&other, Some(&irdl)).expect_err("another type");
    assert!(refusal.to_string().contains("'tensor<2x4xf32>' does not satisfy"), "{refusal}");
}

#[test]
fn file_tests_are_accepted_and_come_back_as_they_were() {
    let compiler = compiler();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/filetests");
    let mut count = 0;
    for folder in std::fs::read_dir(root).expect("the file tests are there") {
        for file in std::fs::read_dir(folder.expect("readable").path()).into_iter().flatten() {
            let path = file.expect("readable").path();
            if path.extension().is_none_or(|extension| extension != "mlir") {
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("readable");
            let module = text::parse_module(&source).expect("it parses");
            verify::verify(&module).expect("it verifies");
            let printed = text::print_module_with(&module, &for_mlir());
            let checked = compiler.check(&printed, Some(&dialect::irdl(&printed)));
            let checked = checked.unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()));
            let again = text::parse_module(&checked).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(text::print_module(&again), text::print_module(&module), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 40, "only {count} file tests");
}
