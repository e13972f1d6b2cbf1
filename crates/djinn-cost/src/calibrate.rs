//! Fitting a profile to measurements, and judging the fit by measurements that were held out.
//!
//! Every fourth measurement of an operation is held out. The others say what operations and classes take on top of a
//! launch (and of the roofline, if the profile has one): overhead, and seconds per element, per multiply-accumulate operation
//! and per byte. Coefficients are not negative and minimise the sum of relative errors, `Σ |predicted / measured − 1|`,
//! by iteratively reweighted least squares (Holland, Welsch: "Robust regression using iteratively reweighted least
//! squares", Communications in Statistics 6(9), 1977); so a few disturbed measurements do not matter.
//!
//! The same measurements give the same profile to the last digit.

use crate::work::{Work, op_class};
use djinn_device::profile::Figure;
use djinn_device::{OpClass, Precision, Profile, Rates};
use djinn_diag::{Diagnostic, Result, input};
use djinn_ir::{DType, OpKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// One timed operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The operation.
    pub kind: OpKind,
    /// Element type of the first operand.
    pub dtype: DType,
    /// What it asks for.
    pub work: Work<f64>,
    /// Types of the operands, for the reader.
    pub operands: String,
    /// The time.
    pub seconds: f64,
}

/// A fitted profile and how good it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The profile.
    pub profile: Profile,
    /// How well it predicts what was held out.
    pub report: Report,
}

/// How well a profile predicts measurements that it was not fitted to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Measurements that were fitted to.
    pub fitted: usize,
    /// Errors on all that were held out.
    pub all: Errors,
    /// The same, if every operation counted with the rates of its class: what to expect of operations without rates.
    pub class_rates_only: Errors,
    /// Errors by class.
    pub classes: Vec<ClassReport>,
    /// Name and median relative error of every operation, the worst first.
    pub operations: Vec<(&'static str, f64)>,
}

/// How well a profile predicts the operations of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassReport {
    /// The class.
    pub class: OpClass,
    /// Kinds of operations that were measured.
    pub operations: usize,
    /// Errors on the measurements that were fitted to.
    pub fitted: Errors,
    /// Errors on those that were held out.
    pub held_out: Errors,
}

/// Relative errors `|predicted / measured − 1|`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Errors {
    /// How many.
    pub count: usize,
    /// The middle one.
    pub median: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
}

/// Of so many measurements of an operation, one is held out.
const HOLD_OUT: usize = 4;

/// Measurements that an operation or class needs for rates of its own.
const FEWEST: usize = 4;

/// Rounds of reweighting; coefficients do not change in three digits after half as many.
const REWEIGHTINGS: usize = 20;

/// Relative errors below this count alike: they are noise.
const NOISE: f64 = 0.01;

/// Fits a profile: figures of `base`, but peaks, launch and rates from the measurements, with `source` as their source.
///
/// # Errors
/// `calibrate.samples` if there are too few measurements, `calibrate.seconds` if one has no time.
pub fn fit(base: &Profile, measurements: &[Measurement], source: &str) -> Result<Fit> {
    if let Some(m) = measurements.iter().find(|m| !(m.seconds > 0.0 && m.seconds.is_finite())) {
        let message = format!("a measurement of '{}' took {} seconds", m.kind.name(), m.seconds);
        return Err(input("calibrate.seconds", message).help("measure again"));
    }
    // As many digits as a file of measurements holds, so that the file gives the same profile.
    let measurements: Vec<Measurement> =
        measurements.iter().map(|m| Measurement { seconds: written(m.seconds), ..m.clone() }).collect();
    let (fitted, held_out) = split(&measurements);
    if fitted.len() < FEWEST || held_out.is_empty() {
        let message = format!("{} measurements are too few to fit a profile", measurements.len());
        return Err(
            input("calibrate.samples", message).help(format!("give at least {} of an operation", 2 * FEWEST))
        );
    }
    let mut profile = base.clone();
    let source = Figure { source: source.to_owned(), estimated: false };
    best_rates(&mut profile, &fitted, &source);
    fit_rates(&mut profile, &fitted, &source);
    fit_halves(&mut profile, &fitted, &source);
    let report = report(&profile, &fitted, &held_out);
    Ok(Fit { profile, report })
}

