//! Constant tensors in text: one repeated element, a short nested list, or hexadecimal bytes.

use crate::data::{TensorData, numel};
use crate::dtype::DType;
use crate::types::TensorType;
use std::fmt::Write;

/// Elements printed as a list, at most; longer tensors are printed as bytes. Booleans are always a list.
const MAX_LIST: usize = 16;

/// Writes `dense<…> : tensor<…>`; `splat_bytes` is what may still be written as one repeated element.
pub(super) fn print(data: &TensorData, splat_bytes: &mut usize, out: &mut String) {
    let bytes = data.bytes();
    let mut one = data.bytes().chunks_exact(data.dtype().size());
    let clean_bools = data.dtype() != DType::Bool || bytes.iter().all(|b| *b <= 1);
    out.push_str("dense<");
    if data.numel() == 0 {
    } else if clean_bools && bytes.len() <= *splat_bytes && same_bytes(data) {
        *splat_bytes -= bytes.len();
        print_element(data.dtype(), one.next().unwrap_or_default(), out);
    } else if clean_bools && (data.numel() <= MAX_LIST || data.dtype() == DType::Bool) {
        print_list(data.dtype(), data.shape(), &mut one, out);
    } else {
        out.reserve(2 * bytes.len() + 4);
        out.push_str("\"0x");
        for b in bytes {
            for digit in [b >> 4, b & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
        out.push('"');
    }
    out.push_str("> : ");
    super::print::print_type(&data.ty(), out);
}

fn same_bytes(data: &TensorData) -> bool {
    let size = data.dtype().size();
    let bytes = data.bytes();
    bytes.get(size..).is_some_and(|rest| rest == &bytes[..bytes.len() - size])
}

fn print_list<'a>(
    dtype: DType,
    shape: &[usize],
    elements: &mut impl Iterator<Item = &'a [u8]>,
    out: &mut String,
) {
    let Some((size, inner)) = shape.split_first() else {
        return print_element(dtype, elements.next().unwrap_or_default(), out);
    };
    out.push('[');
    for i in 0..*size {
        if i > 0 {
            out.push_str(", ");
        }
        print_list(dtype, inner, elements, out);
    }
    out.push(']');
}

fn print_element(dtype: DType, bytes: &[u8], out: &mut String) {
    let Some(one) = TensorData::new(dtype, Vec::new(), bytes.to_vec()) else { return };
    let written = match dtype {
        DType::Bool => write!(out, "{}", one.get_i64(0) == Some(1)),
        DType::U64 => write!(out, "{}", u64::from_le_bytes(bytes.try_into().unwrap_or_default())),
        DType::F64 => {
            out.push_str(&float(one.get_f64(0).unwrap_or_default()));
            Ok(())
        }
        DType::F16 | DType::BF16 | DType::F32 => {
            let value = one.get_f64(0).unwrap_or_default();
            if value.is_finite() {
                out.push_str(&with_dot(format!("{:?}", value as f32)));
                Ok(())
            } else {
                let hex: String = bytes.iter().rev().map(|b| format!("{b:02X}")).collect();
                write!(out, "0x{hex}")
            }
        }
        _ => write!(out, "{}", one.get_i64(0).unwrap_or_default()),
    };
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
}

/// The shortest text of a float that MLIR reads back exactly; bits in hexadecimal if it is not finite.
pub(super) fn float(value: f64) -> String {
    if value.is_finite() { with_dot(format!("{value:?}")) } else { format!("0x{:016X}", value.to_bits()) }
}

/// MLIR wants a dot in every float: `1e-5` becomes `1.0e-5`.
fn with_dot(text: String) -> String {
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => text,
    }
}

/// The bytes of one element given as a number, `true` or `false`.
pub(super) fn element(dtype: DType, text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("0x").filter(|_| dtype.is_float()) {
        let bits = u64::from_str_radix(hex, 16).ok()?;
        let bytes = bits.to_le_bytes();
        let (low, high) = bytes.split_at(dtype.size());
        return high.iter().all(|b| *b == 0).then(|| low.to_vec());
    }
    Some(match dtype {
        DType::Bool => match text {
            "true" | "1" => vec![1],
            "false" | "0" => vec![0],
            _ => return None,
        },
        DType::I8 => text.parse::<i8>().ok()?.to_le_bytes().to_vec(),
        DType::I16 => text.parse::<i16>().ok()?.to_le_bytes().to_vec(),
        DType::I32 => text.parse::<i32>().ok()?.to_le_bytes().to_vec(),
        DType::I64 => text.parse::<i64>().ok()?.to_le_bytes().to_vec(),
        DType::U8 => text.parse::<u8>().ok()?.to_le_bytes().to_vec(),
        DType::U16 => text.parse::<u16>().ok()?.to_le_bytes().to_vec(),
        DType::U32 => text.parse::<u32>().ok()?.to_le_bytes().to_vec(),
        DType::U64 => text.parse::<u64>().ok()?.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f32(number(text)?.parse().ok()?).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f32(number(text)?.parse().ok()?).to_le_bytes().to_vec(),
        DType::F32 => number(text)?.parse::<f32>().ok()?.to_le_bytes().to_vec(),
        DType::F64 => number(text)?.parse::<f64>().ok()?.to_le_bytes().to_vec(),
    })
}

/// `text`, if it is a number in digits (Rust also reads `inf` and `nan`).
fn number(text: &str) -> Option<&str> {
    text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()).then_some(text)
}

/// What stands between `dense<` and `>`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Contents {
    /// Nothing: a tensor without elements.
    Empty,
    /// One element, repeated.
    Splat(String),
    /// The elements in row-major order with the sizes of the nested lists.
    List(Vec<String>, Vec<usize>),
    /// Little-endian bytes.
    Bytes(Vec<u8>),
}

/// The tensor of this type and these contents, or what is wrong with them.
pub(super) fn build(
    contents: Contents,
    ty: &TensorType,
    splat_bytes: &mut usize,
) -> Result<TensorData, String> {
    let shape = ty.const_shape().ok_or("a constant needs constant sizes")?;
    let count = numel(&shape).filter(|n| n.checked_mul(ty.dtype.size()).is_some());
    let count = count.ok_or("the constant is too large")?;
    let wrong = |text: &str| format!("'{text}' is no {} element", ty.dtype);
    let bytes = match contents {
        Contents::Empty => Vec::new(),
        // MLIR packs booleans, the first in the lowest bit.
        Contents::Bytes(bytes)
            if ty.dtype == DType::Bool && count > 1 && bytes.len() == count.div_ceil(8) =>
        {
            (0..count).map(|i| bytes[i / 8] >> (i % 8) & 1).collect()
        }
        Contents::Bytes(bytes) => bytes,
        Contents::Splat(text) => {
            let one = element(ty.dtype, &text).ok_or_else(|| wrong(&text))?;
            let total = count.saturating_mul(one.len());
            *splat_bytes = splat_bytes.checked_sub(total).ok_or("repeated constants take more than 1 GiB")?;
            one.repeat(count)
        }
        Contents::List(elements, sizes) => {
            if sizes != shape {
                return Err(format!("the list has the sizes {sizes:?}, the type {shape:?}"));
            }
            let mut bytes = Vec::new();
            for text in &elements {
                bytes.extend(element(ty.dtype, text).ok_or_else(|| wrong(text))?);
            }
            bytes
        }
    };
    let given = bytes.len();
    TensorData::new(ty.dtype, shape, bytes).ok_or_else(|| format!("{given} bytes do not make a {ty}"))
}
