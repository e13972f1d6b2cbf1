//! Elementwise operations on scalar expressions, by the rules of the op table.

use crate::dag::{Bin, Cmp, Conv, Dag, Id, Ty, Un};
use crate::math::Math;
use djinn_diag::{Result, unsupported};
use djinn_ir::{Attrs, DType, OpKind};

/// Instructions of an expansion of a function.
const FUNCTION_COST: u32 = 24;

/// Instructions per element of an elementwise operation, roughly.
pub(crate) fn cost(kind: OpKind) -> u32 {
    use OpKind as K;
    match kind {
        K::Exp | K::Log | K::Sin | K::Cos | K::Tanh | K::Erf | K::Sigmoid | K::Silu | K::Gelu | K::Pow => {
            FUNCTION_COST
        }
        K::Tan | K::Asin | K::Acos | K::Atan | K::Sinh | K::Cosh | K::Asinh | K::Acosh | K::Atanh => {
            3 * FUNCTION_COST
        }
        K::Softplus | K::Elu | K::Mish => 3 * FUNCTION_COST,
        K::Div | K::Mod | K::Sqrt | K::Rsqrt | K::Reciprocal => 6,
        _ => 1,
    }
}

/// A value rounded to its element type.
pub(crate) fn round(dag: &mut Dag, dtype: DType, value: Id) -> Id {
    match dtype {
        DType::F16 | DType::BF16 => dag.un(Un::Round(dtype), value),
        _ => value,
    }
}

/// An operation of one operand of type `dtype`; the result is not yet rounded.
pub(crate) fn unary(dag: &mut Dag, kind: OpKind, attrs: &Attrs, dtype: DType, x: Id) -> Result<Id> {
    use OpKind as K;
    if dtype.is_float() || matches!(kind, K::IsNan | K::IsInf) {
        return float_unary(dag, kind, attrs, x);
    }
    let ty = dag.ty(x);
    let zero = dag.int(ty, 0);
    let unsigned = !dtype.is_signed();
    Ok(match kind {
        K::Abs | K::Relu | K::Neg | K::Sign if dtype == DType::Bool && kind != K::Neg => x,
        K::Abs | K::Relu if unsigned => x,
        K::Abs => {
            let minus = dag.bin(Bin::Sub, zero, x);
            let negative = dag.cmp(Cmp::SLt, x, zero);
            dag.select(negative, minus, x)
        }
        K::Relu => dag.bin(Bin::MaxS, x, zero),
        K::Neg => dag.bin(Bin::Sub, zero, x),
        K::Sign => {
            let (one, minus) = (dag.int(ty, 1), dag.int(ty, -1));
            let nonzero = dag.cmp(Cmp::Ne, x, zero);
            let magnitude = dag.select(nonzero, one, zero);
            if unsigned {
                magnitude
            } else {
                let negative = dag.cmp(Cmp::SLt, x, zero);
                dag.select(negative, minus, magnitude)
            }
        }
        K::Not if dtype == DType::Bool => dag.not(x),
        K::Not => {
            let ones = dag.int(ty, -1);
            dag.bin(Bin::Xor, x, ones)
        }
        _ => return Err(unknown(kind)),
    })
}

fn unknown(kind: OpKind) -> Box<djinn_diag::Diagnostic> {
    unsupported("kernel.op", format!("'{}' has no kernel for this element type", kind.name()))
}