/// How well a profile that is not fitted to them predicts those measurements that [`fit`] would hold out.
pub fn judge(profile: &Profile, measurements: &[Measurement]) -> Report {
    let (fitted, held_out) = split(measurements);
    report(profile, &fitted, &held_out)
}

/// What is fitted to and what is held out: every fourth of each operation, the second one first.
fn split(measurements: &[Measurement]) -> (Vec<&Measurement>, Vec<&Measurement>) {
    let mut seen: BTreeMap<OpKind, usize> = BTreeMap::new();
    measurements.iter().partition(|m| {
        let count = seen.entry(m.kind).or_default();
        *count += 1;
        *count % HOLD_OUT != 2
    })
}

/// Where there is no roofline, the peaks are the best rates seen, for who asks; a launch is half of the shortest time.
fn best_rates(profile: &mut Profile, fitted: &[&Measurement], source: &Figure) {
    let working = || fitted.iter().filter(|m| op_class(m.kind).is_some());
    let bytes = |m: &&&Measurement| (m.work.bytes_read + m.work.bytes_written) * m.work.passes / m.seconds;
    let bandwidth = working().map(|m| bytes(&m)).fold(0.0, f64::max);
    let flops = working().map(|m| m.work.flops / m.seconds).fold(0.0, f64::max);
    let launch = working().map(|m| m.seconds / m.work.launches).fold(f64::INFINITY, f64::min);
    if bandwidth > 0.0 && !profile.roofline {
        profile.memory_bandwidth = rounded(bandwidth);
        profile.sources.insert("memory_bandwidth".to_owned(), source.clone());
    }
    if flops > 0.0 && !profile.roofline {
        profile.peaks = profile.peaks.clone().with(Precision::F32, rounded(flops));
        profile.sources.insert("peak_flops.f32".to_owned(), source.clone());
    }
    if launch.is_finite() {
        profile.launch_seconds = rounded(launch / 2.0);
        profile.sources.insert("launch_seconds".to_owned(), source.clone());
    }
}

fn fit_rates(profile: &mut Profile, fitted: &[&Measurement], source: &Figure) {
    let full: Vec<&Measurement> = fitted.iter().copied().filter(|m| m.work.half_bytes == 0.0).collect();
    profile.classes = [Rates::default(); 6];
    profile.ops.clear();
    profile.sources.retain(|key, _| !key.starts_with("class.") && !key.starts_with("op."));
    for class in OpClass::ALL {
        let of_class: Vec<&Measurement> =
            full.iter().copied().filter(|m| op_class(m.kind) == Some(class)).collect();
        if of_class.len() >= FEWEST {
            profile.classes[class as usize] = rates(profile, &of_class);
            profile.sources.insert(format!("class.{class}"), source.clone());
        }
    }
    let mut by_kind: BTreeMap<OpKind, Vec<&Measurement>> = BTreeMap::new();
    full.iter().for_each(|m| by_kind.entry(m.kind).or_default().push(m));
    for (kind, of_kind) in by_kind {
        if of_kind.len() >= FEWEST {
            let own = rates(profile, &of_kind);
            profile.ops.insert(kind.name().to_owned(), own);
            profile.sources.insert(format!("op.{}", kind.name()), source.clone());
        }
    }
}

/// Coefficients on top of launch and roofline.
fn rates(profile: &Profile, measurements: &[&Measurement]) -> Rates {
    let plain = Rates::default();
    let rows: Vec<Row> = measurements
        .iter()
        .map(|m| {
            let w = &m.work;
            let busy = op_class(m.kind).is_some();
            let floor = if busy {
                w.floor(profile, &plain, Some(m.dtype))
            } else {
                profile.launch_seconds * w.launches
            };
            let features = [1.0, w.elements, w.flops, w.bytes_read + w.bytes_written];
            // Where there is no work at run time, sizes do not matter.
            let features = if busy { features } else { [1.0, 0.0, 0.0, 0.0] };
            Row { features: features.map(|f| f / m.seconds), rest: 1.0 - floor / m.seconds }
        })
        .collect();
    let [overhead_seconds, per_element, per_flop, per_byte] = least_relative_error(&rows).map(rounded);
    Rates { overhead_seconds, per_element, per_flop, per_byte, ..plain }
}

