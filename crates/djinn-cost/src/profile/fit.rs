//! A device profile fitted to measured kernels.
//!
//! The profile that is there is corrected, class by class: roofline times that the peak limits, those that the bandwidth
//! limits, and coefficients are scaled; overhead and seconds per byte, element and operation are added. So what the
//! profile knows of single operations stays, relative to their class. Corrections are not negative and minimise the sum of
//! relative errors, `Σ |predicted / measured − 1|` over kernels, which is linear in them as long as each kernel stays
//! limited by what limits it; so they are found in rounds (Magnani, Boyd: "Convex piecewise-linear fitting", Optimization
//! and Engineering 10(1), 2009, section 3.1). Then each operation that decides the time of enough kernels is scaled by the
//! median of what is left.
//!
//! About a quarter of the kernels is held out, told by the hash of their key: equal kernels are on the same side in every
//! profile. A class with fewer than [`FEWEST`] kernels to fit to stays as it is.

use super::accuracy::{Judgement, Observation, observation};
use super::nnls::{Row, least_deviations};
use super::{RunProfile, Section, fnv};
use crate::features::{ClassTerms, Features};
use crate::work::op_class;
use djinn_device::profile::Figure;
use djinn_device::{OpClass, Profile, Rates};
use djinn_diag::{Remark, RemarkKind, Result, input};
use djinn_ir::OpKind;
use std::collections::{BTreeMap, BTreeSet};

/// Different kernels that a class needs for its times to be scaled.
pub const FEWEST: usize = 4;

/// Different kernels that a class needs for more than scales.
pub const FEWEST_FULL: usize = 12;

/// Rounds of corrections, at most.
const ROUNDS: usize = 8;

/// Of the sum of errors this share has to go, or a correction is not worth it.
const GAIN: f64 = 0.005;

/// Of a kernel's predicted time an operation takes at least this share where the kernel's time says something of it.
const DECIDES: f64 = 0.6;

/// Scales are within these.
const SCALES: (f64, f64) = (1e-3, 1e3);

/// A fitted profile and how good it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileFit {
    /// The profile.
    pub profile: Profile,
    /// How the kernels were run that it was fitted to.
    pub mode: String,
    /// Kernels that it was fitted to.
    pub fitted: usize,
    /// How well the profile that was there predicts the kernels that were held out.
    pub before: Judgement,
    /// How well the fitted one does.
    pub after: Judgement,
    /// What was left as it was or ignored, and why.
    pub remarks: Vec<Remark>,
}

/// Is a kernel of this key held out?
pub fn is_held_out(key: &str) -> bool {
    (fnv(key.as_bytes()) >> 20).is_multiple_of(4)
}

/// Fits the profile of a device to what was measured on it: sections of other devices are ignored. `mode` says which way of
/// running kernels counts if there are several; `source` is what the profile names as the source of fitted figures.
///
/// # Errors
/// `calibrate.device` if nothing was measured on the device, `calibrate.modes` if it ran kernels in several ways and none
/// is named, `calibrate.samples` if there are too few kernels.
pub fn fit(base: &Profile, measured: &RunProfile, mode: Option<&str>, source: &str) -> Result<ProfileFit> {
    let mut remarks = Vec::new();
    let (mode, sections) = select(base, measured, mode, &mut remarks)?;
    let kernels = sections.iter().flat_map(|s| &s.kernels);
    let all: Vec<Observation<'_>> = kernels.filter_map(|(key, k)| observation(key, k)).collect();
    let (held_out, fitted): (Vec<_>, Vec<_>) = all.iter().copied().partition(|o| is_held_out(o.key));
    if different(&fitted) < FEWEST {
        let message = format!("{} different kernels are too few to fit a profile", different(&fitted));
        return Err(input("calibrate.samples", message).help("measure more models, or larger ones"));
    }
    if held_out.is_empty() {
        remarks.push(remark("held-out", "", "no kernel was held out: the fit is not judged"));
    }
    let source = Figure { source: source.to_owned(), estimated: false };
    let mut fit = Fit { fitted: &fitted, profile: base.clone(), source, remarks };
    fit.choose_fusion();
    fit.classes(true);
    fit.operations();
    fit.links(&sections);
    fit.waits(&sections);
    let Fit { profile, remarks, .. } = fit;
    Ok(ProfileFit {
        before: Judgement::of_observations(held_out.iter().copied(), base),
        after: Judgement::of_observations(held_out.iter().copied(), &profile),
        fitted: different(&fitted),
        profile,
        mode,
        remarks,
    })
}

