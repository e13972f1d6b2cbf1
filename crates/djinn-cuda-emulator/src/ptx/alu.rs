//! Arithmetic of registers: every PTX instruction that only computes, as a function of words.

use super::convert;
use super::number::{Float, Int, extreme};
use half::{bf16, f16};
use std::sync::Arc;

/// The values of a register in the lanes of a warp.
pub(crate) type Row = [u64; 32];

/// What an instruction does with registers (destination, operands) in the lanes of a mask.
pub(crate) type Alu = Arc<dyn Fn(&mut [Row], u32, [u32; 5]) + Send + Sync>;

fn lanes(registers: &mut [Row], mask: u32, to: u32, f: impl Fn(&[Row], usize) -> u64) {
    let mut out = registers[to as usize];
    if mask == u32::MAX {
        for (lane, word) in out.iter_mut().enumerate() {
            *word = f(registers, lane);
        }
    } else {
        let mut left = mask;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            out[lane] = f(registers, lane);
            left &= left - 1;
        }
    }
    registers[to as usize] = out;
}

pub(crate) fn one(f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Alu {
    Arc::new(move |registers, mask, [d, a, ..]| {
        lanes(registers, mask, d, |r, l| f(r[a as usize][l]));
    })
}

pub(crate) fn two(f: impl Fn(u64, u64) -> u64 + Send + Sync + 'static) -> Alu {
    Arc::new(move |registers, mask, [d, a, b, ..]| {
        lanes(registers, mask, d, |r, l| f(r[a as usize][l], r[b as usize][l]));
    })
}

pub(crate) fn three(f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> Alu {
    Arc::new(move |registers, mask, [d, a, b, c, _]| {
        lanes(registers, mask, d, |r, l| f(r[a as usize][l], r[b as usize][l], r[c as usize][l]));
    })
}

pub(crate) fn four(f: impl Fn(u64, u64, u64, u64) -> u64 + Send + Sync + 'static) -> Alu {
    Arc::new(move |registers, mask, [d, a, b, c, e]| {
        lanes(registers, mask, d, |r, l| {
            f(r[a as usize][l], r[b as usize][l], r[c as usize][l], r[e as usize][l])
        });
    })
}

/// `$body` with `$T` as the integer type of that name.
macro_rules! by_int {
    ($name:expr, $T:ident => $body:expr) => {
        match $name {
            "u8" | "b8" => {
                type $T = u8;
                Some($body)
            }
            "s8" => {
                type $T = i8;
                Some($body)
            }
            "u16" | "b16" => {
                type $T = u16;
                Some($body)
            }
            "s16" => {
                type $T = i16;
                Some($body)
            }
            "u32" | "b32" => {
                type $T = u32;
                Some($body)
            }
            "s32" => {
                type $T = i32;
                Some($body)
            }
            "u64" | "b64" => {
                type $T = u64;
                Some($body)
            }
            "s64" => {
                type $T = i64;
                Some($body)
            }
            _ => None,
        }
    };
}
pub(crate) use by_int;

/// `$body` with `$T` as the float type of that name.
macro_rules! by_float {
    ($name:expr, $T:ident => $body:expr) => {
        match $name {
            "f16" => {
                type $T = f16;
                Some($body)
            }
            "bf16" => {
                type $T = bf16;
                Some($body)
            }
            "f32" => {
                type $T = f32;
                Some($body)
            }
            "f64" => {
                type $T = f64;
                Some($body)
            }
            _ => None,
        }
    };
}
pub(crate) use by_float;

/// The same function on both halves of a packed word.
fn packed(inner: &Scalar) -> Option<Scalar> {
    Some(match inner.clone() {
        Scalar::One(f) => Scalar::One(Arc::new(move |a| f(a & 0xffff) | f(a >> 16 & 0xffff) << 16)),
        Scalar::Two(f) => Scalar::Two(Arc::new(move |a, b| {
            f(a & 0xffff, b & 0xffff) | f(a >> 16 & 0xffff, b >> 16 & 0xffff) << 16
        })),
        Scalar::Three(f) => Scalar::Three(Arc::new(move |a, b, c| {
            f(a & 0xffff, b & 0xffff, c & 0xffff)
                | f(a >> 16 & 0xffff, b >> 16 & 0xffff, c >> 16 & 0xffff) << 16
        })),
    })
}

/// A function of words that is not inlined into a loop over lanes.
#[derive(Clone)]
enum Scalar {
    One(Arc<dyn Fn(u64) -> u64 + Send + Sync>),
    Two(Arc<dyn Fn(u64, u64) -> u64 + Send + Sync>),
    Three(Arc<dyn Fn(u64, u64, u64) -> u64 + Send + Sync>),
}

/// The instruction of these dot-separated parts, or `None` if it is not known.
pub(crate) fn alu(parts: &[&str]) -> Option<Alu> {
    let (name, mods) = parts.split_first()?;
    let ty = *mods.last()?;
    let mods = &mods[..mods.len() - 1];
    if let Some(element) = ty.strip_suffix("x2") {
        return packed_alu(name, mods, element);
    }
    if ty == "pred" {
        return predicate(name, mods);
    }
    match by_float!(ty, T => float::<T>(name, mods)) {
        Some(found) => found.or_else(|| common(name, mods, ty)),
        None => integer(name, mods, ty).or_else(|| common(name, mods, ty)),
    }
}

fn packed_alu(name: &str, mods: &[&str], element: &str) -> Option<Alu> {
    let nan = mods.contains(&"NaN");
    let known = |m: &&str| matches!(*m, "rn" | "NaN");
    if !mods.iter().all(known) {
        return None;
    }
    let scalar: Scalar = by_float!(element, T => match name {
        "add" => Scalar::Two(Arc::new(|a, b| T::of(a).add(T::of(b)).put())),
        "sub" => Scalar::Two(Arc::new(|a, b| T::of(a).sub(T::of(b)).put())),
        "mul" => Scalar::Two(Arc::new(|a, b| T::of(a).mul(T::of(b)).put())),
        "min" => Scalar::Two(Arc::new(move |a, b| extreme(T::of(a), T::of(b), false, nan).put())),
        "max" => Scalar::Two(Arc::new(move |a, b| extreme(T::of(a), T::of(b), true, nan).put())),
        "fma" => Scalar::Three(Arc::new(|a, b, c| T::of(a).fma(T::of(b), T::of(c)).put())),
        "neg" => Scalar::One(Arc::new(|a| a ^ 0x8000)),
        "abs" => Scalar::One(Arc::new(|a| a & 0x7fff)),
        _ => return None,
    })?;
    Some(match packed(&scalar)? {
        Scalar::One(f) => one(move |a| f(a)),
        Scalar::Two(f) => two(move |a, b| f(a, b)),
        Scalar::Three(f) => three(move |a, b, c| f(a, b, c)),
    })
}

fn predicate(name: &str, mods: &[&str]) -> Option<Alu> {
    if !mods.is_empty() {
        return None;
    }
    Some(match name {
        "and" => two(|a, b| a & b),
        "or" => two(|a, b| a | b),
        "xor" => two(|a, b| a ^ b),
        "not" => one(|a| a ^ 1),
        "mov" => one(|a| a & 1),
        _ => return None,
    })
}

/// What does not look into the bits: moves and selections.
fn common(name: &str, mods: &[&str], ty: &str) -> Option<Alu> {
    let mask = match super::parse::bits(ty)? {
        64 => u64::MAX,
        bits => (1 << bits) - 1,
    };
    match (name, mods) {
        ("mov", []) => Some(one(move |a| a & mask)),
        ("selp", []) => Some(three(move |a, b, p| if p & 1 == 1 { a & mask } else { b & mask })),
        _ => None,
    }
}

/// Whether the modifiers are among those that change nothing here: results are exact or rounded to nearest.
fn plain(mods: &[&str], more: &[&str]) -> bool {
    mods.iter().all(|m| matches!(*m, "rn" | "approx" | "full" | "ftz" | "sat" | "NaN") || more.contains(m))
}

fn float<F: Float + 'static>(name: &str, mods: &[&str]) -> Option<Alu> {
    if !plain(mods, &["rni", "finite", "infinite", "number", "notanumber", "normal", "subnormal"]) {
        return None;
    }
    let (ftz, sat, nan) = (mods.contains(&"ftz"), mods.contains(&"sat"), mods.contains(&"NaN"));
    if !ftz && !sat {
        // The usual ones, without further steps in their loops.
        match name {
            "add" => return Some(two(|a, b| F::of(a).add(F::of(b)).put())),
            "sub" => return Some(two(|a, b| F::of(a).sub(F::of(b)).put())),
            "mul" => return Some(two(|a, b| F::of(a).mul(F::of(b)).put())),
            "fma" | "mad" => return Some(three(|a, b, c| F::of(a).fma(F::of(b), F::of(c)).put())),
            _ => {}
        }
    }
    let get = move |a: u64| if ftz { F::of(a).flush() } else { F::of(a) };
    let put = move |v: F| {
        let v = if ftz { v.flush() } else { v };
        if sat { convert::saturate(v).put() } else { v.put() }
    };
    let unary = |f: fn(f64) -> f64| Some(one(move |a| put(F::nearest(f(get(a).wide())))));
    match name {
        "add" => Some(two(move |a, b| put(get(a).add(get(b))))),
        "sub" => Some(two(move |a, b| put(get(a).sub(get(b))))),
        "mul" => Some(two(move |a, b| put(get(a).mul(get(b))))),
        "div" => Some(two(move |a, b| put(get(a).div(get(b))))),
        "fma" | "mad" => Some(three(move |a, b, c| put(get(a).fma(get(b), get(c))))),
        "min" => Some(two(move |a, b| put(extreme(get(a), get(b), false, nan)))),
        "max" => Some(two(move |a, b| put(extreme(get(a), get(b), true, nan)))),
        "neg" => unary(|x| -x),
        "abs" => unary(f64::abs),
        "sqrt" => unary(f64::sqrt),
        "rcp" => Some(one(move |a| put(F::nearest(1.0).div(get(a))))),
        "rsqrt" => unary(|x| 1.0 / x.sqrt()),
        "ex2" => unary(f64::exp2),
        "lg2" => unary(f64::log2),
        "sin" => unary(f64::sin),
        "cos" => unary(f64::cos),
        "tanh" => unary(f64::tanh),
        // The sign of the first, the magnitude of the second.
        "copysign" => Some(two(move |a, b| F::nearest(F::of(b).wide().copysign(F::of(a).wide())).put())),
        "testp" => testp::<F>(mods.first()?),
        _ => None,
    }
}

fn testp<F: Float + 'static>(property: &str) -> Option<Alu> {
    let zero_or_normal = |a: u64| F::of(a).flush().wide() == F::of(a).wide();
    Some(match property {
        "finite" => one(|a| u64::from(F::of(a).wide().is_finite())),
        "infinite" => one(|a| u64::from(F::of(a).wide().is_infinite())),
        "number" => one(|a| u64::from(!F::of(a).wide().is_nan())),
        "notanumber" => one(|a| u64::from(F::of(a).wide().is_nan())),
        "subnormal" => one(move |a| u64::from(!F::of(a).wide().is_nan() && !zero_or_normal(a))),
        "normal" => one(move |a| {
            let value = F::of(a).wide();
            u64::from(value.is_finite() && value != 0.0 && zero_or_normal(a))
        }),
        _ => return None,
    })
}