/// One coefficient for all conversions: the middle of what conversions seem to take in each measurement.
fn fit_halves(profile: &mut Profile, fitted: &[&Measurement], source: &Figure) {
    profile.half_seconds_per_byte = 0.0;
    let halves = fitted.iter().filter(|m| m.work.half_bytes > 0.0);
    let mut each: Vec<f64> = halves
        .map(|m| {
            let rest = m.seconds - m.work.seconds(profile, m.kind, Some(m.dtype));
            (rest / m.work.half_bytes).max(0.0)
        })
        .collect();
    each.sort_by(f64::total_cmp);
    if let Some(middle) = each.get(each.len() / 2) {
        profile.half_seconds_per_byte = rounded(*middle);
        profile.sources.insert("half_seconds_per_byte".to_owned(), source.clone());
    }
}

/// A time as in a file of measurements.
fn written(seconds: f64) -> f64 {
    format!("{seconds:.4e}").parse().unwrap_or(seconds)
}

/// A number to three significant digits: more would be noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// Features and what is to be explained, both over the measured time.
struct Row {
    features: [f64; 4],
    rest: f64,
}

/// Coefficients of least `Σ |features · coefficients − rest|`, none negative.
fn least_relative_error(rows: &[Row]) -> [f64; 4] {
    let mut weights = vec![1.0; rows.len()];
    let mut best = ([0.0; 4], f64::INFINITY);
    for _ in 0..REWEIGHTINGS {
        let found = least_squares(rows, &weights);
        let errors: Vec<f64> = rows.iter().map(|r| (dot(&r.features, &found) - r.rest).abs()).collect();
        let sum: f64 = errors.iter().sum();
        if sum < best.1 {
            best = (found, sum);
        }
        weights = errors.iter().map(|e| 1.0 / e.max(NOISE)).collect();
    }
    best.0
}

fn dot(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Weighted least squares, no coefficient negative: with four features, the best of all subsets is found by trying.
fn least_squares(rows: &[Row], weights: &[f64]) -> [f64; 4] {
    // Features are of very different sizes; scaled to at most 1 they do not upset the elimination.
    let scale: [f64; 4] = std::array::from_fn(|i| rows.iter().map(|r| r.features[i]).fold(0.0, f64::max));
    let feature = |row: &Row, i: usize| if scale[i] > 0.0 { row.features[i] / scale[i] } else { 0.0 };
    let mut best = ([0.0; 4], f64::INFINITY);
    for subset in 0u32..16 {
        let chosen: Vec<usize> = (0..4).filter(|i| subset >> i & 1 == 1 && scale[*i] > 0.0).collect();
        if chosen.len() != subset.count_ones() as usize {
            continue;
        }
        let moment = |f: &dyn Fn(&Row) -> f64| rows.iter().zip(weights).map(|(r, w)| w * f(r)).sum::<f64>();
        let matrix = chosen.iter().map(|i| {
            let mut line: Vec<f64> =
                chosen.iter().map(|j| moment(&|r| feature(r, *i) * feature(r, *j))).collect();
            line.push(moment(&|r| feature(r, *i) * r.rest));
            line
        });
        let Some(solution) = solve(matrix.collect()) else { continue };
        if solution.iter().any(|c| *c < 0.0) {
            continue;
        }
        let mut found = [0.0; 4];
        chosen.iter().zip(&solution).for_each(|(i, c)| found[*i] = c / scale[*i]);
        let error = moment(&|r| (dot(&r.features, &found) - r.rest).powi(2));
        if error < best.1 {
            best = (found, error);
        }
    }
    best.0
}

/// Solves a linear system given line by line with its right side last; `None` if it is singular.
fn solve(mut lines: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = lines.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|a, b| lines[*a][i].abs().total_cmp(&lines[*b][i].abs()))?;
        lines.swap(i, pivot);
        if lines[i][i].abs() < 1e-14 {
            return None;
        }
        let pivot = lines[i].clone();
        for (r, line) in lines.iter_mut().enumerate() {
            let factor = line[i] / pivot[i];
            if r != i && factor != 0.0 {
                line.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
            }
        }
    }
    Some(lines.iter().enumerate().map(|(i, line)| line[n] / line[i]).collect())
}

