//! Reading and writing NumPy's `.npz` archives of tensors.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html> (versions 1 to 3).

use djinn_diag::{Context, Diagnostic, Result, clipped, input, unsupported};
use djinn_ir::{ArgumentKind, DType, Dim, Function, TensorData, ValueId};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes of one array, at most: a header that promises more is refused before anything is allocated.
const MAX_ARRAY_BYTES: u64 = 1 << 33;

/// Reads all arrays of an archive by name (without `.npy`).
///
/// # Errors
/// Unreadable or malformed files, element types that Djinn does not have, Fortran order.
pub fn read(path: &Path) -> Result<BTreeMap<String, TensorData>> {
    Ok(read_in_order(path)?.into_iter().collect())
}

/// [`read`], in the order of the file.
///
/// # Errors
/// Those of [`read`].
pub fn read_in_order(path: &Path) -> Result<Vec<(String, TensorData)>> {
    let place = || path.display().to_string();
    let file = std::fs::File::open(path).map_err(|e| input("npz.open", e.to_string())).at(place)?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| input("npz.zip", e.to_string())).at(place)?;
    let mut out = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| input("npz.zip", e.to_string())).at(place)?;
        let file_name = entry.name().map_err(|e| input("npz.zip", e.to_string())).at(place)?.into_owned();
        let name = file_name.strip_suffix(".npy").unwrap_or(&file_name).to_owned();
        let mut bytes = Vec::new();
        entry
            .by_ref()
            .take(MAX_ARRAY_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|e| input("npz.read", e.to_string()))
            .at(|| format!("array '{name}'"))
            .at(place)?;
        let tensor = parse_npy(&bytes)
            .map_err(|e| if e.help.is_none() { e.help("write the file with numpy.savez") } else { e })
            .at(|| format!("array '{name}'"))
            .at(place)?;
        out.push((name, tensor));
    }
    Ok(out)
}

/// What arrays of a file are given to which arguments.
#[derive(Debug, Default)]
pub struct Bound {
    /// Arrays by name of argument.
    pub inputs: BTreeMap<String, TensorData>,
    /// Arrays that have the name of no argument, and the arguments that they are given to.
    pub by_position: Vec<(String, String)>,
}

/// Gives arrays to arguments: those of one name first. If as many arrays are left as arguments, and each fits the type of
/// the argument at its position, they are given in the order of the file; otherwise what is left is left out.
pub fn bind(arrays: Vec<(String, TensorData)>, function: &Function) -> Bound {
    let mut out = Bound::default();
    let mut others = Vec::new();
    for (name, array) in arrays {
        match function.arguments.iter().any(|(n, _)| **n == *name) {
            true => drop(out.inputs.insert(name, array)),
            false => others.push((name, array)),
        }
    }
    let waits = |name: &str, kind: &ArgumentKind| {
        !out.inputs.contains_key(name) && !matches!(kind, ArgumentKind::State { initial: Some(_) })
    };
    let arguments = function.arguments.iter().zip(&function.graph.arguments);
    let open: Vec<(&str, ValueId)> =
        arguments.filter(|((n, kind), _)| waits(n, kind)).map(|((n, _), v)| (&**n, *v)).collect();
    let fits = |value: ValueId, array: &TensorData| {
        let ty = function.graph.ty(value);
        let size =
            |(dim, size): (&Dim, &usize)| dim.as_const().is_none_or(|d| usize::try_from(d) == Ok(*size));
        ty.dtype == array.dtype()
            && ty.rank() == array.shape().len()
            && ty.shape.iter().zip(array.shape()).all(size)
    };
    if open.len() == others.len() && open.iter().zip(&others).all(|((_, v), (_, array))| fits(*v, array)) {
        for ((argument, _), (name, array)) in open.into_iter().zip(others) {
            out.by_position.push((name, argument.to_owned()));
            out.inputs.insert(argument.to_owned(), array);
        }
    }
    out
}

/// Compares the element types of arrays with those of the arguments of their names.
///
/// # Errors
/// `npz.dtype` for the first array that an argument does not take.
pub fn check_types(arrays: &BTreeMap<String, TensorData>, function: &Function) -> Result<()> {
    for ((name, _), argument) in function.arguments.iter().zip(&function.graph.arguments) {
        let takes = function.graph.ty(*argument).dtype;
        if let Some(array) = arrays.get(&**name).filter(|a| a.dtype() != takes) {
            let message = format!("the elements are {}; expected {}", named(array.dtype()), named(takes));
            return Err(input("npz.dtype", message)
                .at(format!("array '{name}'"))
                .help(format!("convert it first: array.astype('{}')", numpy_name(takes))));
        }
    }
    Ok(())
}