fn integer(name: &str, mods: &[&str], ty: &str) -> Option<Alu> {
    let kind = mods.first().copied().unwrap_or("");
    match name {
        "mul" | "mad" => return product(name == "mad", kind, ty).filter(|_| mods.len() == 1),
        "shf" => return funnel(mods, ty),
        "add" if kind == "sat" => {
            return by_int!(ty, T => two(|a, b| T::nearest(T::of(a).wide() + T::of(b).wide()).put()));
        }
        "sub" if kind == "sat" => {
            return by_int!(ty, T => two(|a, b| T::nearest(T::of(a).wide() - T::of(b).wide()).put()));
        }
        "bfind" if kind == "shiftamt" => {
            return by_int!(ty, T => one(|a| bfind(T::of(a).wide(), T::put(T::of(u64::MAX)).count_ones(), true)));
        }
        _ if !mods.is_empty() => return None,
        _ => {}
    }
    by_int!(ty, T => match name {
        "add" => two(|a, b| T::of(a).wrapping_add(T::of(b)).put()),
        "sub" => two(|a, b| T::of(a).wrapping_sub(T::of(b)).put()),
        "div" => two(|a, b| if T::of(b) == 0 { T::of(u64::MAX).put() } else { T::of(a).wrapping_div(T::of(b)).put() }),
        "rem" => two(|a, b| if T::of(b) == 0 { T::of(a).put() } else { T::of(a).wrapping_rem(T::of(b)).put() }),
        "min" => two(|a, b| T::of(a).min(T::of(b)).put()),
        "max" => two(|a, b| T::of(a).max(T::of(b)).put()),
        "neg" => one(|a| T::of(a.wrapping_neg()).put()),
        "abs" => one(|a| if T::of(a).wide() < 0 { T::of(a.wrapping_neg()).put() } else { T::of(a).put() }),
        "and" => two(|a, b| T::of(a & b).put()),
        "or" => two(|a, b| T::of(a | b).put()),
        "xor" => two(|a, b| T::of(a ^ b).put()),
        "not" => one(|a| T::of(!a).put()),
        "cnot" => one(|a| u64::from(T::of(a) == 0)),
        "shl" => two(|a, b| T::of(a).checked_shl(b as u32).unwrap_or(0).put()),
        "shr" => two(|a, b| {
            let all = T::of(a).wide() >> (b as u32).min(127);
            T::of(all as u64).put()
        }),
        "popc" => one(|a| u64::from(T::of(a).count_ones())),
        "clz" => one(|a| u64::from(T::of(a).leading_zeros())),
        "brev" => one(|a| T::of(a).reverse_bits().put()),
        "bfind" => one(|a| bfind(T::of(a).wide(), T::put(T::of(u64::MAX)).count_ones(), false)),
        "bfe" => three(|a, b, c| {
            let width = T::put(T::of(u64::MAX)).count_ones();
            let signed = T::nearest(-1).wide() < 0;
            T::of(bfe(T::of(a).put(), b as u32 & 0xff, c as u32 & 0xff, width, signed)).put()
        }),
        "bfi" => four(|a, b, c, d| {
            let width = T::put(T::of(u64::MAX)).count_ones();
            let (at, len) = (c as u32 & 0xff, d as u32 & 0xff);
            let ones = if len >= 64 { u64::MAX } else { (1u64 << len) - 1 };
            let field = if at >= width { 0 } else { ones << at };
            T::of(b & !field | if at >= width { 0 } else { a << at } & field).put()
        }),
        "sad" => three(|a, b, c| T::of((T::of(a).wide() - T::of(b).wide()).unsigned_abs() as u64).wrapping_add(T::of(c)).put()),
        "lop3" => four(|a, b, c, table| {
            let mut out = 0;
            for row in 0..8u64 {
                if table >> row & 1 == 1 {
                    let pick = |v: u64, bit: u64| if row >> bit & 1 == 1 { v } else { !v };
                    out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
                }
            }
            T::of(out).put()
        }),
        "prmt" => three(prmt),
        _ => return None,
    })
}

