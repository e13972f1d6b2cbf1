//! Writes one ONNX model per case of the test collection and opset into a folder: `export_ops <folder>`.
//!
//! A model is called `<case>.<opset>.onnx`. Beside it lie, as serialised `TensorProto`s, inputs (`<case>.in<n>.pb`) and
//! what the reference evaluator gives for them (`<case>.out<n>.pb`), so that a runtime's results can be compared.

#[path = "../tests/cases/mod.rs"]
mod cases;

use cases::{Case, SIZES};
use djinn_ir::{DType, TensorData, TensorType};
use djinn_onnx_export::{ExportOptions, OPSETS, export};
use djinn_onnx_proto::{Bytes, TensorProto, data_type, prost::Message};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("which folder?")?);
    std::fs::create_dir_all(&folder)?;
    let mut written = 0;
    for case in cases::all().0 {
        for (opset, _) in OPSETS {
            let options = ExportOptions { opset, ..Default::default() };
            match export(&case.module, &options) {
                Ok(exported) => {
                    std::fs::write(folder.join(format!("{}.{opset}.onnx", case.name)), exported.model)?;
                    written += 1;
                }
                Err(e) => println!("{} at opset {opset}: {e}", case.name),
            }
        }
        if let Err(e) = evaluate(&case, &folder) {
            println!("{} is not evaluated: {}", case.name, e.to_string().replace('\n', " "));
        }
    }
    println!("{written} models");
    Ok(())
}

/// Writes inputs and expected outputs.
fn evaluate(case: &Case, folder: &Path) -> Outcome<()> {
    let function = &case.module.functions[0];
    let mut inputs = BTreeMap::new();
    for (i, (v, (name, _))) in function.graph.arguments.iter().zip(&function.arguments).enumerate() {
        let data = special(&case.name, i).or_else(|| sample(function.graph.ty(*v), i)).ok_or("an input")?;
        save(&data, &folder.join(format!("{}.in{i}.pb", case.name)))?;
        inputs.insert(name.to_string(), data);
    }
    let outputs = djinn_interp::run(&case.module, "main", &inputs)?;
    for (i, (name, _)) in function.results.iter().enumerate() {
        let data = outputs.output(name).ok_or("an output")?;
        save(data, &folder.join(format!("{}.out{i}.pb", case.name)))?;
    }
    Ok(())
}

/// Inputs whose values decide shapes.
fn special(case: &str, i: usize) -> Option<TensorData> {
    let values: &[i64] = match (case.split('.').next()?, i) {
        ("dynamic_reshape", 1) => &[-1, 8],
        ("dynamic_broadcast", 1) => &[3, 4],
        ("index_copy_slots" | "index_copy_rows", 1) => &[5, 1],
        _ => return None,
    };
    TensorData::from_i64(&[values.len()], values)
}

/// Deterministic values: floats in ±1, integers 1 and 2, mostly true booleans.
fn sample(ty: &TensorType, seed: usize) -> Option<TensorData> {
    let value = |name: &str| SIZES.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let sizes = ty.shape.iter().map(|d| d.eval(&|s| value(s.name())).and_then(|v| usize::try_from(v).ok()));
    let shape: Vec<usize> = sizes.collect::<Option<_>>()?;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed as u64 + 1);
    let mut bytes = Vec::new();
    for i in 0..djinn_ir::data::numel(&shape)? {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 40) as f64 / (1u64 << 24) as f64;
        let value = match ty.dtype {
            DType::Bool => f64::from(i == 0 || shape.last().is_some_and(|n| i % n == 0) || unit > 0.3),
            d if d.is_int() => f64::from(1 + i32::from(unit > 0.5)),
            _ => 2.0 * unit - 1.0,
        };
        bytes.extend(djinn_ir::data::encode_f64(ty.dtype, value));
    }
    TensorData::new(ty.dtype, shape, bytes)
}

fn save(data: &TensorData, path: &Path) -> Outcome<()> {
    let number = match data.dtype() {
        DType::Bool => data_type::BOOL,
        DType::I8 => data_type::INT8,
        DType::I16 => data_type::INT16,
        DType::I32 => data_type::INT32,
        DType::I64 => data_type::INT64,
        DType::U8 => data_type::UINT8,
        DType::U16 => data_type::UINT16,
        DType::U32 => data_type::UINT32,
        DType::U64 => data_type::UINT64,
        DType::F16 => data_type::FLOAT16,
        DType::BF16 => data_type::BFLOAT16,
        DType::F32 => data_type::FLOAT,
        DType::F64 => data_type::DOUBLE,
    };
    let proto = TensorProto {
        dims: data.shape().iter().map(|d| *d as i64).collect(),
        data_type: Some(number),
        raw_data: Some(Bytes::copy_from_slice(data.bytes())),
        ..Default::default()
    };
    Ok(std::fs::write(path, proto.encode_to_vec())?)
}
