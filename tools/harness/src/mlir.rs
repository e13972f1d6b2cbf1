//! `djinn-harness mlir`: every module, before and after optimisation, is accepted by MLIR under the definition of the
//! dialect and comes back as it was; the same module with one thing wrong in it is refused.

use crate::case;
use crate::pipeline;
use crate::table::Table;
use djinn::OptimizeOptions;
use djinn::ir::{Module, text};
use djinn_mlir::{Compiler, dialect};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Case folders, or folders of case folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Where texts and definitions go
    #[arg(long)]
    out: PathBuf,
    /// The `mlir-opt` that is to accept every text too; empty for none
    #[arg(long, default_value = "mlir-opt-22")]
    mlir_opt: String,
    /// Formats to run: pt2, onnx
    #[arg(long, value_delimiter = ',', default_value = "pt2,onnx")]
    formats: Vec<String>,
}

/// What is known of one module.
#[derive(Default)]
struct Outcome {
    operations: usize,
    text_bytes: usize,
    irdl_bytes: usize,
    define_ms: f64,
    check_ms: f64,
    refused: usize,
    mutants: usize,
    problems: Vec<String>,
}

/// Checks the cases, prints the table; gives false if something is wrong.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let compiler = Compiler::load().map_err(|e| e.to_string())?;
    let cases = case::find(&args.dirs, &args.formats)?;
    pipeline::make_folder(&args.out)?;
    let mlir_opt = (!args.mlir_opt.is_empty()).then_some(args.mlir_opt.as_str());
    let mut table = Table::new(&[
        "module",
        ">operations",
        ">text, kB",
        ">definition, kB",
        ">define, ms",
        ">check, ms",
        ">mutants refused",
        "problem",
    ]);
    let (mut modules, mut wrong, mut mutants, mut refused) = (0, 0, 0, 0);
    for case in cases {
        let model = djinn::read(&case.model).map_err(|e| format!("{}: {e}", case.model.display()))?;
        let mut optimised = model.module.clone();
        djinn::optimize(&mut optimised, &OptimizeOptions::default(), None).map_err(|e| e.to_string())?;
        for (stage, module) in [("read", &model.module), ("optimised", &optimised)] {
            let name = format!("{}.{}.{stage}", case.name, case.format);
            let outcome = check(&compiler, module, &args.out.join(&name), mlir_opt);
            (modules, mutants, refused) = (modules + 1, mutants + outcome.mutants, refused + outcome.refused);
            wrong += usize::from(!outcome.problems.is_empty());
            table.row(row(&name, &outcome));
        }
    }
    println!("{}", table.render());
    let how = mlir_opt.unwrap_or("the plugin alone");
    println!(
        "mlir: {} of {modules} modules accepted ({how}), {refused} of {mutants} mutants refused",
        modules - wrong
    );
    Ok(wrong == 0 && modules > 0)
}

fn row(name: &str, outcome: &Outcome) -> Vec<String> {
    let kilobytes = |bytes: usize| format!("{:.1}", bytes as f64 / 1e3);
    vec![
        name.to_owned(),
        outcome.operations.to_string(),
        kilobytes(outcome.text_bytes),
        kilobytes(outcome.irdl_bytes),
        format!("{:.1}", outcome.define_ms),
        format!("{:.1}", outcome.check_ms),
        format!("{} of {}", outcome.refused, outcome.mutants),
        outcome.problems.first().cloned().unwrap_or_default(),
    ]
}

fn check(compiler: &Compiler, module: &Module, stem: &Path, mlir_opt: Option<&str>) -> Outcome {
    let options = text::PrintOptions { for_mlir: true, ..Default::default() };
    let printed = text::print_module_with(module, &options);
    let start = Instant::now();
    let irdl = dialect::irdl(&printed);
    let mut outcome = Outcome {
        operations: printed.matches("\"djinn.").count(),
        text_bytes: printed.len(),
        irdl_bytes: irdl.len(),
        define_ms: start.elapsed().as_secs_f64() * 1e3,
        ..Default::default()
    };
    let start = Instant::now();
    match compiler.check(&printed, Some(&irdl)) {
        Err(refusal) => outcome.problems.push(refusal.to_string()),
        Ok(checked) => {
            outcome.check_ms = start.elapsed().as_secs_f64() * 1e3;
            outcome.problems.extend(difference(module, &checked));
        }
    }
    if let Some(program) = mlir_opt {
        outcome.problems.extend(run_mlir_opt(program, &printed, &irdl, stem).err());
    }
    for (what, mutant, reason) in mutants(&printed) {
        outcome.mutants += 1;
        match compiler.check(&mutant, Some(&dialect::irdl(&mutant))) {
            Ok(_) => outcome.problems.push(format!("accepted although {what}")),
            Err(refusal) if refusal.to_string().contains(reason) => outcome.refused += 1,
            Err(refusal) => outcome.problems.push(format!("{what}: refused for another reason: {refusal}")),
        }
    }
    outcome
}