/// Writes arrays to an archive, whole or not at all. NumPy has no bfloat16: such arrays are written as `V2`, two opaque
/// bytes an element, as the Python package `ml_dtypes` writes them.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, arrays: &[(String, TensorData)]) -> Result<()> {
    crate::write_atomically(path, &mut |out| {
        let mut archive = zip::ZipWriter::new_stream(out);
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(true);
        for (name, array) in arrays {
            archive.start_file(format!("{name}.npy"), options)?;
            archive.write_all(&npy_header(array))?;
            archive.write_all(array.bytes())?;
        }
        archive.finish().map(|_| ()).map_err(std::io::Error::from)
    })
}

/// What stands before the elements, padded to 64 bytes as the format asks.
fn npy_header(array: &TensorData) -> Vec<u8> {
    let sizes: String = array.shape().iter().map(|n| format!("{n}, ")).collect();
    let descr = descr_of(array.dtype());
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    let total = (10 + text.len() + 1).next_multiple_of(64);
    let length = u16::try_from(total - 10).unwrap_or(u16::MAX);
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.resize(total - 1, b' ');
    out.push(b'\n');
    out
}

fn descr_of(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "|b1",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::F16 => "<f2",
        DType::BF16 => "|V2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
    }
}

fn parse_npy(bytes: &[u8]) -> Result<TensorData> {
    let bad = |what: &str| input("npz.header", format!("not a NumPy array: {what}"));
    let version =
        *bytes.strip_prefix(b"\x93NUMPY").and_then(|b| b.first()).ok_or_else(|| bad("no magic number"))?;
    let (length, start) = match (version, bytes.get(8..12)) {
        (1, Some(b)) => (usize::from(u16::from_le_bytes([b[0], b[1]])), 10),
        (2 | 3, Some(b)) => (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize, 12),
        _ => return Err(bad("unknown version")),
    };
    let header = bytes.get(start..).and_then(|b| b.get(..length)).ok_or_else(|| bad("truncated header"))?;
    let header = std::str::from_utf8(header).map_err(|_| bad("header is not text"))?;
    let field = |key: &str| {
        let rest = &header[header.find(&format!("'{key}':"))? + key.len() + 3..];
        Some(rest.trim_start())
    };
    let descr = field("descr").ok_or_else(|| bad("no 'descr'"))?;
    if descr.starts_with('[') {
        return Err(unsupported_type("a structured type", "store each field as an array of its own"));
    }
    let descr = descr.strip_prefix('\'').and_then(|r| r.split('\'').next());
    let descr = descr.ok_or_else(|| bad("no 'descr'"))?;
    let dtype = dtype_of(descr).ok_or_else(|| other_type(descr))?;
    let fortran = match field("fortran_order") {
        Some(r) if r.starts_with("False") => false,
        Some(r) if r.starts_with("True") => true,
        _ => return Err(bad("no 'fortran_order'")),
    };
    let shape = field("shape").and_then(|r| r.strip_prefix('(')).and_then(|r| r.split(')').next());
    let shape: Vec<usize> = shape
        .ok_or_else(|| bad("no 'shape'"))?
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().map_err(|_| bad("malformed shape")))
        .collect::<Result<_>>()?;
    let data = &bytes[start + length..];
    let wrong_size = || bad("the data does not have the size that the header gives");
    let size =
        djinn_ir::data::numel(&shape).and_then(|n| n.checked_mul(dtype.size())).ok_or_else(wrong_size)?;
    if size != data.len() {
        return Err(wrong_size());
    }
    let data = if fortran { row_major(data, &shape, dtype.size()) } else { data.to_vec() };
    TensorData::new(dtype, shape, data).ok_or_else(wrong_size)
}