/// How kernels were run, and the sections of it.
fn select<'m>(
    base: &Profile,
    measured: &'m RunProfile,
    mode: Option<&str>,
    remarks: &mut Vec<Remark>,
) -> Result<(String, Vec<&'m Section>)> {
    let here = || measured.sections.iter().filter(|(s, _)| s.ran.device == base.name);
    let modes: BTreeSet<&str> = here().map(|(s, _)| s.ran.mode.as_str()).collect();
    let listed = modes.iter().map(|m| format!("'{m}'")).collect::<Vec<_>>().join(", ");
    let others = measured.sections.len() - here().count();
    let chosen = match (mode, modes.len()) {
        (_, 0) => {
            let message = format!("nothing was measured on the device '{}'", base.name);
            return Err(input("calibrate.device", message).help("name the profile of the device that ran"));
        }
        (Some(mode), _) if modes.contains(mode) => mode,
        (None, 1) => modes.first().copied().unwrap_or_default(),
        (Some(mode), _) => {
            return Err(input("calibrate.modes", format!("nothing was measured in the mode '{mode}'"))
                .help(format!("measured modes: {listed}")));
        }
        (None, _) => {
            return Err(input("calibrate.modes", "kernels were run in several ways, whose times differ")
                .help(format!("name one of the modes {listed}")));
        }
    };
    let sections = || here().filter(|(s, _)| s.ran.mode == chosen);
    let machines: BTreeSet<&str> = sections().map(|(s, _)| s.ran.machine.as_str()).collect();
    if others > 0 {
        remarks.push(remark("device", "", format!("{others} sections of other devices are ignored")));
    }
    if machines.len() > 1 {
        let message = format!("times of {} machines are mixed: the fit is a compromise", machines.len());
        remarks.push(remark("machine", "", message));
    }
    Ok((chosen.to_owned(), sections().map(|(_, section)| section).collect()))
}

fn remark(rule: &str, place: &str, message: impl Into<String>) -> Remark {
    let (pass, rule, place) = ("calibrate".to_owned(), rule.to_owned(), place.to_owned());
    Remark { kind: RemarkKind::Missed, pass, rule, place, message: message.into() }
}

fn different(observations: &[Observation<'_>]) -> usize {
    observations.iter().map(|o| o.key).collect::<BTreeSet<_>>().len()
}

/// A fit on its way.
struct Fit<'a> {
    fitted: &'a [Observation<'a>],
    profile: Profile,
    source: Figure,
    remarks: Vec<Remark>,
}

/// What a column of the problem corrects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Launch,
    Compute(OpClass),
    Memory(OpClass),
    Extra(OpClass),
    Overhead(OpClass),
    Bytes(OpClass),
    Elements(OpClass),
    Flops(OpClass),
}

impl Column {
    /// The class it corrects.
    fn class(self) -> Option<OpClass> {
        match self {
            Column::Launch => None,
            Column::Compute(c) | Column::Memory(c) | Column::Extra(c) | Column::Overhead(c) => Some(c),
            Column::Bytes(c) | Column::Elements(c) | Column::Flops(c) => Some(c),
        }
    }

    /// A class's columns: scales, and with enough kernels additions.
    /// Where there is a roofline, its scales say what bytes and operations take.
    fn of(class: OpClass, full: bool, roofline: bool) -> Vec<Column> {
        use Column::{Bytes, Compute, Elements, Extra, Flops, Memory, Overhead};
        let mut all = vec![Compute(class), Memory(class), Extra(class)];
        if full {
            all.extend([Overhead(class), Elements(class)]);
            if !roofline {
                all.extend([Bytes(class), Flops(class)]);
            }
        }
        all
    }
}

