//! Numbers in registers: integers and floats of every width in the low bits of a word, the rest zero.

use half::{bf16, f16};

/// An integer type.
pub(crate) trait Int: Copy {
    /// From the low bits of a word.
    fn of(word: u64) -> Self;
    /// Into a word, zeros above.
    fn put(self) -> u64;
    /// As a number.
    fn wide(self) -> i128;
    /// The nearest number of the type.
    fn nearest(value: i128) -> Self;
}

macro_rules! ints {
    ($($t:ty, $u:ty);*) => { $(
        impl Int for $t {
            fn of(word: u64) -> Self { word as $t }
            fn put(self) -> u64 { u64::from(self as $u) }
            fn wide(self) -> i128 { i128::from(self) }
            fn nearest(value: i128) -> Self { value.clamp(i128::from(<$t>::MIN), i128::from(<$t>::MAX)) as $t }
        }
    )* };
}
ints!(u8, u8; i8, u8; u16, u16; i16, u16; u32, u32; i32, u32; u64, u64; i64, u64);

/// A float type; what is not native is computed in `f64` and rounded once.
pub(crate) trait Float: Copy {
    /// From the low bits of a word.
    fn of(word: u64) -> Self;
    /// Into a word, zeros above.
    fn put(self) -> u64;
    /// As the number it is.
    fn wide(self) -> f64;
    /// The nearest number of the type, ties to even.
    fn nearest(value: f64) -> Self;
    /// A sum.
    fn add(self, other: Self) -> Self;
    /// A difference.
    fn sub(self, other: Self) -> Self;
    /// A product.
    fn mul(self, other: Self) -> Self;
    /// A quotient.
    fn div(self, other: Self) -> Self;
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// With a subnormal number made a zero of its sign.
    fn flush(self) -> Self;
}

macro_rules! native {
    ($($t:ty, $u:ty);*) => { $(
        impl Float for $t {
            fn of(word: u64) -> Self { <$t>::from_bits(word as $u) }
            fn put(self) -> u64 { u64::from(self.to_bits()) }
            fn wide(self) -> f64 { f64::from(self) }
            fn nearest(value: f64) -> Self { value as $t }
            fn add(self, other: Self) -> Self { self + other }
            fn sub(self, other: Self) -> Self { self - other }
            fn mul(self, other: Self) -> Self { self * other }
            fn div(self, other: Self) -> Self { self / other }
            fn fma(self, b: Self, c: Self) -> Self { self.mul_add(b, c) }
            fn flush(self) -> Self { if self.is_subnormal() { <$t>::copysign(0.0, self) } else { self } }
        }
    )* };
}
native!(f32, u32; f64, u64);

macro_rules! halves {
    ($($t:ty),*) => { $(
        impl Float for $t {
            fn of(word: u64) -> Self { <$t>::from_bits(word as u16) }
            fn put(self) -> u64 { u64::from(self.to_bits()) }
            fn wide(self) -> f64 { self.to_f64() }
            fn nearest(value: f64) -> Self { <$t>::from_f64(value) }
            fn add(self, other: Self) -> Self { Self::nearest(self.to_f64() + other.to_f64()) }
            fn sub(self, other: Self) -> Self { Self::nearest(self.to_f64() - other.to_f64()) }
            fn mul(self, other: Self) -> Self { Self::nearest(self.to_f64() * other.to_f64()) }
            fn div(self, other: Self) -> Self { Self::nearest(self.to_f64() / other.to_f64()) }
            fn fma(self, b: Self, c: Self) -> Self { Self::nearest(self.to_f64().mul_add(b.to_f64(), c.to_f64())) }
            fn flush(self) -> Self {
                if self.to_f64().abs() < <$t>::MIN_POSITIVE.to_f64() {
                    <$t>::from_bits(self.to_bits() & 0x8000)
                } else {
                    self
                }
            }
        }
    )* };
}
halves!(f16, bf16);

/// The smaller or larger of two; a NaN is passed over, or handed on if `nan`, and -0 is below +0.
pub(crate) fn extreme<F: Float>(a: F, b: F, larger: bool, nan: bool) -> F {
    let (x, y) = (a.wide(), b.wide());
    if x.is_nan() || y.is_nan() {
        let kept = if x.is_nan() { b } else { a };
        return if nan { F::nearest(f64::NAN) } else { kept };
    }
    let first = if x == y { x.is_sign_negative() != larger } else { (x < y) != larger };
    if first { a } else { b }
}

/// Rounds to an integer by PTX's name of the mode.
pub(crate) fn to_integral(value: f64, mode: &str) -> f64 {
    match mode {
        "rzi" => value.trunc(),
        "rmi" => value.floor(),
        "rpi" => value.ceil(),
        _ => value.round_ties_even(),
    }
}

/// Rounds to a narrower float towards zero, down or up.
pub(crate) fn round_directed<F: Float>(value: f64, mode: &str) -> u64 {
    let near = F::nearest(value);
    let (wide, bits) = (near.wide(), near.put());
    if wide == value || value.is_nan() {
        return bits;
    }
    let toward_zero = mode == "rz" || (mode == "rm") == (value > 0.0);
    let too_far = wide.abs() > value.abs();
    match (toward_zero, too_far) {
        (true, true) => bits - 1,
        (false, false) => bits + 1,
        _ => bits,
    }
}