/// Elements in column-major order put into row-major order.
fn row_major(data: &[u8], shape: &[usize], element: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0usize; shape.len()];
    for _ in 0..data.len() / element {
        let (mut at, mut scale) = (0, 1);
        for (i, size) in index.iter().zip(shape) {
            at += i * scale;
            scale *= size;
        }
        out.extend_from_slice(&data[at * element..][..element]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// An element type that Djinn does not have, in NumPy's words and in those of the file.
fn other_type(descr: &str) -> Box<Diagnostic> {
    if let Some(rest) = descr.strip_prefix('>')
        && let Some(dtype) = dtype_of(rest)
    {
        let name = numpy_name(dtype);
        let advice = format!("convert it first: array.astype('{name}') gives {}", descr_of(dtype));
        return unsupported_type(&format!("big-endian {name} ({})", clipped(descr, 20, 4)), &advice);
    }
    let (kind, size) = descr.trim_start_matches(['<', '|', '=', '>']).split_at_checked(1).unwrap_or(("", ""));
    let bits = size.parse::<u32>().ok().and_then(|bytes| bytes.checked_mul(8));
    let name = match (kind, bits) {
        ("c", Some(bits)) => format!("complex{bits}"),
        ("f", Some(bits)) => format!("float{bits}"),
        ("O", _) => "object (Python objects)".to_owned(),
        ("U" | "S", _) => "text".to_owned(),
        ("M" | "m", _) => "dates or times".to_owned(),
        ("V", _) => "opaque bytes".to_owned(),
        _ => "unknown".to_owned(),
    };
    let advice = "convert it first, for example with array.astype('float32')";
    unsupported_type(&format!("{name} ({})", clipped(descr, 20, 4)), advice)
}

fn unsupported_type(what: &str, advice: &str) -> Box<Diagnostic> {
    let known: Vec<String> = DType::ALL.into_iter().map(named).collect();
    let message = format!("the elements are {what}; expected one of {}", known.join(", "));
    unsupported("npz.dtype", message).help(advice)
}

/// NumPy's name of an element type; `bfloat16` is that of the package `ml_dtypes`.
fn numpy_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "bool",
        DType::I8 => "int8",
        DType::I16 => "int16",
        DType::I32 => "int32",
        DType::I64 => "int64",
        DType::U8 => "uint8",
        DType::U16 => "uint16",
        DType::U32 => "uint32",
        DType::U64 => "uint64",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F32 => "float32",
        DType::F64 => "float64",
    }
}

/// An element type as users of NumPy know it: `float32 (<f4)`.
fn named(dtype: DType) -> String {
    format!("{} ({})", numpy_name(dtype), descr_of(dtype))
}

fn dtype_of(descr: &str) -> Option<DType> {
    Some(match descr.trim_start_matches(['<', '|', '=']) {
        "V2" => DType::BF16,
        "b1" => DType::Bool,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend_from_slice(&(header.len() as u16).to_le_bytes());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.npz");
        let arrays: Vec<(String, TensorData)> = DType::ALL
            .into_iter()
            .zip([vec![], vec![3], vec![2, 0], vec![1, 2, 2]].into_iter().cycle())
            .map(|(dtype, shape)| {
                let size = shape.iter().product::<usize>() * dtype.size();
                let bytes: Vec<u8> = (0..size).map(|i| (i % 2) as u8).collect();
                (format!("of {dtype}"), TensorData::new(dtype, shape, bytes).expect("fits"))
            })
            .collect();
        write(&path, &arrays).expect("written");
        assert_eq!(read(&path).expect("read"), arrays.into_iter().collect());
    }

    #[test]
    fn reads_and_refuses() {
        let t = parse_npy(&npy("<i4", "(2,)", &[1, 0, 0, 0, 2, 0, 0, 0])).expect("valid");
        assert_eq!((t.dtype(), t.shape(), t.to_i64s()), (DType::I32, &[2usize][..], Some(vec![1, 2])));
        let mut fortran = npy("<i4", "(2, 3)", &[]);
        let at = fortran.windows(5).position(|w| w == b"False").expect("in the header");
        fortran[at..at + 5].copy_from_slice(b"True ");
        fortran.extend([1i32, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_le_bytes()));
        assert_eq!(parse_npy(&fortran).expect("valid").to_i64s(), Some(vec![1, 2, 3, 4, 5, 6]));
        for (descr, words) in [
            ("<c8", "the elements are complex64 (<c8); expected one of bool (|b1), "),
            (">f4", "big-endian float32 (>f4)"),
            ("|O", "object (Python objects) (|O)"),
            ("<U3", "text (<U3)"),
            ("", "unknown ()"),
            ("é", "unknown (é)"),
        ] {
            let e = parse_npy(&npy(descr, "()", &[])).expect_err(descr);
            assert!(e.code == "npz.dtype" && e.message.contains(words), "{descr}: {e}");
            assert!(e.message.contains("float32 (<f4)") && e.help.is_some(), "{e}");
        }
        let fields = npy("x', '<f4'), ('y", "()", &[]);
        let fields = String::from_utf8_lossy(&fields[10..]).replace("'descr': '", "'descr': [('");
        let mut structured = b"\x93NUMPY\x01\x00".to_vec();
        structured.extend_from_slice(&(fields.len() as u16).to_le_bytes());
        structured.extend_from_slice(fields.as_bytes());
        assert!(parse_npy(&structured).expect_err("fields").message.contains("a structured type"));
        assert_eq!(parse_npy(&npy("<f4", "(3,)", &[0; 8])).expect_err("short").code, "npz.header");
        assert!(parse_npy(b"PK").is_err());
    }
}
