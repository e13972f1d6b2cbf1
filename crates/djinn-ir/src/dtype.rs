//! Element types.

use std::fmt;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// Boolean, one byte an element, 0 or 1.
    Bool,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 13] = [
        DType::Bool,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
    ];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::I8 | DType::U8 => 1,
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 => 8,
        }
    }

    /// True for `f16`, `bf16`, `f32` and `f64`.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// True for the signed and unsigned integers; `bool` is not one.
    pub fn is_int(self) -> bool {
        !self.is_float() && self != DType::Bool
    }

    /// True for signed integers and floats.
    pub fn is_signed(self) -> bool {
        !matches!(self, DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }

    /// MLIR's spelling (`i1`, `i32`, `ui8`, `bf16`, …).
    pub fn mlir(self) -> &'static str {
        match self {
            DType::Bool => "i1",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "ui8",
            DType::U16 => "ui16",
            DType::U32 => "ui32",
            DType::U64 => "ui64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// Reads MLIR's spelling.
    pub fn from_mlir(text: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.mlir() == text)
    }

    /// Can every value of `self` be represented in `wider` without loss (cast there and back is the identity)?
    pub fn fits_in(self, wider: DType) -> bool {
        use DType::*;
        if self == wider {
            return true;
        }
        match (self, wider) {
            (Bool, _) => true,
            (_, Bool) => false,
            (F16 | BF16, F32 | F64) | (F32, F64) => true,
            (a, _) if a.is_float() => false,
            // (significand bits) an integer of n bits fits a float of at least n significand bits.
            (a, F64) => a.size() <= 4,
            (a, F32) => a.size() <= 2,
            (I8 | U8, F16 | BF16) => true,
            (_, F16 | BF16) => false,
            (a, b) if a.is_signed() == b.is_signed() => a.size() <= b.size(),
            (a, b) => !a.is_signed() && b.is_signed() && a.size() < b.size(),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mlir())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_round_trip() {
        for d in DType::ALL {
            assert_eq!(DType::from_mlir(d.mlir()), Some(d));
        }
    }

    #[test]
    fn lossless_casts() {
        assert!(DType::F16.fits_in(DType::F32));
        assert!(!DType::F16.fits_in(DType::BF16));
        assert!(DType::U8.fits_in(DType::I16));
        assert!(!DType::I8.fits_in(DType::U64));
        assert!(!DType::I32.fits_in(DType::F32));
        assert!(DType::I32.fits_in(DType::F64));
        assert!(!DType::I64.fits_in(DType::F64));
    }
}