impl Fit<'_> {
    /// Sum of relative errors.
    fn loss(&self, profile: &Profile) -> f64 {
        self.fitted.iter().map(|o| o.error(profile)).sum()
    }

    /// Does a kernel of several operations run as one? What fits better by a tenth counts.
    fn choose_fusion(&mut self) {
        let several: Vec<_> = self.fitted.iter().copied().filter(|o| o.features.members.len() > 1).collect();
        if different(&several) < FEWEST_FULL {
            return;
        }
        let fitted_as = |fuses: bool| {
            let profile = Profile { fuses, ..self.profile.clone() };
            let (source, remarks) = (self.source.clone(), Vec::new());
            let mut fit = Fit { fitted: self.fitted, profile, source, remarks };
            fit.classes(false);
            fit.loss(&fit.profile)
        };
        let fuses = !self.profile.fuses;
        if fitted_as(fuses) < 0.9 * fitted_as(!fuses) {
            self.profile.fuses = fuses;
            let how = if fuses { "as one" } else { "one operation after the other" };
            let message = format!("kernels of several operations run {how}, unlike in the profile before");
            self.remarks.push(Remark { kind: RemarkKind::Applied, ..remark("fuses", "", message) });
        }
    }

    /// Corrects the classes that have enough kernels, and the launch.
    fn classes(&mut self, speak: bool) {
        let mut of_class: BTreeMap<OpClass, BTreeSet<&str>> = BTreeMap::new();
        for o in self.fitted {
            if let Some(class) = o.features.class(&self.profile) {
                of_class.entry(class).or_default().insert(o.key);
            }
        }
        let mut columns = vec![Column::Launch];
        for (class, keys) in of_class {
            if keys.len() >= FEWEST {
                columns.extend(Column::of(class, keys.len() >= FEWEST_FULL, self.profile.roofline));
            } else if speak {
                let message =
                    format!("{} different kernels are too few: its figures stay as they are", keys.len());
                self.remarks.push(remark("class", class.name(), message));
            }
        }
        let mut loss = self.loss(&self.profile);
        for _ in 0..ROUNDS {
            let corrected = self.corrected(&columns);
            let now = self.loss(&corrected);
            if now.is_nan() || now > loss * (1.0 - GAIN) {
                break;
            }
            (self.profile, loss) = (corrected, now);
        }
    }

    /// The profile with the best corrections as long as every kernel stays limited by what limits it.
    fn corrected(&self, columns: &[Column]) -> Profile {
        let rows: Vec<Row> = self.fitted.iter().map(|o| row(o, &self.profile, columns)).collect();
        let known: Vec<bool> = (0..columns.len()).map(|i| rows.iter().any(|r| r.features[i] > 0.0)).collect();
        let found = least_deviations(&rows);
        let corrections: Vec<(Column, f64)> = columns
            .iter()
            .zip(&found)
            .zip(known)
            .filter(|(_, known)| *known)
            .map(|((column, value), _)| (*column, *value))
            .collect();
        apply(&self.profile, &corrections, &self.source)
    }

    /// Scales the operations that decide the time of enough kernels.
    fn operations(&mut self) {
        let kinds: BTreeSet<OpKind> =
            self.fitted.iter().flat_map(|o| &o.features.members).map(|m| m.kind).collect();
        for kind in kinds {
            let Some(class) = op_class(kind) else { continue };
            let (mut keys, mut ratios) = (BTreeSet::new(), Vec::new());
            for o in self.fitted {
                let all = o.features.seconds(&self.profile);
                let own = part(o.features, kind, &self.profile);
                if own > DECIDES * all {
                    keys.insert(o.key);
                    ratios.push((o.seconds - (all - own)) / own);
                }
            }
            if keys.len() < FEWEST {
                continue;
            }
            ratios.sort_by(f64::total_cmp);
            let scale = ratios[ratios.len() / 2].clamp(SCALES.0, SCALES.1);
            let mut profile = self.profile.clone();
            let rates = scaled(profile.rates(kind.name(), class), [scale; 3]);
            profile.ops.insert(kind.name().to_owned(), rates);
            profile.sources.insert(format!("op.{}", kind.name()), self.source.clone());
            if self.loss(&profile) < self.loss(&self.profile) * (1.0 - GAIN) {
                self.profile = profile;
            }
        }
    }

    /// The link to the caller's memory, from copies of inputs and outputs.
    fn links(&mut self, sections: &[&Section]) {
        let copies = sections.iter().flat_map(|s| s.copies.values());
        let timed: Vec<_> = copies
            .filter(|c| matches!(c.reason.as_str(), "input" | "output"))
            .filter(|c| c.measured.count() > 0 && c.measured.median() > 0.0)
            .collect();
        let sizes: BTreeSet<u64> = timed.iter().map(|c| c.bytes).collect();
        if sizes.len() < FEWEST {
            let message =
                format!("copies of {} different sizes are too few: the link stays as it is", sizes.len());
            self.remarks.push(remark("link", "host_link", message));
            return;
        }
        let row = |seconds: f64, bytes: u64| Row {
            features: vec![1.0 / seconds, bytes as f64 / seconds],
            target: 1.0,
        };
        let rows: Vec<Row> = timed.iter().map(|c| row(c.measured.median(), c.bytes)).collect();
        let [latency, per_byte] = least_deviations(&rows)[..] else { return };
        self.profile.host_link.latency_seconds = rounded(latency);
        self.profile.sources.insert("host_link.latency_seconds".into(), self.source.clone());
        if per_byte > 0.0 && 1.0 / per_byte <= 1e30 {
            self.profile.host_link.bandwidth = rounded((1.0 / per_byte).max(1.0));
            self.profile.sources.insert("host_link.bandwidth".into(), self.source.clone());
        }
    }

    /// What a wait takes: the median.
    fn waits(&mut self, sections: &[&Section]) {
        let mut all = super::Samples::default();
        sections.iter().for_each(|s| all.merge(&s.waits));
        if all.count() >= 2 * FEWEST as u64 {
            self.profile.own_sync_seconds = Some(rounded(all.median()));
            self.profile.sources.insert("sync_seconds".into(), self.source.clone());
        }
    }
}