/// Says so if the text that MLIR printed is not the module.
fn difference(module: &Module, checked: &str) -> Option<String> {
    match text::parse_module(checked) {
        Err(error) => Some(error.to_string()),
        Ok(again) if text::print_module(&again) != text::print_module(module) => {
            Some("the module that comes back is another".to_owned())
        }
        Ok(_) => None,
    }
}

fn run_mlir_opt(program: &str, printed: &str, irdl: &str, stem: &Path) -> Result<(), String> {
    let (text_path, irdl_path) = (stem.with_extension("mlir"), stem.with_extension("irdl.mlir"));
    for (path, content) in [(&text_path, printed), (&irdl_path, irdl)] {
        std::fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let mut command = Command::new(program);
    command.arg(format!("--irdl-file={}", irdl_path.display())).arg(&text_path).args(["-o", "/dev/null"]);
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(message.lines().take(3).collect::<Vec<_>>().join(" ")) }
}

/// Texts with one thing wrong: what, the text, and what the refusal must say.
fn mutants(printed: &str) -> Vec<(&'static str, String, &'static str)> {
    let mut all = Vec::new();
    let mut insert = |what, lines: &str, reason| {
        if let Some(at) = printed.find("    %").or_else(|| printed.find("    \"gpu.yield\"")) {
            all.push((what, format!("{}{lines}\n{}", &printed[..at], &printed[at..]), reason));
        }
    };
    let unsatisfied = "does not satisfy the constraint";
    insert(
        "an exponential is of integers",
        "%w = \"djinn.iota\"() {axis = 0 : i64, dtype = i64, shape = [\"7\"]} : () -> tensor<7xi64>\n\
         %x = \"djinn.exp\"(%w) : (tensor<7xi64>) -> tensor<7xi64>",
        unsatisfied,
    );
    insert(
        "a triangle is of rank 1",
        "%w = \"djinn.iota\"() {axis = 0 : i64, dtype = f32, shape = [\"7\"]} : () -> tensor<7xf32>\n\
         %x = \"djinn.trilu\"(%w) {k = 0 : i64, upper = true} : (tensor<7xf32>) -> tensor<7xf32>",
        unsatisfied,
    );
    let removed = |name: &str| {
        let start =
            printed.match_indices(name).map(|(at, _)| at).find(|at| printed[..*at].ends_with(['{', ' ']))?;
        let end = start + printed[start..].find(['}', ','])?;
        let end = if printed[end..].starts_with(", ") { end + 2 } else { end };
        Some(format!("{}{}", &printed[..start], &printed[end..]))
    };
    all.extend(removed("axis = ").map(|text| ("an axis is missing", text, "attribute \"axis\" is expected")));
    let swapped = [
        ("\"djinn.matmul\"", "\"djinn.shl\"", "a shift is of floats", "\"djinn.shl\""),
        ("\"djinn.add\"(", "\"djinn.exp\"(", "an exponential has two operands", "expects exactly 1 operands"),
        ("axis = ", "axis = 9", "an axis is out of range", unsatisfied),
        (
            "epsilon = ",
            "epsilon = 1 : i64, was = ",
            "an epsilon is an integer",
            "expected base attribute 'builtin.float'",
        ),
        ("keepdims = ", "keepdims = \"no\", was = ", "a truth value is a word", unsatisfied),
    ];
    for (old, new, what, reason) in swapped {
        if let Some(at) = printed.find(old) {
            all.push((what, format!("{}{new}{}", &printed[..at], &printed[at + old.len()..]), reason));
        }
    }
    all
}
