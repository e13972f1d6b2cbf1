//! Elementwise operations: one operand, two broadcast operands, comparison, selection, conversion.

use crate::call::Call;
use crate::index::{Walk, broadcast, broadcast_strides};
use crate::tensor::{
    checked_numel, filled, floats, from_bools, from_bytes, from_floats, from_ints, int_to_odd_f64, ints,
    reserved,
};
use djinn_diag::Result;
use djinn_ir::{DType, TensorData};
use std::cmp::Ordering;

/// A function of one float, for float operands.
pub(crate) fn map_float(call: &Call, f: impl Fn(f64) -> f64) -> Result<TensorData> {
    let x = call.x()?;
    let values: Vec<f64> = floats(x).into_iter().map(f).collect();
    from_floats(x.dtype(), x.shape(), &values)
}

/// A function of one number, for operands of any type. `u64` passes its bits and the flag "unsigned".
pub(crate) fn map_number(
    call: &Call,
    float: impl Fn(f64) -> f64,
    int: impl Fn(i64, bool) -> i64,
) -> Result<TensorData> {
    let x = call.x()?;
    if x.dtype().is_float() {
        return map_float(call, float);
    }
    let unsigned = x.dtype() == DType::U64;
    let values: Vec<i64> = ints(x).into_iter().map(|v| int(v, unsigned)).collect();
    from_ints(x.dtype(), x.shape(), &values)
}

/// A predicate of one float.
pub(crate) fn test_float(call: &Call, f: impl Fn(f64) -> bool) -> Result<TensorData> {
    let x = call.x()?;
    let values: Vec<bool> = floats(x).into_iter().map(f).collect();
    from_bools(x.shape(), &values)
}

/// −1, 0 or 1; NaN stays NaN.
pub(crate) fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else if x == 0.0 {
        0.0
    } else {
        x
    }
}

/// 1/(1 + e⁻ˣ), without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + libm::exp(-x))
    } else {
        let e = libm::exp(x);
        e / (1.0 + e)
    }
}

/// log(1 + eˣ), without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + libm::log1p(libm::exp(-x.abs())) }
}

/// The larger of two floats, +0 above −0; NaN if either is.
pub(crate) fn max_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a > b || (a == b && a.is_sign_positive()) {
        a
    } else {
        b
    }
}

/// The smaller of two floats, −0 below +0; NaN if either is.
pub(crate) fn min_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// The Gaussian error linear unit, exact or by its tanh approximation.
pub(crate) fn gelu(x: f64, approximate: &str) -> f64 {
    if approximate == "tanh" {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        0.5 * x * (1.0 + libm::tanh(inner))
    } else {
        0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
    }
}

/// Applies `f` to all pairs of two operands that broadcast against each other.
pub(crate) fn zip<T: Copy, R: Clone + Default>(
    (a, a_shape): (&[T], &[usize]),
    (b, b_shape): (&[T], &[usize]),
    f: impl Fn(T, T) -> R,
) -> Result<(Vec<R>, Vec<usize>)> {
    let shape = broadcast(&[a_shape, b_shape])?;
    let mut out = filled(checked_numel(&shape)?, R::default())?;
    let (sa, sb) = (broadcast_strides(a_shape, &shape)?, broadcast_strides(b_shape, &shape)?);
    let mut slots = out.iter_mut();
    Walk::new(&shape, [&sa, &sb]).each(|[i, j]| {
        if let Some(slot) = slots.next() {
            *slot = f(a[i], b[j]);
        }
    });
    drop(slots);
    Ok((out, shape))
}

