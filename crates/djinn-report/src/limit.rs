//! What keeps a kernel or copy from being faster.

use djinn_device::{Profile, profile::Precision};
use djinn_plan::Kernel;

/// What a command spends its time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limit {
    /// Arithmetic.
    Compute,
    /// The bandwidth of the device's memory.
    Memory,
    /// Starting the kernel.
    Launch,
    /// The way between two memories.
    Link,
}

impl Limit {
    /// Every limit, in the order in which legends show them.
    pub(crate) const ALL: [Limit; 4] = [Limit::Compute, Limit::Memory, Limit::Launch, Limit::Link];

    /// Two words at most.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Limit::Compute => "compute",
            Limit::Memory => "memory",
            Limit::Launch => "launch",
            Limit::Link => "link",
        }
    }

    /// What would help, after a colon.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Limit::Compute => "faster arithmetic (lower precision, more devices) would help most",
            Limit::Memory => "fewer bytes (lower precision, larger batches, fusion) would help most",
            Limit::Launch => "fewer and larger kernels (fusion, captured graphs) would help most",
            Limit::Link => "fewer or smaller copies would help most",
        }
    }

    /// One sentence without a full stop.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Limit::Compute => "arithmetic takes longest",
            Limit::Memory => "reading and writing device memory takes longest",
            Limit::Launch => "starting the kernel takes at least half of the time",
            Limit::Link => "bytes go between two memories",
        }
    }
}

/// What a device can do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Speeds {
    launch: f64,
    bandwidth: f64,
    /// Peak rates of arithmetic, ascending.
    peaks: Vec<f64>,
    /// Does time beyond the roofline go to work on elements? So it is where operations run one by one.
    per_element: bool,
    /// Were the figures read off the kernels because no profile of this name is built in?
    pub(crate) observed: bool,
}

impl Speeds {
    /// The speeds of a device: those of the profile, or the best that its kernels reach.
    pub(crate) fn new(profile: &str, kernels: &[&Kernel]) -> Speeds {
        match Profile::builtin(profile) {
            Some(profile) => Speeds::of_profile(profile),
            None => Speeds::of_kernels(kernels),
        }
    }

    fn of_profile(profile: &Profile) -> Speeds {
        let precisions = Precision::ALL.into_iter().filter(|p| *p != Precision::F64);
        let mut peaks: Vec<f64> = precisions.map(|p| profile.peaks.of(p)).collect();
        // Work is taken for f32 unless it is predicted to be faster than f32 can be.
        peaks.retain(|p| *p >= profile.peaks.of(Precision::F32));
        peaks.sort_by(f64::total_cmp);
        Speeds {
            launch: profile.launch_seconds,
            bandwidth: profile.memory_bandwidth,
            peaks,
            per_element: !profile.fuses,
            observed: false,
        }
    }

    fn of_kernels(kernels: &[&Kernel]) -> Speeds {
        let worked = || kernels.iter().filter(|k| k.seconds > 0.0);
        let best = |of: fn(&Kernel) -> f64| worked().map(|k| of(k) / k.seconds).fold(0.0, f64::max);
        Speeds {
            launch: worked().map(|k| k.seconds).fold(f64::INFINITY, f64::min),
            bandwidth: best(|k| k.traffic),
            peaks: vec![best(|k| k.flops)],
            per_element: false,
            observed: true,
        }
    }

    /// What limits a kernel on this device.
    pub(crate) fn limit(&self, kernel: &Kernel) -> Limit {
        let seconds = kernel.seconds;
        let launch = self.launch.min(seconds);
        if launch >= seconds / 2.0 {
            return Limit::Launch;
        }
        let memory = kernel.traffic / self.bandwidth;
        let times = self.peaks.iter().map(|peak| kernel.flops / peak);
        let fastest = times.clone().next_back().unwrap_or(0.0);
        let compute = times.clone().find(|t| *t <= seconds * 1.01).unwrap_or(fastest);
        let rest = seconds - launch - memory.max(compute);
        if compute > memory || (self.per_element && rest > memory) { Limit::Compute } else { Limit::Memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_plan::sample;

    fn kernel(seconds: f64, flops: f64, traffic: f64) -> Kernel {
        Kernel { seconds, flops, traffic, ..sample::kernel("k", 0, &[], &[]) }
    }

    #[test]
    fn the_largest_part_of_the_roofline_decides() {
        let speeds = Speeds::new("generic", &[]);
        // generic: 4 µs to launch, 1 TB/s, 100 TFLOP/s.
        assert_eq!(speeds.limit(&kernel(5e-6, 0.0, 1e6)), Limit::Launch);
        assert_eq!(speeds.limit(&kernel(104e-6, 1e8, 100e6)), Limit::Memory);
        assert_eq!(speeds.limit(&kernel(104e-6, 1e10, 1e6)), Limit::Compute);
    }

    #[test]
    fn work_faster_than_f32_is_of_lower_precision() {
        let speeds = Speeds::new("h100-80", &[]);
        // 1 GB at 3.35 TB/s and 50 FLOP a byte: bandwidth limits bf16, though f32 arithmetic would take longer.
        assert_eq!(speeds.limit(&kernel(1e9 / 3.35e12 + 4e-6, 50e9, 1e9)), Limit::Memory);
    }

    #[test]
    fn an_unknown_device_is_judged_by_its_best_kernels() {
        let kernels = [kernel(1e-6, 0.0, 1.0), kernel(1e-3, 1e3, 1e9), kernel(1e-3, 1e10, 1e3)];
        let refs: Vec<&Kernel> = kernels.iter().collect();
        let speeds = Speeds::new("no such device", &refs);
        assert!(speeds.observed);
        let limits: Vec<Limit> = kernels.iter().map(|k| speeds.limit(k)).collect();
        assert_eq!(limits, [Limit::Launch, Limit::Memory, Limit::Compute]);
    }
}
