//! Tensor contents as plain vectors: floats of every width as `f64`, integers and booleans as `i64`.
//!
//! `u64` is held by its bits in `i64`; operations for which the sign matters ask for the element type.
//! Going back to bytes rounds to nearest even once (floats) or wraps (integers).

use djinn_diag::{Result, input, internal};
use djinn_ir::{DType, TensorData};

/// Elements of one tensor, at most: larger ones are refused instead of exhausting the memory.
pub const MAX_ELEMENTS: usize = 1 << 30;

/// Number of elements of a shape that the evaluator is willing to hold.
///
/// Sizes of 0 count as 1 for the limit, so that the product of any part of an accepted shape is small.
pub(crate) fn checked_numel(shape: &[usize]) -> Result<usize> {
    let bound = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
    match bound.filter(|n| *n <= MAX_ELEMENTS) {
        Some(n) => Ok(if shape.contains(&0) { 0 } else { n }),
        None => Err(input(
            "interp.size",
            format!("a tensor of shape {shape:?} has more than {MAX_ELEMENTS} elements"),
        )),
    }
}

/// An empty vector with room for `count` elements; a diagnostic if there is no memory for it.
pub(crate) fn reserved<T>(count: usize) -> Result<Vec<T>> {
    let mut out = Vec::new();
    let fail = |_| input("interp.size", format!("there is no memory for {count} elements"));
    out.try_reserve_exact(count).map_err(fail)?;
    Ok(out)
}

/// A vector of `count` equal elements; a diagnostic if there is no memory for it.
pub(crate) fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>> {
    let mut out = reserved(count)?;
    out.resize(count, value);
    Ok(out)
}

fn decode<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
}

fn encode<const N: usize, T: Copy>(values: &[T], write: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let chunks: Vec<[u8; N]> = values.iter().map(|v| write(*v)).collect();
    chunks.into_flattened()
}

/// All elements as `f64`; integers beyond 2⁵³ are rounded.
pub(crate) fn floats(t: &TensorData) -> Vec<f64> {
    let bytes = t.bytes();
    match t.dtype() {
        DType::F16 => decode(bytes, |b| f64::from(half::f16::from_le_bytes(b))),
        DType::BF16 => decode(bytes, |b| f64::from(half::bf16::from_le_bytes(b))),
        DType::F32 => decode(bytes, |b| f64::from(f32::from_le_bytes(b))),
        DType::F64 => decode(bytes, f64::from_le_bytes),
        DType::U64 => decode(bytes, |b| u64::from_le_bytes(b) as f64),
        DType::Bool
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32 => ints(t).into_iter().map(|v| v as f64).collect(),
    }
}

/// All elements as `i64` (`u64` by its bits, booleans as 0 and 1); floats truncate and saturate.
pub(crate) fn ints(t: &TensorData) -> Vec<i64> {
    let bytes = t.bytes();
    match t.dtype() {
        DType::Bool => decode(bytes, |[b]| i64::from(b != 0)),
        DType::U8 => decode(bytes, |[b]| i64::from(b)),
        DType::I8 => decode(bytes, |b| i64::from(i8::from_le_bytes(b))),
        DType::I16 => decode(bytes, |b| i64::from(i16::from_le_bytes(b))),
        DType::U16 => decode(bytes, |b| i64::from(u16::from_le_bytes(b))),
        DType::I32 => decode(bytes, |b| i64::from(i32::from_le_bytes(b))),
        DType::U32 => decode(bytes, |b| i64::from(u32::from_le_bytes(b))),
        DType::I64 | DType::U64 => decode(bytes, i64::from_le_bytes),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
            floats(t).into_iter().map(|v| v as i64).collect()
        }
    }
}

/// A tensor of these values, rounded to `dtype`; to integers they truncate towards zero and saturate.
pub(crate) fn from_floats(dtype: DType, shape: &[usize], values: &[f64]) -> Result<TensorData> {
    let bytes = match dtype {
        DType::F16 => encode(values, |v| round_to_f16(v).to_le_bytes()),
        DType::BF16 => encode(values, |v| round_to_bf16(v).to_le_bytes()),
        DType::F32 => encode(values, |v| (v as f32).to_le_bytes()),
        DType::F64 => encode(values, f64::to_le_bytes),
        DType::Bool => encode(values, |v| [u8::from(v != 0.0)]),
        DType::I8 => encode(values, |v| (v as i8).to_le_bytes()),
        DType::I16 => encode(values, |v| (v as i16).to_le_bytes()),
        DType::I32 => encode(values, |v| (v as i32).to_le_bytes()),
        DType::I64 => encode(values, |v| (v as i64).to_le_bytes()),
        DType::U8 => encode(values, |v| (v as u8).to_le_bytes()),
        DType::U16 => encode(values, |v| (v as u16).to_le_bytes()),
        DType::U32 => encode(values, |v| (v as u32).to_le_bytes()),
        DType::U64 => encode(values, |v| (v as u64).to_le_bytes()),
    };
    from_bytes(dtype, shape, bytes)
}