fn report(profile: &Profile, fitted: &[&Measurement], held_out: &[&Measurement]) -> Report {
    let error = |profile: &Profile, m: &Measurement| {
        (m.work.seconds(profile, m.kind, Some(m.dtype)) / m.seconds - 1.0).abs()
    };
    let plain = Profile { ops: BTreeMap::new(), ..profile.clone() };
    let class_errors = |class: OpClass, some: &[&Measurement]| {
        let of_class = some.iter().filter(|m| op_class(m.kind) == Some(class));
        Errors::of(of_class.map(|m| error(profile, m)).collect())
    };
    let classes = OpClass::ALL.map(|class| {
        let kinds: BTreeSet<OpKind> = fitted.iter().chain(held_out).map(|m| m.kind).collect();
        ClassReport {
            class,
            operations: kinds.into_iter().filter(|k| op_class(*k) == Some(class)).count(),
            fitted: class_errors(class, fitted),
            held_out: class_errors(class, held_out),
        }
    });
    let mut by_kind: BTreeMap<OpKind, Vec<f64>> = BTreeMap::new();
    held_out.iter().for_each(|m| by_kind.entry(m.kind).or_default().push(error(profile, m)));
    let mut operations: Vec<(&str, f64)> =
        by_kind.into_iter().map(|(kind, errors)| (kind.name(), Errors::of(errors).median)).collect();
    operations.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    Report {
        fitted: fitted.len(),
        all: Errors::of(held_out.iter().map(|m| error(profile, m)).collect()),
        class_rates_only: Errors::of(held_out.iter().map(|m| error(&plain, m)).collect()),
        classes: classes.into_iter().filter(|c| c.held_out.count > 0).collect(),
        operations,
    }
}

impl Errors {
    /// What these errors come to.
    pub fn of(mut errors: Vec<f64>) -> Errors {
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors.get((errors.len() as f64 * share) as usize).copied().unwrap_or(0.0);
        Errors { count: errors.len(), median: at(0.5), p90: at(0.9) }
    }
}

/// First line of a file of measurements.
const HEADER: &str =
    "op,dtype,flops,bytes_read,bytes_written,elements,half_bytes,launches,passes,seconds,operands";

/// Measurements as comma-separated values, one a line after a header.
pub fn to_csv(measurements: &[Measurement]) -> String {
    let mut out = format!("{HEADER}\n");
    for m in measurements {
        let w = &m.work;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{}",
            m.kind.name(),
            m.dtype,
            w.flops,
            w.bytes_read,
            w.bytes_written,
            w.elements,
            w.half_bytes,
            w.launches,
            w.passes,
            format_args!("{:.4e}", m.seconds),
            m.operands.replace([',', '\n'], ";")
        );
    }
    out
}

/// Reads measurements; `place` names the file in diagnostics.
///
/// # Errors
/// `calibrate.csv` for a line that is no measurement.
pub fn from_csv(text: &str, place: &str) -> Result<Vec<Measurement>> {
    let bad = |line: usize, message: String| -> Box<Diagnostic> {
        input("calibrate.csv", message).at(format!("line {}", line + 1)).at(place).shortened()
    };
    let mut lines = text.lines().enumerate();
    if lines.next().map(|(_, l)| l) != Some(HEADER) {
        return Err(
            bad(0, "the header is not that of measurements".to_owned()).help(format!("it is: {HEADER}"))
        );
    }
    let measurement = |(i, line): (usize, &str)| {
        let fields: Vec<&str> = line.split(',').collect();
        let &[op, dtype, ref numbers @ .., operands] = fields.as_slice() else {
            return Err(bad(i, "too few fields".to_owned()));
        };
        let number = |text: &&str| text.parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0);
        let numbers: Option<Vec<f64>> = numbers.iter().map(number).collect();
        let Some(&[flops, bytes_read, bytes_written, elements, half_bytes, launches, passes, seconds]) =
            numbers.as_deref()
        else {
            return Err(bad(i, "eight numbers from 0 up are wanted".to_owned()));
        };
        let work = Work { flops, bytes_read, bytes_written, elements, half_bytes, launches, passes };
        Ok(Measurement {
            kind: OpKind::from_name(op).ok_or_else(|| bad(i, format!("there is no operation '{op}'")))?,
            dtype: DType::from_mlir(dtype)
                .ok_or_else(|| bad(i, format!("there is no element type '{dtype}'")))?,
            work,
            operands: operands.to_owned(),
            seconds,
        })
    };
    lines.map(measurement).collect()
}

#[cfg(test)]
#[path = "calibrate_tests.rs"]
mod tests;
