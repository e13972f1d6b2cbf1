//! `djinn-harness coverage`: the op table against what the cases exercise.

use crate::table::Table;
use djinn::ir::ops::OP_TABLE;
use djinn::onnx_export::OPSETS;
use serde_json::Value;
use std::path::PathBuf;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Records of `cases --json`, best made with --all-opsets
    #[arg(long, value_name = "FILE")]
    cases: Vec<PathBuf>,
    /// Write the table here
    #[arg(long)]
    out: PathBuf,
}

/// Writes the table.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let mut records = Vec::new();
    for path in &args.cases {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).map_err(|e| format!("{}: {e}", path.display()))?;
            records.push(record);
        }
    }
    let (table, uncovered) = table(&records);
    let text = format!(
        "# Operations and what exercises them\n\n\
         Every operation has its arm in the evaluator (one exhaustive match). The other columns count cases, out of \
         {}: those whose imported graph has the operation, by format; those among them that evaluate to the recorded \
         results; those whose graph, as imported or optimised, has the operation and was written in an opset. \
         The ONNX column is the operator that the op table names; a composite spelling has none.\n\n{}\n{}\n",
        records.len(),
        table.render(),
        uncovered_line(&uncovered)
    );
    djinn::write_atomically(&args.out, &mut |out| out.write_all(text.as_bytes()))
        .map_err(|e| e.to_string())?;
    println!("coverage: {} operations; {}", OP_TABLE.len(), uncovered_line(&uncovered));
    Ok(true)
}

fn uncovered_line(names: &[&str]) -> String {
    if names.is_empty() {
        "every operation occurs in a case".into()
    } else {
        format!("{} occur in no case: {}", names.len(), names.join(", "))
    }
}

/// The table, and the operations that occur in no case.
fn table(records: &[Value]) -> (Table, Vec<&'static str>) {
    let mut t = Table::new(&[
        "operation",
        "ONNX",
        "evaluator",
        ">from pt2",
        ">from onnx",
        ">evaluated",
        ">opset 20",
        ">opset 23",
        ">opset 24",
    ]);
    let mut uncovered = Vec::new();
    for def in OP_TABLE {
        let imports = |r: &&Value| r["kinds"][def.name].as_u64().is_some();
        let from = |formats: &[&str]| {
            let of_format = |r: &&Value| r["format"].as_str().is_some_and(|f| formats.contains(&f));
            records.iter().filter(imports).filter(of_format).count()
        };
        let good = |r: &&Value| r["stages"]["evaluate"]["status"] == "ok";
        let evaluated = records.iter().filter(imports).filter(good).count();
        let seen = |r: &&Value| imports(r) || r["kinds_optimised"][def.name].as_u64().is_some();
        if !records.iter().any(|r| seen(&r)) {
            uncovered.push(def.name);
        }
        let mut cells = vec![def.name.to_owned(), def.onnx.to_owned(), "yes".into()];
        cells.extend([from(&["pt2", "core"]), from(&["onnx"]), evaluated].map(|n| n.to_string()));
        cells.extend(OPSETS.map(|(opset, _)| written(records, def.name, opset).to_string()));
        t.row(cells);
    }
    (t, uncovered)
}

/// Cases with the operation that were written in this opset.
fn written(records: &[Value], name: &str, opset: i64) -> usize {
    let opset = opset.to_string();
    let in_one =
        |r: &Value, kinds: &str, opsets: &str| r[kinds][name].as_u64().is_some() && r[opsets][&opset] == "ok";
    let either = |r: &&Value| {
        in_one(r, "kinds", "opsets_original") || in_one(r, "kinds_optimised", "opsets_optimised")
    };
    records.iter().filter(either).count()
}