#[allow(clippy::too_many_lines, reason = "one arm per function")]
fn float_unary(dag: &mut Dag, kind: OpKind, attrs: &Attrs, x: Id) -> Result<Id> {
    use OpKind as K;
    let ty = dag.ty(x);
    let mut m = Math { dag, ty };
    let (zero, one) = (m.c(0.0), m.c(1.0));
    Ok(match kind {
        K::Abs => m.abs(x),
        K::Neg => m.dag.un(Un::NegF, x),
        K::Sign => {
            let unit = m.dag.bin(Bin::CopySign, one, x);
            let is_zero = m.dag.cmp(Cmp::FEq, x, zero);
            let y = m.dag.select(is_zero, zero, unit);
            let nan = m.dag.cmp(Cmp::FNan, x, x);
            m.dag.select(nan, x, y)
        }
        K::Relu => m.dag.bin(Bin::MaxF, x, zero),
        K::Exp => m.exp(x),
        K::Log => m.log(x),
        K::Sqrt => m.dag.un(Un::Sqrt, x),
        K::Rsqrt => {
            let root = m.dag.un(Un::Sqrt, x);
            m.div(one, root)
        }
        K::Reciprocal => m.div(one, x),
        K::Sin => m.sine(x, 0),
        K::Cos => m.sine(x, 1),
        K::Tan => m.in_f64(x, |m, x| {
            let (s, c) = (m.sine(x, 0), m.sine(x, 1));
            m.div(s, c)
        }),
        K::Atan => m.in_f64(x, |m, x| m.atan(x)),
        K::Asin => m.in_f64(x, asin),
        K::Acos => m.in_f64(x, |m, x| {
            let s = asin(m, x);
            let quarter = m.c(std::f64::consts::FRAC_PI_2);
            m.sub(quarter, s)
        }),
        K::Sinh => m.in_f64(x, |m, x| {
            // ½(t + t/(t + 1)) with t = e^|x| − 1.
            let a = m.abs(x);
            let t = m.expm1(a);
            let (one, half, big) = (m.c(1.0), m.c(0.5), m.c(700.0));
            let below = m.add(t, one);
            let part = m.div(t, below);
            let sum = m.add(t, part);
            let y = m.mul(sum, half);
            let large = m.less(big, a);
            let whole = m.mul(t, half);
            let y = m.dag.select(large, whole, y);
            m.dag.bin(Bin::CopySign, y, x)
        }),
        K::Cosh => m.in_f64(x, |m, x| {
            let a = m.abs(x);
            let e = m.exp(a);
            let (one, half) = (m.c(1.0), m.c(0.5));
            let inverse = m.div(one, e);
            let sum = m.add(e, inverse);
            m.mul(sum, half)
        }),
        K::Asinh => m.in_f64(x, |m, x| {
            // log1p(a + a²/(1 + √(a² + 1))) with a = |x|.
            let a = m.abs(x);
            let one = m.c(1.0);
            let square = m.mul(a, a);
            let sum = m.add(square, one);
            let root = m.dag.un(Un::Sqrt, sum);
            let below = m.add(root, one);
            let part = m.div(square, below);
            let inner = m.add(a, part);
            let y = m.log1p(inner);
            m.dag.bin(Bin::CopySign, y, x)
        }),
        K::Acosh => m.in_f64(x, |m, x| {
            // log1p(t + √(2t + t²)) with t = x − 1.
            let (one, two) = (m.c(1.0), m.c(2.0));
            let t = m.sub(x, one);
            let inner = m.add(t, two);
            let inner = m.mul(inner, t);
            let root = m.dag.un(Un::Sqrt, inner);
            let sum = m.add(t, root);
            m.log1p(sum)
        }),
        K::Atanh => m.in_f64(x, |m, x| {
            // ½·log1p(2x/(1 − x)) for |x|.
            let a = m.abs(x);
            let (one, two, half) = (m.c(1.0), m.c(2.0), m.c(0.5));
            let twice = m.mul(a, two);
            let below = m.sub(one, a);
            let quotient = m.div(twice, below);
            let l = m.log1p(quotient);
            let y = m.mul(l, half);
            m.dag.bin(Bin::CopySign, y, x)
        }),
        K::Tanh => m.tanh(x),
        K::Erf => m.erf(x),
        K::Sigmoid => m.sigmoid(x),
        K::Softplus => m.softplus(x),
        K::LeakyRelu => {
            let alpha = m.c(attrs.float("alpha"));
            let scaled = m.mul(x, alpha);
            let positive = m.dag.cmp(Cmp::FGe, x, zero);
            m.dag.select(positive, x, scaled)
        }
        K::Elu => {
            let alpha = m.c(attrs.float("alpha"));
            let e = m.in_f64(x, |m, x| m.expm1(x));
            let scaled = m.mul(e, alpha);
            let positive = m.dag.cmp(Cmp::FGe, x, zero);
            m.dag.select(positive, x, scaled)
        }
        K::Silu => {
            let s = m.sigmoid(x);
            m.mul(x, s)
        }
        K::Gelu => gelu(&mut m, x, attrs.str("approximate")),
        K::HardSigmoid => {
            let (alpha, beta) = (m.c(attrs.float("alpha")), m.c(attrs.float("beta")));
            let scaled = m.mul(x, alpha);
            let moved = m.add(scaled, beta);
            let below = m.dag.bin(Bin::MinF, moved, one);
            m.dag.bin(Bin::MaxF, below, zero)
        }
        K::HardSwish => {
            let (six, half) = (m.c(6.0), m.c(0.5));
            let scaled = m.div(x, six);
            let moved = m.add(scaled, half);
            let below = m.dag.bin(Bin::MinF, moved, one);
            let gate = m.dag.bin(Bin::MaxF, below, zero);
            m.mul(x, gate)
        }
        K::Mish => {
            let s = m.softplus(x);
            let t = m.tanh(s);
            m.mul(x, t)
        }
        K::Floor => m.dag.un(Un::Floor, x),
        K::Ceil => m.dag.un(Un::Ceil, x),
        K::Round => m.dag.un(Un::RoundEven, x),
        K::IsNan => m.dag.cmp(Cmp::FNan, x, x),
        K::IsInf => {
            let (low, high) = (m.c(f64::NEG_INFINITY), m.c(f64::INFINITY));
            let (low, high) = (m.dag.cmp(Cmp::FEq, x, low), m.dag.cmp(Cmp::FEq, x, high));
            match (attrs.bool("negative"), attrs.bool("positive")) {
                (true, true) => m.dag.bin(Bin::Or, low, high),
                (true, false) => low,
                (false, true) => high,
                (false, false) => m.dag.bool(false),
            }
        }
        _ => return Err(unknown(kind)),
    })
}