fn prmt(a: u64, b: u64, selector: u64) -> u64 {
    let bytes = a & 0xffff_ffff | b << 32;
    let byte = |n: u64| {
        let select = selector >> (4 * n) & 0xf;
        let value = bytes >> (8 * (select & 7)) & 0xff;
        if select & 8 == 0 { value } else { 0xff * (value >> 7) }
    };
    byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
}

fn bfind(value: i128, width: u32, distance: bool) -> u64 {
    let value = if value < 0 { !value } else { value };
    if value == 0 {
        return 0xffff_ffff;
    }
    let at = 127 - value.leading_zeros();
    u64::from(if distance { width - 1 - at } else { at })
}

/// PTX ISA, "bfe": the sign bit of a field that reaches beyond the word is the word's.
fn bfe(a: u64, at: u32, len: u32, width: u32, signed: bool) -> u64 {
    let bit = |n: u32| if n < 64 { a >> n & 1 } else { 0 };
    let sign = if signed && len > 0 { bit((at + len - 1).min(width - 1)) } else { 0 };
    let mut out = 0;
    for n in 0..width {
        let value = if n < len && at + n < width { bit(at + n) } else { sign };
        out |= value << n;
    }
    out
}

fn product(add: bool, kind: &str, ty: &str) -> Option<Alu> {
    if kind == "lo" {
        return by_int!(ty, T => if add {
            three(|a, b, c| T::of(a).wrapping_mul(T::of(b)).wrapping_add(T::of(c)).put())
        } else {
            two(|a, b| T::of(a).wrapping_mul(T::of(b)).put())
        });
    }
    let wide = match ty {
        "u16" | "s16" => u64::from(u32::MAX),
        "u32" | "s32" => u64::MAX,
        _ => 0,
    };
    match kind {
        "hi" => by_int!(ty, T => {
            let high = |a, b| {
                let width = T::put(T::of(u64::MAX)).count_ones();
                let product = if width == 64 && T::nearest(-1).wide() == 0 {
                    (u128::from(a) * u128::from(b)) as i128
                } else {
                    T::of(a).wide() * T::of(b).wide()
                };
                T::of((product >> width) as u64)
            };
            if add {
                three(move |a, b, c| high(a, b).wrapping_add(T::of(c)).put())
            } else {
                two(move |a, b| high(a, b).put())
            }
        }),
        "wide" if wide != 0 => by_int!(ty, T => {
            let full = |a, b| (T::of(a).wide() as i64 as u64).wrapping_mul(T::of(b).wide() as i64 as u64);
            if add {
                three(move |a, b, c| full(a, b).wrapping_add(c) & wide)
            } else {
                two(move |a, b| full(a, b) & wide)
            }
        }),
        _ => None,
    }
}

