//! Literals: `TensorProto` to [`TensorData`].

use crate::Resolver;
use crate::model::MAX_RANK;
use djinn_diag::{Context, Result, input, unsupported};
use djinn_ir::data::{Bytes as Window, numel};
use djinn_ir::{DType, TensorData, TensorType, Weight};
use djinn_onnx_proto::{DATA_LOCATION_EXTERNAL, TensorProto, data_type as code};
use std::sync::Arc;

/// Integer and boolean literals of at most this many elements become `constant`, so that shape arithmetic sees them.
const MAX_CONSTANT: usize = 256;

/// A named literal of the file.
#[derive(Debug, Clone)]
pub(crate) enum Literal {
    /// Becomes a `constant`.
    Constant(TensorData),
    /// Becomes a `weight`.
    Weight(Weight),
}

impl Literal {
    /// Sorts an initializer: shapes and scalars are constants, the rest are weights.
    pub(crate) fn of_initializer(ty: TensorType, data: Option<TensorData>) -> Literal {
        match data {
            Some(d) if d.numel() == 1 || (!d.dtype().is_float() && d.numel() <= MAX_CONSTANT) => {
                Literal::Constant(d)
            }
            Some(d) => Literal::Weight(Weight::with_data(d)),
            None => Literal::Weight(Weight { ty, data: None }),
        }
    }

    /// Sorts the value of a `Constant` node: anything small is a constant.
    pub(crate) fn of_constant(data: TensorData) -> Literal {
        if data.numel() <= MAX_CONSTANT {
            Literal::Constant(data)
        } else {
            Literal::Weight(Weight::with_data(data))
        }
    }
}

/// The element type of a code of the ONNX specification.
pub(crate) fn dtype(value: i32) -> Result<DType> {
    Ok(match value {
        code::FLOAT => DType::F32,
        code::UINT8 => DType::U8,
        code::INT8 => DType::I8,
        code::UINT16 => DType::U16,
        code::INT16 => DType::I16,
        code::INT32 => DType::I32,
        code::INT64 => DType::I64,
        code::BOOL => DType::Bool,
        code::FLOAT16 => DType::F16,
        code::DOUBLE => DType::F64,
        code::UINT32 => DType::U32,
        code::UINT64 => DType::U64,
        code::BFLOAT16 => DType::BF16,
        0 => return Err(input("onnx.dtype", "the element type is missing").help("export the model again")),
        code::STRING => {
            return Err(unsupported("onnx.dtype", "string tensors are not supported")
                .help("move text processing out of the model"));
        }
        14 | 15 | 17..=28 => {
            return Err(unsupported(
                "onnx.dtype",
                format!("element type {value} (complex, float8 or 4-bit) is not supported"),
            )
            .help("export the model with f32, f16 or bf16 tensors"));
        }
        _ => {
            return Err(input("onnx.dtype", format!("{value} is no ONNX element type"))
                .help("the file is damaged or newer than Djinn"));
        }
    })
}

/// Element type and sizes that a tensor declares.
pub(crate) fn declared(t: &TensorProto) -> Result<(DType, Vec<usize>)> {
    let dtype = dtype(t.data_type.unwrap_or(0))?;
    if t.dims.len() > MAX_RANK {
        return Err(unsupported("onnx.rank", format!("a tensor has more than {MAX_RANK} axes"))
            .help("export the model with tensors of smaller rank"));
    }
    let mut shape = Vec::with_capacity(t.dims.len());
    for d in &t.dims {
        shape.push(usize::try_from(*d).map_err(|_| {
            input("onnx.tensor-shape", format!("the tensor has the negative size {d}"))
                .help("the file is damaged; export the model again")
        })?);
    }
    let bytes = numel(&shape).and_then(|n| n.checked_mul(dtype.size())).filter(|b| i64::try_from(*b).is_ok());
    if bytes.is_none() {
        return Err(input("onnx.tensor-shape", "the size of the tensor overflows")
            .help("the file is damaged; export the model again"));
    }
    Ok((dtype, shape))
}

/// Reads a tensor: its type and its value; no value if the file declares the tensor without payload.
pub(crate) fn read(t: &TensorProto, external: &Resolver<'_>) -> Result<(TensorType, Option<TensorData>)> {
    let place = || format!("tensor '{}'", t.name);
    let (dtype, shape) = declared(t).at(place)?;
    let ty = TensorType::new(dtype, shape.iter().map(|d| (*d).into()));
    let data = payload(t, dtype, &shape, external).at(place)?;
    Ok((ty, data))
}

