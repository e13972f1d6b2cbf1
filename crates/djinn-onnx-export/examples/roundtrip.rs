//! Reads an ONNX file and writes it again: `roundtrip <opset> <in.onnx> <out.onnx> [<in> <out> …]`.
//!
//! Prints one line per file: nodes before, nodes after, milliseconds of the export.

use djinn_onnx_export::{ExportOptions, export, model_node_count};
use djinn_onnx_proto::{ModelProto, prost::Message};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let opset: i64 = args.first().ok_or("which opset?")?.parse()?;
    for pair in args[1..].chunks_exact(2) {
        match once(opset, &pair[0], &pair[1]) {
            Ok(line) => println!("{line}"),
            Err(e) => println!("{} failed: {}", pair[0], e.to_string().replace('\n', " ")),
        }
    }
    Ok(())
}

fn once(opset: i64, from: &str, to: &str) -> Result<String, Box<dyn std::error::Error>> {
    let imported = djinn_onnx::import_file(Path::new(from))?;
    // A zipped file is counted by the importer, which does not see inside functions.
    let before = ModelProto::decode(std::fs::read(from)?.as_slice());
    let before = before.map_or(imported.report.nodes, |m| model_node_count(&m));
    let module = djinn_srg::lower(&imported.srg)?;
    let start = Instant::now();
    let exported = export(&module, &ExportOptions { opset, ..Default::default() })?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    std::fs::write(to, &exported.model)?;
    if let Some(external) = &exported.external {
        let beside = Path::new(to).with_file_name(&external.file_name);
        external.write(&mut std::io::BufWriter::new(std::fs::File::create(beside)?))?;
    }
    Ok(format!("{from} {before} {} {milliseconds:.1}", exported.node_count))
}
