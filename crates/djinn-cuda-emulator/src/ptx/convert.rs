//! Conversions between types of numbers (PTX ISA, "cvt").

use super::alu::{Alu, by_float, by_int, one, two};
use super::number::{Float, Int, round_directed, to_integral};
use half::{bf16, f16};

/// Between 0 and 1; 0 for NaN.
pub(crate) fn saturate<F: Float>(value: F) -> F {
    let wide = value.wide();
    if wide.is_nan() { F::nearest(0.0) } else { F::nearest(wide.clamp(0.0, 1.0)) }
}

/// The conversion of these parts (without `cvt`) into a register of so many bits.
pub(crate) fn conversion(mods: &[&str], register_bits: u32) -> Option<Alu> {
    let [mods @ .., to, from] = mods else { return None };
    if let Some(element) = to.strip_suffix("x2") {
        return pack(mods, element, from);
    }
    let is_float = |t: &str| matches!(t, "f16" | "bf16" | "f32" | "f64");
    let (mut mode, mut sat, mut ftz) = ("", false, false);
    for m in mods {
        match *m {
            "sat" => sat = true,
            "ftz" => ftz = true,
            "rn" | "rz" | "rm" | "rp" | "rni" | "rzi" | "rmi" | "rpi" if mode.is_empty() => mode = m,
            _ => return None,
        }
    }
    match (is_float(from), is_float(to)) {
        (false, false) if mode.is_empty() && !ftz => between_ints(to, from, sat, register_bits),
        (false, true) if mode == "rn" || mode.is_empty() => from_int(to, from, sat),
        (true, false) if mode.ends_with('i') => to_int(to, from, mode, ftz, register_bits),
        (true, true) => between_floats(to, from, mode, (sat, ftz)),
        _ => None,
    }
}

fn widen(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn between_ints(to: &str, from: &str, sat: bool, bits: u32) -> Option<Alu> {
    let mask = widen(bits);
    by_int!(from, S => by_int!(to, D => {
        if sat {
            one(move |a| D::nearest(S::of(a).wide()).wide() as u64 & mask)
        } else {
            one(move |a| D::of(S::of(a).wide() as u64).wide() as u64 & mask)
        }
    }))?
}

fn from_int(to: &str, from: &str, sat: bool) -> Option<Alu> {
    // Rust's conversions from integers round to nearest even; narrow floats take at most the f64's 53 bits.
    by_int!(from, S => match (to, sat) {
        ("f32", false) => Some(one(|a| (S::of(a) as f32).put())),
        ("f64", false) => Some(one(|a| (S::of(a) as f64).put())),
        ("f16", false) => Some(one(|a| f16::nearest(S::of(a) as f64).put())),
        ("bf16", false) => Some(one(|a| bf16::nearest(S::of(a) as f64).put())),
        _ => None,
    })?
}

/// A NaN gives zero, or the highest bit where a 64-bit type takes part (PTX ISA, "cvt").
fn to_int(to: &str, from: &str, mode: &str, ftz: bool, bits: u32) -> Option<Alu> {
    let mode = match mode {
        "rzi" => "rzi",
        "rmi" => "rmi",
        "rpi" => "rpi",
        _ => "rni",
    };
    let mask = widen(bits);
    let wide = from == "f64" || matches!(to, "s64" | "u64");
    by_float!(from, S => by_int!(to, D => one(move |a| {
        let value = if ftz { S::of(a).flush().wide() } else { S::of(a).wide() };
        if value.is_nan() {
            let width = D::put(D::of(u64::MAX)).count_ones();
            return if wide { D::of(1 << (width - 1)).wide() as u64 & mask } else { 0 };
        }
        D::nearest(to_integral(value, mode) as i128).wide() as u64 & mask
    })))?
}

fn between_floats(to: &str, from: &str, mode: &str, (sat, ftz): (bool, bool)) -> Option<Alu> {
    let mode = match mode {
        "rni" => "rni",
        "rzi" => "rzi",
        "rmi" => "rmi",
        "rpi" => "rpi",
        "rz" => "rz",
        "rm" => "rm",
        "rp" => "rp",
        _ => "rn",
    };
    by_float!(from, S => by_float!(to, D => one(move |a| {
        let value = if ftz { S::of(a).flush().wide() } else { S::of(a).wide() };
        let word = match mode {
            "rn" => D::nearest(value).put(),
            "rz" | "rm" | "rp" => round_directed::<D>(value, mode),
            _ => D::nearest(to_integral(value, mode)).put(),
        };
        let out = if ftz { D::of(word).flush() } else { D::of(word) };
        if sat { saturate(out).put() } else { out.put() }
    })))?
}

/// Two floats into one word, the first above.
fn pack(mods: &[&str], element: &str, from: &str) -> Option<Alu> {
    if from != "f32" || !matches!(mods, ["rn"]) {
        return None;
    }
    by_float!(element, T => two(|a, b| {
        T::nearest(f32::of(a).wide()).put() << 16 | T::nearest(f32::of(b).wide()).put()
    }))
}
