//! The types that are computed in, and how element types become them and back.

use bytemuck::Pod;
use djinn_ir::DType;
use half::{bf16, f16};
use std::borrow::Cow;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Sub};

/// A type that is computed in.
pub(crate) trait Real:
    Pod
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + MulAssign
    + Div<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    const LOWEST: Self;

    /// c = a·b + beta·c on matrices given by their first element and the distances of rows and columns.
    ///
    /// # Safety
    /// Every element that the sizes and distances reach lies in its allocation, and `c` overlaps neither `a` nor `b`.
    #[allow(clippy::too_many_arguments, reason = "the interface of BLAS")]
    #[allow(unsafe_code, reason = "the library of matrix products takes pointers")]
    unsafe fn gemm(
        size: (usize, usize, usize),
        a: (*const Self, isize, isize),
        b: (*const Self, isize, isize),
        beta: Self,
        c: (*mut Self, isize, isize),
    );
    fn from_f64(value: f64) -> Self;
    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    fn is_nan(self) -> bool;
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (Self::ZERO - self).exp())
    }
}

macro_rules! real {
    ($t:ident, $gemm:path, $exp:path) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = $t::NEG_INFINITY;

            #[allow(unsafe_code, reason = "the library of matrix products takes pointers")]
            unsafe fn gemm(
                (m, k, n): (usize, usize, usize),
                (a, ar, ac): (*const Self, isize, isize),
                (b, br, bc): (*const Self, isize, isize),
                beta: Self,
                (c, cr, cc): (*mut Self, isize, isize),
            ) {
                // SAFETY: the caller's promise is what the library asks for.
                unsafe { $gemm(m, k, n, 1.0, a, ar, ac, b, br, bc, beta, c, cr, cc) }
            }
            fn from_f64(value: f64) -> Self {
                value as $t
            }
            fn from_f32(value: f32) -> Self {
                value.into()
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn exp(self) -> Self {
                $exp(self)
            }
            fn tanh(self) -> Self {
                self.tanh()
            }
            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}

real!(f32, matrixmultiply::sgemm, exp_f32);
real!(f64, matrixmultiply::dgemm, f64::exp);

/// eˣ to 2 units in the last place, in a form that compilers vectorise: 2ⁿ·e^r with n = round(x/ln 2), r in two steps
/// (Cody and Waite, "Software Manual for the Elementary Functions", 1980, chapter 6) and the polynomial of Cephes' `expf`.
fn exp_f32(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer.
    let clamped = x.clamp(-87.3, 88.7);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    let p = p.iter().fold(1.987_569_1e-4, |sum, c| sum * r + c);
    let value = p * r * r + r + 1.0;
    // The low bits of `shifted` hold n; the exponent of 2ⁿ is n + 127, made in two factors since n may be 128.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let value = value * power(half) * power(n - half);
    if x < -87.3 {
        return if x < -104.0 { 0.0 } else { libm_exp(x) };
    }
    if x > 88.7 {
        return libm_exp(x);
    }
    if x.is_nan() { x } else { value }
}

#[cold]
fn libm_exp(x: f32) -> f32 {
    x.exp()
}

/// The values of some bytes; copied unless they are of the type that is computed in and lie on its boundary.
pub(crate) fn values<T: Real>(dtype: DType, bytes: &[u8]) -> Cow<'_, [T]> {
    let halves = |read: fn([u8; 2]) -> f32| {
        Cow::Owned(bytes.as_chunks::<2>().0.iter().map(|b| T::from_f32(read(*b))).collect())
    };
    match dtype {
        DType::F16 => halves(|b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => halves(|b| bf16::from_le_bytes(b).to_f32()),
        DType::Bool => Cow::Owned(bytes.iter().map(|b| if *b == 0 { T::ZERO } else { T::ONE }).collect()),
        _ => match bytemuck::try_cast_slice(bytes) {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
        },
    }
}

/// Lets `fill` compute the values of a result, and rounds them to its element type.
pub(crate) fn finish<T: Real>(dtype: DType, bytes: &mut [u8], fill: impl FnOnce(&mut [T])) {
    let is_half = matches!(dtype, DType::F16 | DType::BF16);
    if !is_half && let Ok(out) = bytemuck::try_cast_slice_mut(bytes) {
        return fill(out);
    }
    let mut out = vec![T::ZERO; bytes.len() / dtype.size()];
    fill(&mut out);
    let pairs = bytes.as_chunks_mut::<2>().0.iter_mut();
    match dtype {
        DType::F16 => pairs.zip(&out).for_each(|(b, v)| *b = f16::from_f32(v.to_f32()).to_le_bytes()),
        DType::BF16 => pairs.zip(&out).for_each(|(b, v)| *b = bf16::from_f32(v.to_f32()).to_le_bytes()),
        _ => bytes.copy_from_slice(bytemuck::cast_slice(&out)),
    }
}

#[cfg(test)]
mod tests {
    use super::exp_f32;

    #[test]
    fn exponentials_are_close_everywhere() {
        let mut x = -110.0f32;
        while x < 95.0 {
            let (got, want) = (f64::from(exp_f32(x)), f64::from(x).exp());
            let want = if want > f64::from(f32::MAX) { f64::INFINITY } else { want };
            let close = got == want || (got - want).abs() <= 4e-7 * want + 1e-45;
            assert!(close, "exp({x}) is {got}, not {want}");
            x += 0.0137;
        }
        assert!(exp_f32(f32::NAN).is_nan());
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_f32(0.0), 1.0);
    }
}
