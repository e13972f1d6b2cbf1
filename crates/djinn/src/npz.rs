//! Reading and writing NumPy's `.npz` archives of tensors.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html> (versions 1 to 3).

use djinn_diag::{Context, Result, input, unsupported};
use djinn_ir::{DType, TensorData};
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
    let place = || path.display().to_string();
    let file = std::fs::File::open(path).map_err(|e| input("npz.open", e.to_string())).at(place)?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| input("npz.zip", e.to_string())).at(place)?;
    let mut out = BTreeMap::new();
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
        out.insert(name, tensor);
    }
    Ok(out)
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
    let descr = field("descr").and_then(|r| r.strip_prefix('\'')).and_then(|r| r.split('\'').next());
    let descr = descr.ok_or_else(|| bad("no 'descr'"))?;
    let dtype = dtype_of(descr).ok_or_else(|| unsupported("npz.dtype", format!("element type '{descr}'")))?;
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
        assert_eq!(parse_npy(&npy("<c8", "()", &[])).expect_err("complex").code, "npz.dtype");
        assert_eq!(parse_npy(&npy("<f4", "(3,)", &[0; 8])).expect_err("short").code, "npz.header");
        assert!(parse_npy(b"PK").is_err());
    }
}