/// atan(x/√((1 − x)(1 + x))).
fn asin(m: &mut Math, x: Id) -> Id {
    let one = m.c(1.0);
    let (below, above) = (m.sub(one, x), m.add(one, x));
    let product = m.mul(below, above);
    let root = m.dag.un(Un::Sqrt, product);
    let quotient = m.div(x, root);
    m.atan(quotient)
}

fn gelu(m: &mut Math, x: Id, approximate: &str) -> Id {
    let (half, one) = (m.c(0.5), m.c(1.0));
    let inner = if approximate == "tanh" {
        let (factor, cubic) = (m.c((2.0 / std::f64::consts::PI).sqrt()), m.c(0.044715));
        let square = m.mul(x, x);
        let cube = m.mul(square, x);
        let part = m.mul(cube, cubic);
        let sum = m.add(x, part);
        let inner = m.mul(sum, factor);
        m.tanh(inner)
    } else {
        let root = m.c(std::f64::consts::FRAC_1_SQRT_2);
        let scaled = m.mul(x, root);
        m.erf(scaled)
    };
    let sum = m.add(inner, one);
    let halved = m.mul(x, half);
    m.mul(halved, sum)
}

/// An operation of two operands of one type; the result is not yet rounded.
pub(crate) fn binary(dag: &mut Dag, kind: OpKind, attrs: &Attrs, dtype: DType, a: Id, b: Id) -> Result<Id> {
    use OpKind as K;
    let float = dtype.is_float();
    let unsigned = !dtype.is_signed();
    let op = match kind {
        K::Add if float => Bin::AddF,
        K::Sub if float => Bin::SubF,
        K::Mul if float => Bin::MulF,
        K::Div if float => Bin::DivF,
        K::Max if float => Bin::MaxF,
        K::Min if float => Bin::MinF,
        K::Mod if float => return Ok(float_mod(dag, attrs.bool("fmod"), a, b)),
        K::Add => Bin::Add,
        K::Sub => Bin::Sub,
        K::Mul => Bin::Mul,
        K::Max if unsigned => Bin::MaxU,
        K::Max => Bin::MaxS,
        K::Min if unsigned => Bin::MinU,
        K::Min => Bin::MinS,
        K::Div => return Ok(divide(dag, unsigned, a, b).0),
        K::Mod => return Ok(int_mod(dag, unsigned, attrs.bool("fmod"), a, b)),
        K::And => Bin::And,
        K::Or => Bin::Or,
        K::Xor => Bin::Xor,
        K::Shl | K::Shr => return Ok(shift(dag, kind == K::Shl, unsigned, a, b)),
        _ => return Err(unknown(kind)),
    };
    Ok(dag.bin(op, a, b))
}

/// Quotient and remainder; both 0 for division by zero, and the smallest number by −1 wraps.
fn divide(dag: &mut Dag, unsigned: bool, a: Id, b: Id) -> (Id, Id) {
    let ty = dag.ty(a);
    let (zero, one) = (dag.int(ty, 0), dag.int(ty, 1));
    let by_zero = dag.cmp(Cmp::Eq, b, zero);
    if unsigned {
        let safe = dag.select(by_zero, one, b);
        let (q, r) = (dag.bin(Bin::DivU, a, safe), dag.bin(Bin::RemU, a, safe));
        return (dag.select(by_zero, zero, q), dag.select(by_zero, zero, r));
    }
    let minus_one = dag.int(ty, -1);
    let negates = dag.cmp(Cmp::Eq, b, minus_one);
    let special = dag.bin(Bin::Or, by_zero, negates);
    let safe = dag.select(special, one, b);
    let (q, r) = (dag.bin(Bin::DivS, a, safe), dag.bin(Bin::RemS, a, safe));
    let minus = dag.bin(Bin::Sub, zero, a);
    let q = dag.select(negates, minus, q);
    (dag.select(by_zero, zero, q), dag.select(special, zero, r))
}