/// A function of two numbers of one type, given for floats, for signed and narrow integers, and for `u64`.
pub(crate) fn binary(
    call: &Call,
    float: fn(f64, f64) -> f64,
    signed: fn(i64, i64) -> i64,
    unsigned: fn(u64, u64) -> u64,
) -> Result<TensorData> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    if a.dtype().is_float() {
        let (values, shape) = zip((&floats(a), a.shape()), (&floats(b), b.shape()), float)?;
        return from_floats(a.dtype(), &shape, &values);
    }
    let (x, y) = (ints(a), ints(b));
    let (x, y) = ((x.as_slice(), a.shape()), (y.as_slice(), b.shape()));
    let (values, shape) = if a.dtype() == DType::U64 {
        zip(x, y, |p, q| unsigned(p as u64, q as u64) as i64)?
    } else {
        zip(x, y, signed)?
    };
    from_ints(a.dtype(), &shape, &values)
}

/// A function of the bits of two integers or booleans.
pub(crate) fn bitwise(call: &Call, f: fn(i64, i64) -> i64) -> Result<TensorData> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    let (values, shape) = zip((&ints(a), a.shape()), (&ints(b), b.shape()), f)?;
    from_ints(a.dtype(), &shape, &values)
}

/// Shifts: left gives 0 where the amount reaches the width, right fills with the sign (0 for unsigned types).
pub(crate) fn shift(call: &Call, left: bool) -> Result<TensorData> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    let width = 8 * a.dtype().size() as i64;
    let (wide, signed) = (a.dtype() == DType::U64, a.dtype().is_signed());
    let f = |v: i64, by: i64| {
        let inside = (0..width).contains(&by);
        match (left, inside) {
            (true, true) => v.wrapping_shl(by as u32),
            (true, false) => 0,
            (false, true) if wide => ((v as u64) >> by) as i64,
            (false, true) => v >> by,
            (false, false) if signed && v < 0 => -1,
            (false, false) => 0,
        }
    };
    let (values, shape) = zip((&ints(a), a.shape()), (&ints(b), b.shape()), f)?;
    from_ints(a.dtype(), &shape, &values)
}

/// Remainder with the sign of the divisor, as in Python.
pub(crate) fn floor_mod(a: f64, b: f64) -> f64 {
    let r = libm::fmod(a, b);
    if r == 0.0 {
        0.0f64.copysign(b)
    } else if (r < 0.0) != (b < 0.0) {
        r + b
    } else {
        r
    }
}

/// Integer remainder with the sign of the divisor; 0 for division by zero.
pub(crate) fn floor_mod_int(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let r = a.wrapping_rem(b);
    if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
}

/// a to the b in a's type; the exponent may be of another numeric type.
pub(crate) fn pow(call: &Call) -> Result<TensorData> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    if a.dtype().is_float() || b.dtype().is_float() {
        let (values, shape) = zip((&floats(a), a.shape()), (&floats(b), b.shape()), libm::pow)?;
        return from_floats(a.dtype(), &shape, &values);
    }
    let exponent_is_unsigned = b.dtype() == DType::U64;
    let f = |base: i64, exponent: i64| int_pow(base, exponent, exponent_is_unsigned);
    let (values, shape) = zip((&ints(a), a.shape()), (&ints(b), b.shape()), f)?;
    from_ints(a.dtype(), &shape, &values)
}

/// Wrapping integer power; negative exponents give 1/xⁿ truncated (0 for a base of 0).
fn int_pow(base: i64, exponent: i64, unsigned: bool) -> i64 {
    if exponent < 0 && !unsigned {
        return match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut rest) = (1i64, base, exponent as u64);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    result
}

/// Order of two integers of this type; `u64` is given by its bits.
pub(crate) fn int_order(dtype: DType, a: i64, b: i64) -> Ordering {
    if dtype == DType::U64 { (a as u64).cmp(&(b as u64)) } else { a.cmp(&b) }
}

