//! Concrete tensor contents: element type, constant sizes and little-endian bytes in row-major order.

use crate::dtype::DType;
use crate::types::TensorType;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Shared, immutable bytes: a vector or a window of a memory map that the owner keeps alive.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    offset: usize,
    len: usize,
}

impl Bytes {
    /// A window of `owner`; `None` if it reaches beyond the end.
    pub fn window(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, offset: usize, len: usize) -> Option<Bytes> {
        let total = (*owner).as_ref().len();
        (offset.checked_add(len)? <= total).then_some(Bytes { owner, offset, len })
    }

    /// A part of these bytes; `None` if it reaches beyond their end.
    pub fn part(&self, offset: usize, len: usize) -> Option<Bytes> {
        let offset_in_owner = self.offset.checked_add(offset)?;
        (offset.checked_add(len)? <= self.len).then(|| Bytes {
            owner: self.owner.clone(),
            offset: offset_in_owner,
            len,
        })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.offset..self.offset + self.len]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Bytes { owner: Arc::new(bytes), offset: 0, len }
    }
}

/// A tensor value.
#[derive(Clone)]
pub struct TensorData {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// A content hash: the first 128 bits of BLAKE3 over element type, shape and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 16]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ContentHash {
    /// Reads 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<ContentHash> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut out = [0u8; 16];
        for (i, slot) in out.iter_mut().enumerate() {
            *slot = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(ContentHash(out))
    }
}

/// Number of elements of a concrete shape, `None` on overflow.
pub fn numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d))
}

impl TensorData {
    /// A tensor over `bytes`; `None` if their number does not match type and shape.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        let want = numel(&shape)?.checked_mul(dtype.size())?;
        (want == bytes.len).then_some(Self { dtype, shape, bytes })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Little-endian bytes in row-major order.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.bytes.len / self.dtype.size()
    }

    /// Its type, with constant sizes.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, self.shape.iter().map(|d| (*d).into()))
    }

    /// The same bytes under another shape; `None` if the number of elements differs.
    pub fn reshaped(&self, shape: Vec<usize>) -> Option<Self> {
        (numel(&shape)? == self.numel()).then(|| Self { shape, ..self.clone() })
    }

    /// A tensor of `f32` values; `None` if their number does not match the shape.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Option<Self> {
        Self::new(
            DType::F32,
            shape.to_vec(),
            values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(),
        )
    }

    /// A tensor of `i64` values; `None` if their number does not match the shape.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Option<Self> {
        Self::new(
            DType::I64,
            shape.to_vec(),
            values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(),
        )
    }

    /// A tensor of this element type whose elements are all `value` rounded to it.
    pub fn splat(dtype: DType, shape: &[usize], value: f64) -> Option<Self> {
        let n = numel(shape)?;
        let one = encode_f64(dtype, value);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(n.checked_mul(one.len())?).ok()?;
        (0..n).for_each(|_| bytes.extend_from_slice(&one));
        Self::new(dtype, shape.to_vec(), bytes)
    }

    /// Element `i` in row-major order as `f64` (rounded for wide integers); `None` beyond the end.
    pub fn get_f64(&self, i: usize) -> Option<f64> {
        let size = self.dtype.size();
        let b = self.bytes().get(i.checked_mul(size)?..)?.get(..size)?;
        Some(match self.dtype {
            DType::F16 => f64::from(half::f16::from_le_bytes(b.try_into().ok()?)),
            DType::BF16 => f64::from(half::bf16::from_le_bytes(b.try_into().ok()?)),
            DType::F32 => f64::from(f32::from_le_bytes(b.try_into().ok()?)),
            DType::F64 => f64::from_le_bytes(b.try_into().ok()?),
            DType::U64 => u64::from_le_bytes(b.try_into().ok()?) as f64,
            _ => self.get_i64(i)? as f64,
        })
    }

    /// Element `i` in row-major order as `i64`; `None` for floats, beyond the end, and for `u64` above `i64::MAX`.
    pub fn get_i64(&self, i: usize) -> Option<i64> {
        let size = self.dtype.size();
        let b = self.bytes().get(i.checked_mul(size)?..)?.get(..size)?;
        Some(match self.dtype {
            DType::Bool => i64::from(b[0] != 0),
            DType::U8 => i64::from(b[0]),
            DType::I8 => i64::from(i8::from_le_bytes([b[0]])),
            DType::I16 => i64::from(i16::from_le_bytes(b.try_into().ok()?)),
            DType::U16 => i64::from(u16::from_le_bytes(b.try_into().ok()?)),
            DType::I32 => i64::from(i32::from_le_bytes(b.try_into().ok()?)),
            DType::U32 => i64::from(u32::from_le_bytes(b.try_into().ok()?)),
            DType::I64 => i64::from_le_bytes(b.try_into().ok()?),
            DType::U64 => i64::try_from(u64::from_le_bytes(b.try_into().ok()?)).ok()?,
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => return None,
        })
    }

    /// All elements as `i64`, for integer and boolean tensors.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        (0..self.numel()).map(|i| self.get_i64(i)).collect()
    }

    /// The one value that all elements have bit for bit; `None` if they differ or there is none.
    pub fn splat_value(&self) -> Option<f64> {
        let mut chunks = self.bytes().chunks_exact(self.dtype.size());
        let first = chunks.next()?;
        chunks.all(|c| c == first).then(|| self.get_f64(0))?
    }

    /// The hash of element type, shape and bytes.
    pub fn content_hash(&self) -> ContentHash {
        let mut h = blake3::Hasher::new();
        h.update(self.dtype.mlir().as_bytes());
        for d in &self.shape {
            h.update(&(*d as u64).to_le_bytes());
        }
        h.update(b"|");
        h.update(self.bytes());
        let mut out = [0u8; 16];
        out.copy_from_slice(&h.finalize().as_bytes()[..16]);
        ContentHash(out)
    }
}

