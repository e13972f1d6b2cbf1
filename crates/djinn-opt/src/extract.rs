//! `djinn-opt extract`.

use djinn::diag::{Context, Result, input};
use djinn::extract::serialized;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

/// Bytes of a decompressed e-graph, at most.
const MAX_BYTES: u64 = 1 << 30;

/// Reads an e-graph, extracts, prints cost, bound, gap and time, and writes the selection.
pub(crate) fn extract(graph: &Path, output: Option<&Path>, json: bool) -> Result<bool> {
    let start = Instant::now();
    let text = read_text(graph).at(|| graph.display().to_string())?;
    let problem = serialized::read(&text)
        .map_err(|e| {
            input("extract.format", e.to_string()).help("the file must be in the egraph-serialize format")
        })
        .at(|| graph.display().to_string())?;
    let read = start.elapsed();
    let start = Instant::now();
    let result = djinn::extract::extract(&problem.problem, &djinn::extract::Limits::default(), None)
        .map_err(|e| input("extract.infeasible", e.to_string()))
        .at(|| graph.display().to_string())?;
    let solve = start.elapsed();
    if let Some(path) = output {
        let selection = problem.write(&result);
        djinn::write_atomically(path, &mut |out| out.write_all(selection.as_bytes()))?;
    }
    let text = if json {
        let object = serde_json::json!({
            "cost": result.cost,
            "lower_bound": result.lower_bound,
            "gap": result.gap(),
            "stopped_by": result.stopped_by.to_string(),
            "read_s": read.as_secs_f64(),
            "solve_s": solve.as_secs_f64(),
        });
        format!("{object}\n")
    } else {
        format!(
            "e-classes     {}\ne-nodes       {}\ncost          {:.6}\nlower bound   {:.6}\ngap           {:.2} %\n\
             stopped by    {}\ntime          {:.3} s reading, {:.3} s extracting\n",
            problem.class_ids.len(),
            problem.node_ids.len(),
            result.cost,
            result.lower_bound,
            result.gap() * 100.0,
            result.stopped_by,
            read.as_secs_f64(),
            solve.as_secs_f64()
        )
    };
    crate::run::print_text(&text)?;
    Ok(true)
}

fn read_text(path: &Path) -> Result<String> {
    let failed = |e: String| input("extract.read", e);
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let bytes = if bytes.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        let mut out = Vec::new();
        xz4rust::XzReader::new(std::io::Cursor::new(bytes))
            .take(MAX_BYTES + 1)
            .read_to_end(&mut out)
            .map_err(|e| failed(format!("not a valid .xz file: {e}")))?;
        if out.len() as u64 > MAX_BYTES {
            return Err(failed(format!("the decompressed e-graph is larger than {MAX_BYTES} bytes")));
        }
        out
    } else {
        bytes
    };
    String::from_utf8(bytes).map_err(|_| failed("the file is not UTF-8 text".into()))
}