fn funnel(mods: &[&str], ty: &str) -> Option<Alu> {
    let shift = |wrap: bool| move |n: u64| if wrap { n as u32 & 31 } else { (n as u32).min(32) };
    let joined = |a: u64, b: u64| a & 0xffff_ffff | b << 32;
    match (mods, ty) {
        (["l", mode @ ("wrap" | "clamp")], "b32") => {
            let n = shift(*mode == "wrap");
            Some(three(move |a, b, c| (joined(a, b) << n(c)) >> 32))
        }
        (["r", mode @ ("wrap" | "clamp")], "b32") => {
            let n = shift(*mode == "wrap");
            Some(three(move |a, b, c| (joined(a, b) >> n(c)) & 0xffff_ffff))
        }
        _ => None,
    }
}

/// The comparison of these names, as a function of two words.
pub(crate) fn comparison(name: &str, ty: &str, ftz: bool) -> Option<fn(u64, u64) -> bool> {
    if let Some(found) = by_float!(ty, T => float_comparison::<T>(name, ftz)) {
        return found;
    }
    if ty == "pred" {
        return None;
    }
    by_int!(ty, T => {
        let f: fn(u64, u64) -> bool = match name {
            "eq" => |a, b| T::of(a) == T::of(b),
            "ne" => |a, b| T::of(a) != T::of(b),
            "lt" | "lo" => |a, b| T::of(a) < T::of(b),
            "le" | "ls" => |a, b| T::of(a) <= T::of(b),
            "gt" | "hi" => |a, b| T::of(a) > T::of(b),
            "ge" | "hs" => |a, b| T::of(a) >= T::of(b),
            _ => return None,
        };
        f
    })
}

