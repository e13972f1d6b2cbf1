//! Resize and Upsample.

use super::{Entry, row};
use crate::node::{Node, Outputs, one, size};
use djinn_diag::Result;
use djinn_ir::{Dim, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("Resize", 10, |n| upsample(n, 1)),
    row("Resize", 11, resize),
    row("Upsample", 7, |n| upsample(n, 1)),
];

/// Largest denominator of a scale of a symbolic size.
const MAX_DENOMINATOR: i64 = 4096;

/// What the coordinates are computed from.
struct Target {
    sizes: Vec<Dim>,
    scales: Vec<f64>,
}

/// Upsample and the first Resize: asymmetric coordinates, scales only.
fn upsample(n: &mut Node<'_, '_>, operand: usize) -> Result<Outputs> {
    let x = n.x(0)?;
    let scales = if n.version < 9 {
        n.attrs.floats("scales")?
    } else {
        let v = n.x(operand)?;
        n.numbers(v)
    };
    let scales =
        scales.ok_or_else(|| n.unsupported("the scales must be known when the model is compiled"))?;
    let axes: Vec<usize> = (0..n.rank(x)).collect();
    let target = scaled(n, x, &axes, &scales)?;
    let mode = mode(n)?;
    one(interpolate(n, x, target, &mode, "asymmetric", "floor")?)
}

fn mode(n: &Node<'_, '_>) -> Result<String> {
    Ok(match n.text("mode", "nearest")?.as_str() {
        "nearest" => "nearest",
        "linear" | "bilinear" => "linear",
        "cubic" => "cubic",
        other => return Err(n.invalid(format!("'{other}' is no interpolation mode"))),
    }
    .to_owned())
}

fn interpolate(
    n: &mut Node<'_, '_>,
    x: SrgValue,
    target: Target,
    mode: &str,
    coordinates: &str,
    nearest: &str,
) -> Result<SrgValue> {
    let a = attrs! {
        sizes: target.sizes,
        scales: target.scales,
        mode: mode,
        coordinates: coordinates,
        nearest: nearest,
        cubic_a: n.float("cubic_coeff_a", -0.75)?,
        exclude_outside: n.flag("exclude_outside", false)?,
    };
    n.op(K::Resize, &[x], a)
}

fn resize(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let rank = n.rank(x);
    if n.flag("antialias", false)? {
        return Err(n.unsupported("antialiasing is not supported"));
    }
    let coordinates = n.text("coordinate_transformation_mode", "half_pixel")?;
    let known = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"];
    if !known.contains(&coordinates.as_str()) {
        return Err(n.unsupported(&format!("coordinate mode '{coordinates}' is not supported")));
    }
    let axes: Vec<usize> = match n.attrs.ints("axes")? {
        Some(axes) => axes.iter().map(|a| n.axis(*a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    let given = |i: usize| n.opt(i).filter(|v| !n.ty(*v).numel().is(0));
    let target = match (given(3), given(2)) {
        (Some(v), _) => {
            let declared = || axes.iter().map(|a| n.hint_dim(*a, rank)).collect::<Option<Vec<Dim>>>();
            let stretch = n.text("keep_aspect_ratio_policy", "stretch")? == "stretch";
            let sizes = n.known(v).or_else(|| if stretch { declared() } else { None });
            let sizes =
                sizes.ok_or_else(|| n.unsupported("the sizes must be known when the model is compiled"))?;
            sized(n, x, &axes, &sizes)?
        }
        (None, Some(v)) => {
            let scales = n.numbers(v);
            let scales =
                scales.ok_or_else(|| n.unsupported("the scales must be known when the model is compiled"))?;
            scaled(n, x, &axes, &scales)?
        }
        (None, None) => return Err(n.invalid("neither sizes nor scales are given")),
    };
    let (mode, nearest) = (mode(n)?, n.text("nearest_mode", "round_prefer_floor")?);
    one(interpolate(n, x, target, &mode, &coordinates, &nearest)?)
}

/// Result sizes from scales: ⌊size · scale⌋.
fn scaled(n: &Node<'_, '_>, x: SrgValue, axes: &[usize], scales: &[f64]) -> Result<Target> {
    let mut sizes = n.shape(x);
    if scales.len() != axes.len() {
        return Err(n.invalid(format!("{} scales for {} axes", scales.len(), axes.len())));
    }
    let mut all = vec![1.0; sizes.len()];
    for (a, scale) in axes.iter().zip(scales) {
        if !(scale.is_finite() && *scale > 0.0) {
            return Err(n.invalid(format!("the scale {scale} is not positive")));
        }
        all[*a] = *scale;
        sizes[*a] = match sizes[*a].as_const() {
            Some(c) => size((c as f64 * scale).floor() as i64),
            None => {
                let (p, q) = fraction(*scale)
                    .ok_or_else(|| n.unsupported("this scale of a symbolic size is not supported"))?;
                (&sizes[*a] * &size(p)).floor_div(&size(q))
            }
        };
    }
    Ok(Target { sizes, scales: all })
}

/// `scale` as a fraction with a small denominator, if it is one.
fn fraction(scale: f64) -> Option<(i64, i64)> {
    (1..=MAX_DENOMINATOR).find_map(|q| {
        let p = scale * q as f64;
        (p.fract() == 0.0 && p < 1e9).then_some((p as i64, q))
    })
}

/// Scales from result sizes, after the aspect ratio policy.
fn sized(n: &Node<'_, '_>, x: SrgValue, axes: &[usize], wanted: &[Dim]) -> Result<Target> {
    let mut sizes = n.shape(x);
    if wanted.len() != axes.len() {
        return Err(n.invalid(format!("{} sizes for {} axes", wanted.len(), axes.len())));
    }
    let mut scales = vec![1.0; sizes.len()];
    for (a, w) in axes.iter().zip(wanted) {
        let ratio = match (w.as_const(), sizes[*a].as_const()) {
            (Some(out), Some(from)) if from > 0 => Some(out as f64 / from as f64),
            _ if *w == sizes[*a] => Some(1.0),
            _ => symbolic_ratio(w, &sizes[*a]),
        };
        scales[*a] = ratio.ok_or_else(|| {
            n.unsupported("the ratio of result size to operand size must be known when the model is compiled")
        })?;
    }
    let policy = n.text("keep_aspect_ratio_policy", "stretch")?;
    let chosen = axes.iter().map(|a| scales[*a]);
    let common = match policy.as_str() {
        "stretch" => None,
        "not_larger" => chosen.reduce(f64::min),
        "not_smaller" => chosen.reduce(f64::max),
        other => return Err(n.invalid(format!("'{other}' is no aspect ratio policy"))),
    };
    for (a, w) in axes.iter().zip(wanted) {
        match common {
            None => sizes[*a] = w.clone(),
            Some(scale) => {
                let from = sizes[*a].as_const();
                let from =
                    from.ok_or_else(|| n.unsupported("an aspect ratio policy needs constant sizes"))?;
                scales[*a] = scale;
                sizes[*a] = size((scale * from as f64 + 0.5).floor() as i64);
            }
        }
    }
    Ok(Target { sizes, scales })
}

/// The constant ratio of two symbolic sizes.
fn symbolic_ratio(out: &Dim, from: &Dim) -> Option<f64> {
    if let Some(q) = out.exact_div(from).and_then(|q| q.as_const()) {
        return Some(q as f64);
    }
    let q = from.exact_div(out).and_then(|q| q.as_const())?;
    (q != 0).then(|| 1.0 / q as f64)
}