fn int_mod(dag: &mut Dag, unsigned: bool, sign_of_a: bool, a: Id, b: Id) -> Id {
    let r = divide(dag, unsigned, a, b).1;
    if unsigned || sign_of_a {
        return r;
    }
    let ty = dag.ty(a);
    let zero = dag.int(ty, 0);
    let mixed = dag.bin(Bin::Xor, r, b);
    let differ = dag.cmp(Cmp::SLt, mixed, zero);
    let nonzero = dag.cmp(Cmp::Ne, r, zero);
    let moves = dag.bin(Bin::And, differ, nonzero);
    let moved = dag.bin(Bin::Add, r, b);
    dag.select(moves, moved, r)
}

fn float_mod(dag: &mut Dag, sign_of_a: bool, a: Id, b: Id) -> Id {
    let r = dag.bin(Bin::RemF, a, b);
    if sign_of_a {
        return r;
    }
    let ty = dag.ty(a);
    let zero = dag.float(ty, 0.0);
    let (low_r, low_b) = (dag.cmp(Cmp::FLt, r, zero), dag.cmp(Cmp::FLt, b, zero));
    let differ = dag.bin(Bin::Xor, low_r, low_b);
    let moved = dag.bin(Bin::AddF, r, b);
    let y = dag.select(differ, moved, r);
    let is_zero = dag.cmp(Cmp::FEq, r, zero);
    let signed = dag.bin(Bin::CopySign, zero, b);
    dag.select(is_zero, signed, y)
}

fn shift(dag: &mut Dag, left: bool, unsigned: bool, a: Id, b: Id) -> Id {
    let ty = dag.ty(a);
    let (zero, width) = (dag.int(ty, 0), dag.int(ty, i64::from(ty.bits())));
    let inside = dag.cmp(Cmp::ULt, b, width);
    let by = dag.select(inside, b, zero);
    if left {
        let y = dag.bin(Bin::Shl, a, by);
        return dag.select(inside, y, zero);
    }
    if unsigned {
        let y = dag.bin(Bin::ShrU, a, by);
        return dag.select(inside, y, zero);
    }
    let last = dag.int(ty, i64::from(ty.bits()) - 1);
    let by = dag.select(inside, b, last);
    dag.bin(Bin::ShrS, a, by)
}

/// Comparison by a word of the op table.
pub(crate) fn compare(dag: &mut Dag, predicate: &str, dtype: DType, a: Id, b: Id) -> Result<Id> {
    let kind = if dtype.is_float() { 0 } else { 1 + usize::from(!dtype.is_signed()) };
    let op = match predicate {
        "eq" => [Cmp::FEq, Cmp::Eq, Cmp::Eq][kind],
        "ne" => [Cmp::FNe, Cmp::Ne, Cmp::Ne][kind],
        "lt" => [Cmp::FLt, Cmp::SLt, Cmp::ULt][kind],
        "le" => [Cmp::FLe, Cmp::SLe, Cmp::ULe][kind],
        "gt" => [Cmp::FGt, Cmp::SGt, Cmp::UGt][kind],
        "ge" => [Cmp::FGe, Cmp::SGe, Cmp::UGe][kind],
        _ => return Err(unknown(OpKind::Compare)),
    };
    Ok(dag.cmp(op, a, b))
}