/// One element of this type, rounded from `value`, as little-endian bytes. Integers truncate and saturate.
pub fn encode_f64(dtype: DType, value: f64) -> Vec<u8> {
    match dtype {
        DType::Bool => vec![u8::from(value != 0.0)],
        DType::I8 => (value as i8).to_le_bytes().to_vec(),
        DType::I16 => (value as i16).to_le_bytes().to_vec(),
        DType::I32 => (value as i32).to_le_bytes().to_vec(),
        DType::I64 => (value as i64).to_le_bytes().to_vec(),
        DType::U8 => (value as u8).to_le_bytes().to_vec(),
        DType::U16 => (value as u16).to_le_bytes().to_vec(),
        DType::U32 => (value as u32).to_le_bytes().to_vec(),
        DType::U64 => (value as u64).to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f32(round_to_odd(value)).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f32(round_to_odd(value)).to_le_bytes().to_vec(),
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::F64 => value.to_le_bytes().to_vec(),
    }
}

/// `value` in `f32`, inexact values with their last bit set, so that rounding once more to a narrower type rounds
/// `value` itself correctly (Boldo, Melquiond: "Emulation of FMA and correctly rounded sums", IEEE TC 57(4), 2008).
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || !nearest.is_finite() {
        return nearest;
    }
    let toward_zero =
        if f64::from(nearest).abs() > value.abs() { nearest.to_bits() - 1 } else { nearest.to_bits() };
    f32::from_bits(toward_zero | 1)
}

impl PartialEq for TensorData {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl Eq for TensorData {}

impl PartialOrd for TensorData {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TensorData {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.dtype, &self.shape, self.bytes()).cmp(&(other.dtype, &other.shape, other.bytes()))
    }
}

impl Hash for TensorData {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.dtype.hash(state);
        self.shape.hash(state);
        self.bytes().hash(state);
    }
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorData({:?}{:?}, {} bytes)", self.dtype, self.shape, self.bytes.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(TensorData::new(DType::F32, vec![2], vec![0u8; 8]).is_some());
        assert!(TensorData::new(DType::F32, vec![2], vec![0u8; 7]).is_none());
        assert!(TensorData::new(DType::F32, vec![usize::MAX, 2], vec![]).is_none());
    }

    #[test]
    fn half_floats_are_rounded_once() {
        let above_tie = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(encode_f64(DType::F16, above_tie), half::f16::from_bits(0x3c01).to_le_bytes());
        let above_tie = 1.0 + 2f64.powi(-8) + 2f64.powi(-45);
        assert_eq!(encode_f64(DType::BF16, above_tie), half::bf16::from_bits(0x3f81).to_le_bytes());
    }

    #[test]
    fn splat_and_hash() {
        let a = TensorData::splat(DType::F16, &[2, 2], 0.5).expect("fits");
        assert_eq!(a.splat_value(), Some(0.5));
        let b = a.reshaped(vec![4]).expect("same count");
        assert_ne!(a.content_hash(), b.content_hash());
        assert_eq!(ContentHash::from_hex(&a.content_hash().to_string()), Some(a.content_hash()));
    }
}
