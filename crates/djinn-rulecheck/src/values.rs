//! Random tensor elements.

use crate::rng::Rng;
use crate::slots::Role;
use djinn_ir::data::{encode_f64, numel};
use djinn_ir::{DType, TensorData};

/// From which values elements are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Between −2 and 2.
    Normal,
    /// Magnitudes from 0.01 to 30.
    Wide,
    /// Many elements are zeros of both signs, denormal, powers of two, or extreme integers; all are finite.
    Zeros,
    /// A few elements are NaN or infinite.
    NonFinite,
    /// As before, and floats near the ends of their range: for rules that keep every bit.
    Extreme,
}

const ZEROS: [f64; 8] = [0.0, -0.0, 0.0, -0.0, 1e-40, -1e-40, 1.0, -8.0];
const NON_FINITE: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
const EXTREME: [f64; 8] = [3.0e38, -3.0e38, 65504.0, -65504.0, 1e-30, 1.7e308, f64::NAN, -0.0];
const INTEGERS: [i64; 6] = [i64::MIN, i64::MAX, 0, -1, i32::MIN as i64, i32::MAX as i64];

fn float(profile: Profile, rng: &mut Rng) -> f64 {
    let normal = rng.unit() * 4.0 - 2.0;
    match profile {
        Profile::Normal => normal,
        Profile::Wide => normal * rng.pick(&[0.01, 1.0, 15.0]),
        Profile::Zeros if rng.below(2) == 0 => rng.pick(&ZEROS),
        Profile::NonFinite if rng.below(6) == 0 => rng.pick(&NON_FINITE),
        Profile::Extreme if rng.below(3) == 0 => rng.pick(&EXTREME),
        Profile::Zeros | Profile::NonFinite | Profile::Extreme => normal,
    }
}

fn integer(profile: Profile, rng: &mut Rng) -> f64 {
    match profile {
        Profile::Zeros | Profile::Extreme if rng.below(3) == 0 => rng.pick(&INTEGERS) as f64,
        _ => rng.below(9) as f64 - 4.0,
    }
}

/// Integers that are known ahead of time serve as sizes and offsets, which do not overflow: they stay small.
fn element(role: Role, dtype: DType, profile: Profile, rng: &mut Rng) -> f64 {
    if dtype == DType::Bool {
        return (rng.next() & 1) as f64;
    }
    let v = match (dtype.is_float(), role) {
        (true, _) => float(profile, rng),
        (false, Role::Input) => integer(profile, rng),
        (false, _) => integer(Profile::Normal, rng),
    };
    if role == Role::Positive { v.abs() + 0.25 } else { v }
}

/// A tensor for this role; `None` only if its size overflows.
pub(crate) fn tensor(
    role: Role,
    dtype: DType,
    shape: &[usize],
    profile: Profile,
    rng: &mut Rng,
) -> Option<TensorData> {
    if let Role::Splat(value) = role {
        return TensorData::splat(dtype, shape, value);
    }
    let count = numel(shape)?;
    let mut values: Vec<f64> = (0..count).map(|_| element(role, dtype, profile, rng)).collect();
    let width = shape.last().copied().unwrap_or(1);
    for row in values.chunks_exact_mut(width.max(1)) {
        match role {
            Role::Halved => row.copy_within(..width / 2, width.div_ceil(2)),
            Role::Paired => row.chunks_exact_mut(2).for_each(|pair| pair[1] = pair[0]),
            _ => {}
        }
    }
    let bytes: Vec<u8> = values.into_iter().flat_map(|v| encode_f64(dtype, v)).collect();
    TensorData::new(dtype, shape.to_vec(), bytes)
}
