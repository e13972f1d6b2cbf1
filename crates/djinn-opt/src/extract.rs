//! `djinn-opt extract`.

use djinn::diag::{Context, Result, input};
use djinn::extract::serialized;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

/// Bytes of a decompressed e-graph, at most.
const MAX_BYTES: usize = 1 << 31;

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
    if json {
        let object = serde_json::json!({
            "cost": result.cost,
            "lower_bound": result.lower_bound,
            "gap": result.gap(),
            "stopped_by": result.stopped_by.to_string(),
            "read_s": read.as_secs_f64(),
            "solve_s": solve.as_secs_f64(),
        });
        println!("{object}");
    } else {
        println!("e-classes     {}", problem.class_ids.len());
        println!("e-nodes       {}", problem.node_ids.len());
        println!("cost          {:.6}", result.cost);
        println!("lower bound   {:.6}", result.lower_bound);
        println!("gap           {:.2} %", result.gap() * 100.0);
        println!("stopped by    {}", result.stopped_by);
        println!(
            "time          {:.3} s reading, {:.3} s extracting",
            read.as_secs_f64(),
            solve.as_secs_f64()
        );
    }
    Ok(true)
}

fn read_text(path: &Path) -> Result<String> {
    let failed = |e: String| input("extract.read", e);
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let bytes = if bytes.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        let mut out = Bounded(Vec::new());
        lzma_rs::xz_decompress(&mut bytes.as_slice().take(u64::MAX), &mut out)
            .map_err(|e| failed(format!("not a valid .xz file: {e:?}")))?;
        out.0
    } else {
        bytes
    };
    String::from_utf8(bytes).map_err(|_| failed("the file is not UTF-8 text".into()))
}

/// A buffer that refuses to grow beyond [`MAX_BYTES`].
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + buf.len() > MAX_BYTES {
            return Err(std::io::Error::other("the decompressed e-graph is larger than 2 GiB"));
        }
        self.0.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
