//! How far predictions are off.

use super::{KernelTimes, RunProfile, Section};
use crate::calibrate::Errors;
use crate::features::{Features, Terms};
use djinn_device::{OpClass, Profile};
use djinn_diag::{Remark, RemarkKind};
use std::collections::BTreeMap;

/// Accuracy below which a step time is told of: [`accuracy`].
pub const ALARM: f64 = 0.9;

/// A kernel that takes this many times longer or shorter than predicted is far off.
pub const OFF: f64 = 2.0;

/// Samples scatter if nine of ten are within more than this many times the middle one.
const SCATTER: f64 = 1.5;

/// `1 − |predicted − measured| / measured`; nothing where nothing was measured.
pub fn accuracy(predicted: f64, measured: f64) -> Option<f64> {
    (measured > 0.0).then(|| 1.0 - (predicted - measured).abs() / measured)
}

/// A measured kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation<'a> {
    pub(crate) key: &'a str,
    pub(crate) features: &'a Features,
    pub(crate) seconds: f64,
}

impl Observation<'_> {
    /// `|predicted / measured − 1|` on a profile.
    pub(crate) fn error(&self, profile: &Profile) -> f64 {
        (self.features.seconds(profile) / self.seconds - 1.0).abs()
    }
}

/// Relative errors of predicted kernel times, `|predicted / measured − 1|`: every kernel counts once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    /// Of all kernels.
    pub all: Errors,
    /// By the class that takes most of a kernel's predicted time, in the order of [`OpClass::ALL`].
    pub classes: Vec<(OpClass, Errors)>,
}

impl Judgement {
    /// Errors of what a section's plan predicted.
    pub fn of_section(section: &Section, device: &Profile) -> Judgement {
        let each = section.kernels.values().filter_map(|kernel| {
            let ratio = kernel.ratio().filter(|r| *r > 0.0)?;
            Some((kernel.features.class(device), (1.0 / ratio - 1.0).abs()))
        });
        Judgement::of(each)
    }

    /// Errors of what a device profile predicts of all kernels of a profile that can be predicted from what they are.
    pub fn of_profile(profile: &RunProfile, device: &Profile) -> Judgement {
        let kernels = profile.sections.values().flat_map(|s| &s.kernels);
        let known = kernels.filter_map(|(key, k)| observation(key, k));
        Judgement::of_observations(known, device)
    }

    pub(crate) fn of_observations<'a>(
        observations: impl IntoIterator<Item = Observation<'a>>,
        device: &Profile,
    ) -> Judgement {
        Judgement::of(observations.into_iter().map(|o| (o.features.class(device), o.error(device))))
    }

    fn of(errors: impl IntoIterator<Item = (Option<OpClass>, f64)>) -> Judgement {
        let (mut all, mut classes) = (Vec::new(), BTreeMap::<OpClass, Vec<f64>>::new());
        for (class, error) in errors {
            all.push(error);
            if let Some(class) = class {
                classes.entry(class).or_default().push(error);
            }
        }
        Judgement {
            all: Errors::of(all),
            classes: classes.into_iter().map(|(class, errors)| (class, Errors::of(errors))).collect(),
        }
    }
}

/// A kernel that was measured and can be predicted from what it is.
pub(crate) fn observation<'a>(key: &'a str, kernel: &'a KernelTimes) -> Option<Observation<'a>> {
    let seconds = kernel.measured.median();
    let timed = kernel.measured.count() > 0 && seconds > 0.0;
    let told = !kernel.features.regions && !kernel.features.members.is_empty();
    (timed && told).then_some(Observation { key, features: &kernel.features, seconds })
}

/// Remarks on the kernels that take more than [`OFF`] times as long as predicted, or less than that part of it; those that
/// take most of the time first. Each says what is likely the reason.
pub fn off(section: &Section, device: &Profile) -> Vec<Remark> {
    let mut far: Vec<(&KernelTimes, f64)> = section
        .kernels
        .values()
        .filter_map(|k| Some((k, k.ratio()?)))
        .filter(|(_, ratio)| !(1.0 / OFF..=OFF).contains(ratio))
        .collect();
    let total = |k: &KernelTimes| section.launches(k) * k.measured.median();
    far.sort_by(|a, b| total(b.0).total_cmp(&total(a.0)).then_with(|| a.0.name.cmp(&b.0.name)));
    far.into_iter()
        .map(|(kernel, ratio)| {
            let times = match ratio {
                r if r >= 1.0 => format!("{r:.1} times as long as predicted"),
                r => format!("{:.1} times less than predicted", 1.0 / r),
            };
            Remark {
                kind: RemarkKind::Analysis,
                pass: "profile".into(),
                rule: "off".into(),
                place: kernel.name.clone(),
                message: format!("takes {times}: {}", reason(kernel, device)),
            }
        })
        .collect()
}

/// What is likely wrong with the prediction of a kernel.
fn reason(kernel: &KernelTimes, device: &Profile) -> String {
    if kernel.measured.quantile(0.9) > SCATTER * kernel.measured.median() {
        return "its times scatter, the machine may have been busy; measure again".into();
    }
    if kernel.features.regions {
        return "it holds a loop or a branch, whose turns the cost model guesses".into();
    }
    let terms = kernel.features.terms(device);
    if terms.launch > 0.5 * terms.seconds() {
        return "most of its predicted time is the launch; calibrate fits what a launch takes".into();
    }
    match terms.heaviest() {
        Some(class) => format!("{}; calibrate fits it", limit(&terms, class)),
        None => "the cost model has no rate for what it does".into(),
    }
}

/// What decides the time of operations of a class.
fn limit(terms: &Terms, class: OpClass) -> String {
    let of_class = &terms.classes[class as usize];
    let part = if of_class.compute > of_class.memory.max(of_class.extra) {
        "the rate of multiply-accumulate work"
    } else if of_class.memory > of_class.extra {
        "the share of the memory bandwidth"
    } else {
        "the time per element, byte or operation"
    };
    format!("{part} of class {class} does not hold here")
}