/// What the columns ask of a kernel, and what is left for them to explain, both over its measured time.
fn row(o: &Observation<'_>, profile: &Profile, columns: &[Column]) -> Row {
    let terms = o.features.terms(profile);
    let of = |c: OpClass| -> &ClassTerms { &terms.classes[c as usize] };
    let feature = |column: &Column| match *column {
        Column::Launch => terms.launch,
        Column::Compute(c) => of(c).compute,
        Column::Memory(c) => of(c).memory,
        Column::Extra(c) => of(c).extra,
        Column::Overhead(c) => of(c).overheads,
        Column::Bytes(c) => of(c).bytes,
        Column::Elements(c) => of(c).elements,
        Column::Flops(c) => of(c).flops,
    };
    let fitted = |class: &OpClass| columns.iter().any(|c| c.class() == Some(*class));
    let others = OpClass::ALL.iter().filter(|c| !fitted(c)).map(|c| of(*c).seconds()).sum::<f64>();
    Row {
        features: columns.iter().map(|c| feature(c) / o.seconds).collect(),
        target: 1.0 - (terms.fixed + others) / o.seconds,
    }
}

/// The seconds of the operations of one kind in a kernel, without the launch.
fn part(features: &Features, kind: OpKind, profile: &Profile) -> f64 {
    let own = || features.members.iter().filter(|m| m.kind == kind);
    let heaviest = features.members.iter().filter_map(|m| Some((op_class(m.kind)?, m.kind))).max();
    let border = if heaviest.is_some_and(|h| h.1 == kind) { 1.0 } else { 0.0 };
    let alone = Features {
        members: own().cloned().collect(),
        bytes_read: border * features.bytes_read,
        bytes_written: border * features.bytes_written,
        regions: false,
    };
    let terms = alone.terms(profile);
    terms.seconds() - terms.launch - terms.fixed
}

/// The profile with these corrections.
fn apply(profile: &Profile, corrections: &[(Column, f64)], source: &Figure) -> Profile {
    let mut profile = profile.clone();
    let value = |column: Column| corrections.iter().find(|c| c.0 == column).map(|c| c.1);
    if let Some(scale) = value(Column::Launch) {
        profile.launch_seconds = rounded(profile.launch_seconds * scale.min(SCALES.1));
        profile.sources.insert("launch_seconds".into(), source.clone());
    }
    for class in OpClass::ALL {
        if !corrections.iter().any(|c| c.0.class() == Some(class)) {
            continue;
        }
        let scales = [Column::Compute(class), Column::Memory(class), Column::Extra(class)];
        let scales = scales.map(|c| value(c).unwrap_or(1.0));
        let add = |c: Column| value(c).unwrap_or(0.0);
        let correct = |rates: &Rates| {
            let mut rates = scaled(rates, scales);
            rates.overhead_seconds = rounded(rates.overhead_seconds + add(Column::Overhead(class)));
            rates.per_byte = rounded(rates.per_byte + add(Column::Bytes(class)));
            rates.per_element = rounded(rates.per_element + add(Column::Elements(class)));
            rates.per_flop = rounded(rates.per_flop + add(Column::Flops(class)));
            rates
        };
        profile.classes[class as usize] = correct(&profile.classes[class as usize]);
        profile.sources.insert(format!("class.{class}"), source.clone());
        let of_class = |name: &String| OpKind::from_name(name).and_then(op_class) == Some(class);
        let names: Vec<String> = profile.ops.keys().filter(|n| of_class(n)).cloned().collect();
        for name in names {
            if let Some(rates) = profile.ops.get_mut(&name) {
                *rates = correct(rates);
            }
            profile.sources.insert(format!("op.{name}"), source.clone());
        }
    }
    profile
}

/// Rates with roofline times limited by the peak, those limited by the bandwidth, and coefficients scaled.
fn scaled(rates: &Rates, [compute, memory, extra]: [f64; 3]) -> Rates {
    let share = |share: f64, scale: f64| rounded((share / scale.clamp(SCALES.0, SCALES.1)).clamp(1e-9, 1e30));
    let extra = extra.min(SCALES.1);
    Rates {
        compute: share(rates.compute, compute),
        memory: share(rates.memory, memory),
        overhead_seconds: rounded(rates.overhead_seconds * extra),
        per_element: rounded(rates.per_element * extra),
        per_flop: rounded(rates.per_flop * extra),
        per_byte: rounded(rates.per_byte * extra),
    }
}

/// A number to three significant digits: more would be noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}