fn payload(
    t: &TensorProto,
    dtype: DType,
    shape: &[usize],
    external: &Resolver<'_>,
) -> Result<Option<TensorData>> {
    let count = numel(shape).unwrap_or(0);
    let want = count.saturating_mul(dtype.size());
    let typed_data = [
        t.float_data.len(),
        t.int32_data.len(),
        t.int64_data.len(),
        t.double_data.len(),
        t.uint64_data.len(),
    ];
    if t.raw_data.as_ref().is_some_and(|r| !r.is_empty()) && typed_data.iter().any(|n| *n > 0) {
        return Err(input("onnx.tensor-data", "the tensor has both raw data and typed data")
            .help("a tensor holds its values once; export the model again"));
    }
    let bytes: Window = if t.data_location == Some(DATA_LOCATION_EXTERNAL) {
        match external_window(t, want, external)? {
            Some(window) => window,
            None => return Ok(None),
        }
    } else if let Some(raw) = t.raw_data.as_ref().filter(|r| !r.is_empty() || want == 0) {
        check_size(raw.len(), want)?;
        match Window::window(Arc::new(raw.clone()), 0, raw.len()) {
            Some(window) => window,
            None => return Ok(None),
        }
    } else {
        match typed(t, dtype, count)? {
            Some(bytes) => Window::from(bytes),
            None => return Ok(None),
        }
    };
    let data = TensorData::new(dtype, shape.to_vec(), bytes);
    Ok(data.map(normalized))
}

/// Makes every byte of a boolean tensor 0 or 1.
fn normalized(data: TensorData) -> TensorData {
    if data.dtype() != DType::Bool || data.bytes().iter().all(|b| *b <= 1) {
        return data;
    }
    let bytes: Vec<u8> = data.bytes().iter().map(|b| u8::from(*b != 0)).collect();
    TensorData::new(DType::Bool, data.shape().to_vec(), bytes).unwrap_or(data)
}

fn check_size(have: usize, want: usize) -> Result<()> {
    if have == want {
        return Ok(());
    }
    Err(input("onnx.tensor-data", format!("the tensor needs {want} bytes of data, but has {have}"))
        .help("the file is damaged or truncated; export or download it again"))
}

/// The window of an external file that holds the tensor.
fn external_window(t: &TensorProto, want: usize, external: &Resolver<'_>) -> Result<Option<Window>> {
    let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| {
        entry(key)
            .map(|v| {
                v.trim().parse::<usize>().map_err(|_| {
                    input("onnx.external-data", format!("'{v}' is no valid {key} of external data"))
                        .help("the file is damaged; export the model again")
                })
            })
            .transpose()
    };
    let location = entry("location").ok_or_else(|| {
        input("onnx.external-data", "the tensor's data is external, but no location is given")
            .help("the file is damaged; export the model again")
    })?;
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    check_size(length.unwrap_or(want), want)?;
    let Some(source) = external(location)? else { return Ok(None) };
    let total = (*source).as_ref().len();
    Window::window(source, offset, want).map(Some).ok_or_else(|| {
        input(
            "onnx.external-data",
            format!("the tensor's data at {offset}+{want} lies beyond the {total} bytes of '{location}'"),
        )
        .help("the external data file is truncated or belongs to another model")
    })
}

/// The payload of the typed fields as little-endian bytes.
fn typed(t: &TensorProto, dtype: DType, count: usize) -> Result<Option<Vec<u8>>> {
    let narrow =
        |width: usize| t.int32_data.iter().flat_map(move |v| v.to_le_bytes().into_iter().take(width));
    let (have, bytes): (usize, Vec<u8>) = match dtype {
        DType::F32 => (t.float_data.len(), t.float_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F64 => (t.double_data.len(), t.double_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::I64 => (t.int64_data.len(), t.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::U64 => (t.uint64_data.len(), t.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::U32 => (
            t.uint64_data.len(),
            t.uint64_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(4)).collect(),
        ),
        DType::Bool => (t.int32_data.len(), t.int32_data.iter().map(|v| u8::from(*v != 0)).collect()),
        DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32 | DType::F16 | DType::BF16 => {
            (t.int32_data.len(), narrow(dtype.size()).collect())
        }
    };
    if have == 0 && count > 0 {
        return Ok(None);
    }
    check_size(have * dtype.size(), count.saturating_mul(dtype.size()))?;
    Ok(Some(bytes))
}
