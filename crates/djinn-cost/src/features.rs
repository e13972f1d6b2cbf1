//! What a kernel is to the cost model: enough to cost it on any device profile without the program that it is from.

use crate::model::extra;
use crate::work::{Work, op_class, precision};
use djinn_device::{OpClass, Profile};
use djinn_ir::{DType, OpKind};

/// One operation of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The operation.
    pub kind: OpKind,
    /// Element type of its first operand.
    pub dtype: Option<DType>,
    /// Types of its operands and results at the sizes of the run, for the reader.
    pub shapes: String,
    /// What it asks for.
    pub work: Work<f64>,
}

/// A kernel: its operations at the sizes of a run, and what crosses its border.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// The operations in order.
    pub members: Vec<Member>,
    /// Bytes read from outside the kernel.
    pub bytes_read: f64,
    /// Bytes written for outside the kernel.
    pub bytes_written: f64,
    /// Does an operation hold regions? Those run at a cost of their own, which is not told here.
    pub regions: bool,
}

/// The parts of a kernel's predicted seconds on a profile; their sum is the prediction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Terms {
    /// Starting it.
    pub(crate) launch: f64,
    /// What no correction changes: conversions of 16-bit floats, operations without a class.
    pub(crate) fixed: f64,
    /// What operations of each class take, in the order of [`OpClass::ALL`].
    pub(crate) classes: [ClassTerms; 6],
}

/// What operations of one class take, and what they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ClassTerms {
    /// Seconds of roofline time that the rate of multiply-accumulate work limits.
    pub(crate) compute: f64,
    /// Seconds of roofline time that the memory bandwidth limits.
    pub(crate) memory: f64,
    /// Seconds on top of launch and roofline.
    pub(crate) extra: f64,
    /// How often the overhead of the class is paid.
    pub(crate) overheads: f64,
    /// Elements worked on.
    pub(crate) elements: f64,
    /// Multiply-accumulate operations.
    pub(crate) flops: f64,
    /// Bytes read and written.
    pub(crate) bytes: f64,
}

impl ClassTerms {
    /// Predicted seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.compute + self.memory + self.extra
    }

    fn add_roofline(&mut self, computing: f64, moving: f64) {
        if computing > moving {
            self.compute += computing;
        } else {
            self.memory += moving;
        }
    }
}

impl Terms {
    /// Predicted seconds of the kernel.
    pub(crate) fn seconds(&self) -> f64 {
        self.launch + self.fixed + self.classes.iter().map(ClassTerms::seconds).sum::<f64>()
    }

    /// The class that takes most of the time, if any takes some.
    pub(crate) fn heaviest(&self) -> Option<OpClass> {
        let seconds = |c: &OpClass| self.classes[*c as usize].seconds();
        let timed = OpClass::ALL.into_iter().filter(|c| seconds(c) > 0.0);
        timed.max_by(|a, b| seconds(a).total_cmp(&seconds(b)))
    }
}

impl Features {
    /// Predicted seconds of the kernel on a profile, launch included; of operations with regions, without these.
    pub fn seconds(&self, profile: &Profile) -> f64 {
        self.terms(profile).seconds()
    }

    /// The class of operations that takes most of the predicted time.
    pub fn class(&self, profile: &Profile) -> Option<OpClass> {
        let worked = self.members.iter().filter_map(|m| op_class(m.kind)).max();
        self.terms(profile).heaviest().or(worked)
    }

    /// Multiply-accumulate operations.
    pub fn flops(&self) -> f64 {
        self.members.iter().map(|m| m.work.flops).sum()
    }

    /// Bytes that cross the border of the kernel.
    pub fn bytes(&self) -> f64 {
        self.bytes_read + self.bytes_written
    }

    /// Names of kinds and shapes in one line: kernels of one line take the same time.
    pub fn text(&self) -> String {
        let member = |m: &Member| format!("{} {}", m.kind.name(), m.shapes);
        self.members.iter().map(member).collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn terms(&self, profile: &Profile) -> Terms {
        if self.members.len() <= 1 || !profile.fuses { self.apart(profile) } else { self.fused(profile) }
    }

    /// Each operation by itself.
    fn apart(&self, profile: &Profile) -> Terms {
        let mut terms = Terms::default();
        for Member { kind, dtype, work, .. } in &self.members {
            terms.launch += profile.launch_seconds * work.launches;
            let Some(class) = op_class(*kind) else {
                terms.fixed += profile.ops.get(kind.name()).map_or(0.0, |rates| rates.overhead_seconds);
                continue;
            };
            let rates = profile.rates(kind.name(), class);
            let halves = profile.half_seconds_per_byte * work.half_bytes;
            terms.fixed += halves;
            let slot = &mut terms.classes[class as usize];
            slot.extra += extra(profile, rates, work) - halves;
            slot.overheads += 1.0;
            slot.elements += work.elements;
            slot.flops += work.flops;
            slot.bytes += work.bytes_read + work.bytes_written;
            if profile.roofline {
                let peak = dtype.map_or(1.0, |d| profile.peaks.of(precision(d)));
                let traffic = (work.bytes_read + work.bytes_written) * work.passes;
                slot.add_roofline(
                    work.flops / (peak * rates.compute),
                    traffic / (profile.memory_bandwidth * rates.memory),
                );
            }
        }
        terms
    }

    /// All operations in one launch; see [`crate::CostModel::group_cost`].
    fn fused(&self, profile: &Profile) -> Terms {
        let launches = self.members.iter().map(|m| m.work.launches).fold(0.0, f64::max);
        let mut terms = Terms { launch: profile.launch_seconds * launches, ..Terms::default() };
        let classed = || self.members.iter().filter_map(|m| Some((op_class(m.kind)?, m)));
        let Some((heaviest, kind)) = classed().map(|(c, m)| (c, m.kind)).max() else { return terms };
        let (mut computing, mut once) = (0.0, (0.0, heaviest));
        for (class, Member { kind, dtype, work, .. }) in classed() {
            let rates = profile.rates(kind.name(), class);
            let halves = profile.half_seconds_per_byte * work.half_bytes;
            terms.fixed += halves;
            let slot = &mut terms.classes[class as usize];
            slot.extra += extra(profile, rates, work) - halves - rates.overhead_seconds;
            slot.elements += work.elements;
            slot.flops += work.flops;
            slot.bytes += work.bytes_read + work.bytes_written;
            let peak = dtype.map_or(1.0, |d| profile.peaks.of(precision(d)));
            computing += work.flops / (peak * rates.compute);
            if rates.overhead_seconds > once.0 {
                once = (rates.overhead_seconds, class);
            }
        }
        terms.classes[once.1 as usize].extra += once.0;
        let slot = &mut terms.classes[heaviest as usize];
        slot.overheads = 1.0;
        if profile.roofline {
            let passes = self.members.iter().map(|m| m.work.passes).fold(1.0, f64::max);
            let memory = profile.memory_bandwidth * profile.rates(kind.name(), heaviest).memory;
            slot.add_roofline(computing, self.bytes() / memory * passes);
        }
        terms
    }
}
