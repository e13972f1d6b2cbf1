//! Reads `.npz` files and compares a model's evaluation with its recorded outputs.

use djinn_interp::{Tolerance, compare, run};
use djinn_ir::{ArgumentKind, DType, TensorData};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Element type of a numpy type description.
fn dtype(descr: &str) -> Option<DType> {
    Some(match descr {
        "|b1" => DType::Bool,
        "|i1" => DType::I8,
        "|u1" => DType::U8,
        "<i2" => DType::I16,
        "<i4" => DType::I32,
        "<i8" => DType::I64,
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        _ => return None,
    })
}

/// Column-major bytes in row-major order.
fn row_major(shape: &[usize], size: usize, bytes: &[u8]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(bytes.len());
    for i in 0..count {
        let (mut rest, mut index) = (i, vec![0; shape.len()]);
        for axis in (0..shape.len()).rev() {
            (index[axis], rest) = (rest % shape[axis], rest / shape[axis]);
        }
        let at = index.iter().zip(shape).rev().fold(0, |at, (i, n)| at * n + i);
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
    }
    out
}

/// One array in `.npy` form.
fn npy(bytes: &[u8]) -> Option<TensorData> {
    let header_len = usize::from(u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]));
    let header = std::str::from_utf8(bytes.get(10..10 + header_len)?).ok()?;
    let descr = header.split("'descr': '").nth(1)?.split('\'').next()?;
    let shape = header.split("'shape': (").nth(1)?.split(')').next()?;
    let shape: Option<Vec<usize>> =
        shape.split(',').map(str::trim).filter(|d| !d.is_empty()).map(|d| d.parse().ok()).collect();
    let (dtype, shape, data) = (dtype(descr)?, shape?, bytes.get(10 + header_len..)?);
    if header.contains("'fortran_order': False") {
        return TensorData::new(dtype, shape, data.to_vec());
    }
    (data.len() == shape.iter().product::<usize>() * dtype.size()).then_some(())?;
    let data = row_major(&shape, dtype.size(), data);
    TensorData::new(dtype, shape, data)
}

/// All arrays of an `.npz` file, in file order.
fn npz(path: &Path) -> Result<Vec<(String, TensorData)>, String> {
    let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(|e| fail(&e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| fail(&e))?;
    let mut arrays = Vec::new();
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).map_err(|e| fail(&e))?;
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|e| fail(&e))?;
        let name = member.name().map_err(|e| fail(&e))?.trim_end_matches(".npy").to_string();
        let array = npy(&bytes).ok_or_else(|| fail(&format!("{name} is not a readable array")))?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// Imports a model, checks that nothing is opaque or ill-typed, runs it on its recorded inputs and compares outputs
/// and updated state with the recorded ones. Gives the number of tensors compared.
pub(crate) fn check_model(folder: &Path, file: &str) -> Result<usize, String> {
    let imported = djinn_pt2::import_file(&folder.join(file)).map_err(|e| e.to_string())?;
    if !imported.report.opaque.is_empty() || !imported.report.type_disagreements.is_empty() {
        return Err(format!("{:?}", imported.report));
    }
    let module = djinn_srg::lower(&imported.srg).map_err(|e| e.to_string())?;
    let function = &module.functions[0];
    let given = npz(&folder.join("inputs.npz"))?;
    let expected = npz(&folder.join("expected.npz"))?;
    let is_input = |k: &ArgumentKind| matches!(k, ArgumentKind::Input);
    let names: Vec<String> =
        function.arguments.iter().filter(|(_, k)| is_input(k)).map(|(n, _)| n.to_string()).collect();
    if names.len() != given.len() {
        return Err(format!("{} inputs, but {} arrays", names.len(), given.len()));
    }
    let place: BTreeMap<&str, &str> =
        given.iter().map(|(n, _)| n.as_str()).zip(names.iter().map(String::as_str)).collect();
    let inputs: BTreeMap<String, TensorData> =
        names.iter().cloned().zip(given.iter().map(|(_, t)| t.clone())).collect();
    let outputs = run(&module, &function.name, &inputs).map_err(|e| e.to_string())?;
    let mut plain = outputs.outputs.iter();
    for (name, want) in &expected {
        let got = match name.split_once('.') {
            Some(("mutated_buffer", buffer)) => outputs.update(buffer),
            Some(("mutated_input", input)) => place.get(input).and_then(|n| outputs.update(n)),
            _ => plain.next().map(|(_, t)| t),
        };
        let got = got.ok_or_else(|| format!("no output for {name}"))?;
        let scale = (0..want.numel()).filter_map(|i| want.get_f64(i)).fold(0.0, |m: f64, v| m.max(v.abs()));
        let tolerance = Tolerance::Approx { rtol: 1e-3, atol: 1e-4 * scale.max(1e-2) };
        compare(want, got, tolerance).map_err(|e| format!("{name}: {e}"))?;
    }
    let updates = expected.iter().filter(|(n, _)| n.starts_with("mutated_")).count();
    if plain.next().is_some() || updates != outputs.updates.len() {
        return Err(format!("more results than expected: {} updates", outputs.updates.len()));
    }
    Ok(expected.len())
}