/// A number rounded to a float type; to other types it stays as it is.
pub(crate) fn rounded(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => f64::from(round_to_f16(value)),
        DType::BF16 => f64::from(round_to_bf16(value)),
        DType::F32 => f64::from(value as f32),
        _ => value,
    }
}

/// A tensor of these integers, wrapped to `dtype`; for `bool`, whether they differ from 0.
pub(crate) fn from_ints(dtype: DType, shape: &[usize], values: &[i64]) -> Result<TensorData> {
    let bytes = match dtype {
        DType::Bool => encode(values, |v| [u8::from(v != 0)]),
        DType::I8 | DType::U8 => encode(values, |v| (v as u8).to_le_bytes()),
        DType::I16 | DType::U16 => encode(values, |v| (v as u16).to_le_bytes()),
        DType::I32 | DType::U32 => encode(values, |v| (v as u32).to_le_bytes()),
        DType::I64 | DType::U64 => encode(values, i64::to_le_bytes),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
            return from_floats(dtype, shape, &values.iter().map(|v| *v as f64).collect::<Vec<_>>());
        }
    };
    from_bytes(dtype, shape, bytes)
}

/// A boolean tensor.
pub(crate) fn from_bools(shape: &[usize], values: &[bool]) -> Result<TensorData> {
    from_bytes(DType::Bool, shape, encode(values, |v| [u8::from(v)]))
}

/// A tensor over bytes whose number the caller has computed from the shape.
pub(crate) fn from_bytes(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<TensorData> {
    let count = bytes.len();
    TensorData::new(dtype, shape.to_vec(), bytes).ok_or_else(|| {
        internal("interp.bytes", format!("{count} bytes do not make a {dtype} tensor of shape {shape:?}"))
    })
}

/// `value` rounded to the neighbouring `f32` whose last bit is odd, unless it is exact.
///
/// Rounding such a value to a type of at most 22 significant bits gives what direct rounding gives.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || !nearest.is_finite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let bits = nearest.to_bits();
    f32::from_bits(if back.abs() > value.abs() { bits - 1 } else { bits + 1 })
}

/// `value` rounded once to binary16, halves to even.
pub(crate) fn round_to_f16(value: f64) -> half::f16 {
    half::f16::from_f32(round_to_odd(value))
}

/// `value` rounded once to bfloat16, halves to even.
pub(crate) fn round_to_bf16(value: f64) -> half::bf16 {
    half::bf16::from_f32(round_to_odd(value))
}

/// An integer as the neighbouring `f64` whose last bit is odd, unless it is exact (see [`round_to_odd`]).
pub(crate) fn int_to_odd_f64(value: i128) -> f64 {
    let nearest = value as f64;
    let back = nearest as i128;
    if back == value || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let bits = nearest.to_bits();
    f64::from_bits(if back.abs() > value.abs() { bits - 1 } else { bits + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_round_once() {
        // 1 + 2⁻¹¹ is a tie for f16; a bit far below f32's precision decides it.
        let above_tie = 1.0 + f64::powi(2.0, -11) + f64::powi(2.0, -40);
        assert_eq!(round_to_f16(above_tie).to_f32(), 1.0 + f32::powi(2.0, -10));
        assert_eq!(round_to_f16(1.0 + f64::powi(2.0, -11)).to_f32(), 1.0);
        assert_eq!(round_to_bf16(1.0 + f64::powi(2.0, -8) + f64::powi(2.0, -45)).to_f32(), 1.0078125);
        assert!(round_to_f16(f64::NAN).is_nan());
        assert_eq!(round_to_f16(-1e300), half::f16::NEG_INFINITY);
        assert_eq!(round_to_bf16(f64::MIN_POSITIVE).to_f32(), 0.0);
    }

    #[test]
    fn wide_integers_round_once() {
        let tie = (1i128 << 60) + (1i128 << 36);
        assert_eq!(int_to_odd_f64(tie + 1) as f32, ((1u64 << 60) + (1 << 37)) as f32);
        assert_eq!(int_to_odd_f64(tie) as f32, (1u64 << 60) as f32);
    }

    #[test]
    fn bytes_round_trip() {
        for dtype in DType::ALL {
            let t = from_ints(dtype, &[2], &[1, 0]).expect("fits");
            assert_eq!(floats(&t), vec![1.0, 0.0]);
            assert_eq!(ints(&t), vec![1, 0]);
            assert_eq!(from_floats(dtype, &[2], &[1.0, 0.0]).expect("fits"), t);
        }
        assert!(checked_numel(&[1 << 20, 1 << 20]).is_err());
    }
}