/// a to the b, rounded to nothing yet.
pub(crate) fn pow(dag: &mut Dag, (a_type, a): (DType, Id), (b_type, b): (DType, Id)) -> Result<Id> {
    if !a_type.is_float() {
        let Some(exponent) = dag.as_int(b).filter(|e| (0..=64).contains(e)) else {
            return Err(unsupported("kernel.op", "an integer power needs a small constant exponent"));
        };
        if b_type.is_float() {
            return Err(unknown(OpKind::Pow));
        }
        let ty = dag.ty(a);
        let mut y = dag.int(ty, 1);
        for _ in 0..exponent {
            y = dag.bin(Bin::Mul, y, a);
        }
        return Ok(y);
    }
    let ty = dag.ty(a);
    let known = dag.as_float(b).or_else(|| dag.as_int(b).map(|v| v as f64));
    let mut m = Math { dag, ty };
    match known {
        Some(1.0) => return Ok(a),
        Some(2.0) => return Ok(m.dag.bin(Bin::MulF, a, a)),
        Some(3.0) => {
            let square = m.dag.bin(Bin::MulF, a, a);
            return Ok(m.dag.bin(Bin::MulF, square, a));
        }
        Some(-1.0) => {
            let one = m.c(1.0);
            return Ok(m.div(one, a));
        }
        _ => {}
    }
    let b = cast(m.dag, b, b_type, if ty == Ty::F64 { DType::F64 } else { DType::F32 });
    let wide_b = if ty == Ty::F64 { b } else { m.dag.conv(Conv::Widen, Ty::F64, b) };
    Ok(m.in_f64(a, |m, a| m.pow(a, wide_b)))
}

/// Conversion between element types.
pub(crate) fn cast(dag: &mut Dag, x: Id, from: DType, to: DType) -> Id {
    if from == to {
        return x;
    }
    let (have, want) = (Ty::of(from), Ty::of(to));
    match (from.is_float(), to.is_float()) {
        (true, true) => {
            let y = match (have, want) {
                (Ty::F64, Ty::F32) => dag.conv(Conv::Narrow, Ty::F32, x),
                (Ty::F32, Ty::F64) => dag.conv(Conv::Widen, Ty::F64, x),
                _ => x,
            };
            round(dag, to, y)
        }
        (false, true) => {
            let op = if from.is_signed() { Conv::SignedToFloat } else { Conv::UnsignedToFloat };
            let y = dag.conv(op, want, x);
            round(dag, to, y)
        }
        (false, false) => int_cast(dag, x, from, to),
        (true, false) => float_to_int(dag, x, to),
    }
}

fn int_cast(dag: &mut Dag, x: Id, from: DType, to: DType) -> Id {
    let (have, want) = (Ty::of(from), Ty::of(to));
    if to == DType::Bool {
        let zero = dag.int(have, 0);
        return dag.cmp(Cmp::Ne, x, zero);
    }
    match have.bits().cmp(&want.bits()) {
        std::cmp::Ordering::Less if from.is_signed() => dag.conv(Conv::SignExtend, want, x),
        std::cmp::Ordering::Less => dag.conv(Conv::ZeroExtend, want, x),
        std::cmp::Ordering::Equal => x,
        std::cmp::Ordering::Greater => dag.conv(Conv::Truncate, want, x),
    }
}

/// Truncates towards zero and saturates; NaN gives 0.
fn float_to_int(dag: &mut Dag, x: Id, to: DType) -> Id {
    let ty = dag.ty(x);
    let zero = dag.float(ty, 0.0);
    if to == DType::Bool {
        return dag.cmp(Cmp::FNe, x, zero);
    }
    let want = Ty::of(to);
    let bits = 8 * to.size() as i32;
    let wide = if bits == 64 || to == DType::U32 { Ty::I64 } else { Ty::I32 };
    let (lowest, limit) = match (to.is_signed(), bits) {
        (true, _) => (-(2f64.powi(bits - 1)), 2f64.powi(bits - 1)),
        (false, _) => (0.0, 2f64.powi(bits)),
    };
    let (min, max) = match (to.is_signed(), bits) {
        (true, 64) => (i64::MIN, i64::MAX),
        (true, _) => (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1),
        (false, 64) => (0, -1),
        (false, _) => (0, (1i64 << bits) - 1),
    };
    let (lowest, limit) = (dag.float(ty, lowest), dag.float(ty, limit));
    let (low, high) = (dag.cmp(Cmp::FLt, x, lowest), dag.cmp(Cmp::FGe, x, limit));
    let nan = dag.cmp(Cmp::FNan, x, x);
    let outside = dag.bin(Bin::Or, low, high);
    let outside = dag.bin(Bin::Or, outside, nan);
    let safe = dag.select(outside, zero, x);
    let op = if to == DType::U64 { Conv::FloatToUnsigned } else { Conv::FloatToSigned };
    let y = dag.conv(op, wide, safe);
    let (min, max) = (dag.int(wide, min), dag.int(wide, max));
    let y = dag.select(low, min, y);
    let y = dag.select(high, max, y);
    if wide == want { y } else { dag.conv(Conv::Truncate, want, y) }
}