fn float_comparison<F: Float>(name: &str, ftz: bool) -> Option<fn(u64, u64) -> bool> {
    fn of<F: Float>(a: u64, b: u64) -> Option<std::cmp::Ordering> {
        F::of(a).wide().partial_cmp(&F::of(b).wide())
    }
    if ftz {
        return None;
    }
    use std::cmp::Ordering::{Equal, Greater, Less};
    Some(match name {
        "eq" => |a, b| of::<F>(a, b) == Some(Equal),
        "ne" => |a, b| matches!(of::<F>(a, b), Some(Less | Greater)),
        "lt" => |a, b| of::<F>(a, b) == Some(Less),
        "le" => |a, b| matches!(of::<F>(a, b), Some(Less | Equal)),
        "gt" => |a, b| of::<F>(a, b) == Some(Greater),
        "ge" => |a, b| matches!(of::<F>(a, b), Some(Greater | Equal)),
        "equ" => |a, b| matches!(of::<F>(a, b), None | Some(Equal)),
        "neu" => |a, b| of::<F>(a, b) != Some(Equal),
        "ltu" => |a, b| matches!(of::<F>(a, b), None | Some(Less)),
        "leu" => |a, b| of::<F>(a, b) != Some(Greater),
        "gtu" => |a, b| matches!(of::<F>(a, b), None | Some(Greater)),
        "geu" => |a, b| of::<F>(a, b) != Some(Less),
        "num" => |a, b| of::<F>(a, b).is_some(),
        "nan" => |a, b| of::<F>(a, b).is_none(),
        _ => return None,
    })
}