/// Comparison by the word `predicate`.
pub(crate) fn compare(call: &Call) -> Result<TensorData> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    let accepts: fn(Option<Ordering>) -> bool = match call.attrs.str("predicate") {
        "eq" => |o| o == Some(Ordering::Equal),
        "ne" => |o| o != Some(Ordering::Equal),
        "lt" => |o| o == Some(Ordering::Less),
        "le" => |o| matches!(o, Some(Ordering::Less | Ordering::Equal)),
        "gt" => |o| o == Some(Ordering::Greater),
        "ge" => |o| matches!(o, Some(Ordering::Greater | Ordering::Equal)),
        other => return Err(call.fail(format!("there is no predicate '{other}'"))),
    };
    let dtype = a.dtype();
    let (values, shape) = if dtype.is_float() {
        zip((&floats(a), a.shape()), (&floats(b), b.shape()), |x, y| accepts(x.partial_cmp(&y)))?
    } else {
        zip((&ints(a), a.shape()), (&ints(b), b.shape()), |x, y| accepts(Some(int_order(dtype, x, y))))?
    };
    from_bools(&shape, &values)
}

/// `a` where `cond`, else `b`, bit for bit.
pub(crate) fn select(call: &Call) -> Result<TensorData> {
    let (cond, a, b) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let shape = broadcast(&[cond.shape(), a.shape(), b.shape()])?;
    let size = a.dtype().size();
    let mut out = reserved(checked_numel(&shape)? * size)?;
    let strides = [cond, a, b].map(|t| broadcast_strides(t.shape(), &shape));
    let [sc, sa, sb] = strides;
    let (c, p, q) = (cond.bytes(), a.bytes(), b.bytes());
    Walk::new(&shape, [&sc?, &sa?, &sb?]).each(|[k, i, j]| {
        let (from, at) = if c[k] != 0 { (p, i) } else { (q, j) };
        out.extend_from_slice(&from[at * size..(at + 1) * size]);
    });
    from_bytes(a.dtype(), &shape, out)
}

/// `min(max(x, low), high)` with scalar bounds.
pub(crate) fn clamp(call: &Call) -> Result<TensorData> {
    let (x, low, high) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    if x.dtype().is_float() {
        let (low, high) = (scalar(call, &floats(low))?, scalar(call, &floats(high))?);
        return map_float(call, |v| min_nan(max_nan(v, low), high));
    }
    let (low, high) = (scalar(call, &ints(low))?, scalar(call, &ints(high))?);
    let dtype = x.dtype();
    let pick = |a: i64, b: i64, want: Ordering| if int_order(dtype, a, b) == want { a } else { b };
    let f = |v: i64| pick(pick(v, low, Ordering::Greater), high, Ordering::Less);
    from_ints(dtype, x.shape(), &ints(x).into_iter().map(f).collect::<Vec<_>>())
}

fn scalar<T: Copy>(call: &Call, values: &[T]) -> Result<T> {
    values.first().copied().ok_or_else(|| call.fail("an operand that should be a scalar is empty"))
}

/// Conversion between element types by the rules of the op table.
pub(crate) fn cast(x: &TensorData, to: DType) -> Result<TensorData> {
    let from = x.dtype();
    if from == to {
        return Ok(x.clone());
    }
    match (from.is_float(), to.is_float()) {
        (true, _) => from_floats(to, x.shape(), &floats(x)),
        (false, false) => from_ints(to, x.shape(), &ints(x)),
        (false, true) if to == DType::F64 => from_floats(to, x.shape(), &floats(x)),
        (false, true) => {
            let wide = |v: i64| if from == DType::U64 { i128::from(v as u64) } else { i128::from(v) };
            let values: Vec<f64> = ints(x).into_iter().map(|v| int_to_odd_f64(wide(v))).collect();
            from_floats(to, x.shape(), &values)
        }
    }
}

/// The same bits as another type of the same width; for `bool`, every byte but 0 reads as true.
pub(crate) fn bit_cast(x: &TensorData, to: DType) -> Result<TensorData> {
    let mut bytes = x.bytes().to_vec();
    if to == DType::Bool {
        bytes.iter_mut().for_each(|b| *b = u8::from(*b != 0));
    }
    from_bytes(to, x.shape(), bytes)
}
