//! Device profiles: what one kind of device can do, as data with sources.
//!
//! A profile is a TOML file. Every figure is written `key = { value = …, source = "…" }`, where the source names the
//! datasheet or the measurement, or `key = { value = …, estimate = "…" }`, where the text says what the figure was
//! guessed from. Units are SI: bytes, seconds, bytes per second, operations per second.

use djinn_diag::suggest::did_you_mean;
use djinn_diag::{Result, input};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

/// Number formats for which a device has a peak rate of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32, computed as such.
    F32,
    /// binary32 operands rounded to 19 bits inside matrix units.
    Tf32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit floats.
    F8,
    /// 8-bit integers.
    I8,
}

impl Precision {
    /// Every precision, in declaration order.
    pub const ALL: [Precision; 7] = [
        Precision::F64,
        Precision::F32,
        Precision::Tf32,
        Precision::F16,
        Precision::Bf16,
        Precision::F8,
        Precision::I8,
    ];

    /// The word of the profile files.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F64 => "f64",
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
            Precision::F8 => "f8",
            Precision::I8 => "i8",
        }
    }

    /// The precision of this name.
    pub fn from_name(name: &str) -> Option<Precision> {
        Precision::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// Peak rates of dense multiply-accumulate work by precision, in operations per second.
#[derive(Debug, Clone, PartialEq)]
pub struct Peaks(pub(crate) [Option<f64>; 7]);

impl Peaks {
    /// The peak of a precision; where the device has none of its own, that of `f32`.
    pub fn of(&self, precision: Precision) -> f64 {
        self.own(precision).or(self.own(Precision::F32)).unwrap_or(1.0)
    }

    /// The same peaks, but for this one.
    #[must_use]
    pub fn with(mut self, precision: Precision, peak: f64) -> Peaks {
        self.0[precision as usize] = Some(peak);
        self
    }

    /// The peak that the profile gives for exactly this precision.
    pub fn own(&self, precision: Precision) -> Option<f64> {
        self.0[precision as usize]
    }
}

/// Bandwidth and latency of a link, one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkFigures {
    /// Bytes per second in one direction.
    pub bandwidth: f64,
    /// Seconds until the first byte arrives.
    pub latency_seconds: f64,
}

/// Kinds of work that are fitted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpClass {
    /// One pass over operands and result.
    Elementwise,
    /// Data movement.
    Copy,
    /// One pass over the operand, smaller result.
    Reduction,
    /// A few passes over the operand.
    Normalization,
    /// Multiply-accumulate work.
    Contraction,
    /// Control flow and unknown work.
    Control,
}

impl OpClass {
    /// Every class, in declaration order.
    pub const ALL: [OpClass; 6] = [
        OpClass::Elementwise,
        OpClass::Copy,
        OpClass::Reduction,
        OpClass::Normalization,
        OpClass::Contraction,
        OpClass::Control,
    ];

    /// The word of the profile files.
    pub fn name(self) -> &'static str {
        match self {
            OpClass::Elementwise => "elementwise",
            OpClass::Copy => "copy",
            OpClass::Reduction => "reduction",
            OpClass::Normalization => "normalization",
            OpClass::Contraction => "contraction",
            OpClass::Control => "control",
        }
    }

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<OpClass> {
        OpClass::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl fmt::Display for OpClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a class of work, or one operation, reaches of a device's peaks.
///
/// `seconds = launch + overhead + max(flops / (peak · compute), bytes / (bandwidth · memory)) [if it has a roofline]
///  + per_element · elements + per_flop · flops + per_byte · bytes`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Share of the peak rate that multiply-accumulate work reaches, above 0.
    pub compute: f64,
    /// Share of the memory bandwidth that traffic reaches, above 0.
    pub memory: f64,
    /// Seconds on top of each launch.
    pub overhead_seconds: f64,
    /// Seconds per element worked on.
    pub per_element: f64,
    /// Seconds per multiply-accumulate operation (a multiplication and an addition count two).
    pub per_flop: f64,
    /// Seconds per byte read or written, on top of the roofline.
    pub per_byte: f64,
}

impl Default for Rates {
    /// The plain roofline.
    fn default() -> Self {
        Rates {
            compute: 1.0,
            memory: 1.0,
            overhead_seconds: 0.0,
            per_element: 0.0,
            per_flop: 0.0,
            per_byte: 0.0,
        }
    }
}

/// Where a figure comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Datasheet or measurement, or what it was guessed from.
    pub source: String,
    /// Is it guessed?
    pub estimated: bool,
}

/// What one kind of device can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Name, such as `h100-80`.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Bytes of device memory.
    pub memory_bytes: u64,
    /// Device memory, bytes per second.
    pub memory_bandwidth: f64,
    /// Bytes of the last-level cache.
    pub l2_bytes: u64,
    /// Last-level cache, bytes per second.
    pub l2_bandwidth: f64,
    /// Seconds to start a kernel.
    pub launch_seconds: f64,
    /// Seconds that a stream loses to a wait for an event of another stream, if the profile says so; see
    /// [`Profile::sync_seconds`].
    pub own_sync_seconds: Option<f64>,
    /// Peak rates of multiply-accumulate work.
    pub peaks: Peaks,
    /// The link to the memory of the node that holds the device.
    pub host_link: LinkFigures,
    /// The direct link to devices of the same kind, if there is one: all of a device's lanes together.
    pub peer_link: Option<LinkFigures>,
    /// Streaming multiprocessors, or cores.
    pub multiprocessors: u32,
    /// CUDA compute capability of devices that have one, ten times the major number plus the minor one: 90 for 9.0.
    pub compute_capability: Option<u32>,
    /// Streams that are sensible to use at once.
    pub max_streams: u32,
    /// Seconds per byte of 16-bit floats that are computed on, for devices that have to convert them; else 0.
    pub half_seconds_per_byte: f64,
    /// Does one kernel run a whole group of operations? False for devices that run each operation by itself.
    pub fuses: bool,
    /// Do peaks bound times from below? False for profiles whose fitted coefficients tell the whole time.
    pub roofline: bool,
    /// What classes of work reach, in the order of [`OpClass::ALL`].
    pub classes: [Rates; 6],
    /// What single operations reach, by name in the op table; it goes before the class.
    pub ops: BTreeMap<String, Rates>,
    /// Where the figures come from, by key.
    pub sources: BTreeMap<String, Figure>,
}

const BUILTIN: [(&str, &str); 7] = [
    ("a100-80", include_str!("../profiles/a100-80.toml")),
    ("generic", include_str!("../profiles/generic.toml")),
    ("h100-80", include_str!("../profiles/h100-80.toml")),
    ("h200", include_str!("../profiles/h200.toml")),
    ("host", include_str!("../profiles/host.toml")),
    ("l4", include_str!("../profiles/l4.toml")),
    ("rtx-4090", include_str!("../profiles/rtx-4090.toml")),
];

/// Each built-in profile is parsed when it is first asked for.
static PARSED: [OnceLock<Profile>; 7] = [const { OnceLock::new() }; 7];

impl Profile {
    /// Names of the built-in profiles, sorted.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The built-in profile of this name.
    pub fn builtin(name: &str) -> Option<&'static Profile> {
        let i = BUILTIN.iter().position(|(n, _)| *n == name)?;
        let (name, text) = BUILTIN[i];
        Some(PARSED[i].get_or_init(|| match Profile::from_toml(text, name) {
            Ok(profile) => profile,
            // A test parses every built-in file.
            Err(e) => unreachable!("built-in profile: {e}"),
        }))
    }

    /// The built-in profile of this name.
    ///
    /// # Errors
    /// `profile.unknown` if there is none, with the names nearest to it.
    pub fn named(name: &str) -> Result<&'static Profile> {
        Profile::builtin(name).ok_or_else(|| {
            let known = Profile::names().collect::<Vec<_>>().join(", ");
            let near = did_you_mean(name, Profile::names()).map(|t| t + " ").unwrap_or_default();
            input("profile.unknown", format!("there is no device profile '{name}'"))
                .help(format!("{near}built-in profiles are: {known}"))
                .shortened()
        })
    }

    /// The built-in profile of the GPU that its driver calls so, such as `NVIDIA H100 80GB HBM3`: each word of the profile's
    /// name is one of the GPU's, where a number may stand before `GB`.
    pub fn of_gpu(name: &str) -> Option<&'static Profile> {
        let name = name.to_ascii_lowercase();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let is_there = |word: &str| words.iter().any(|w| *w == word || w.strip_suffix("gb") == Some(word));
        let gpus = Profile::names().filter_map(Profile::builtin).filter(|p| p.compute_capability.is_some());
        gpus.into_iter().find(|p| p.name.split('-').all(is_there))
    }

    /// The built-in profile `generic`: round figures of the order of a data-centre GPU of the early 2020s, to rank
    /// alternatives; not a measurement of any device.
    pub fn generic() -> &'static Profile {
        Profile::builtin("generic").unwrap_or_else(|| unreachable!("it is built in"))
    }

    /// Reads a profile from TOML; `place` names the file in diagnostics.
    ///
    /// # Errors
    /// `profile.format` if it is not a profile in TOML, `profile.figure` if a figure is out of its range.
    pub fn from_toml(text: &str, place: &str) -> Result<Profile> {
        crate::read::profile(text, place)
    }

    /// Seconds that a stream of the device loses to a wait for an event of another stream, beyond the time until the
    /// event is there. Where the profile has no such figure (`sync_seconds`), what a launch takes: a wait is a command
    /// that the device has to fetch and carry out like a launch (`cudaStreamWaitEvent`, CUDA Runtime API: "makes all
    /// future work submitted to stream wait … this synchronization will be performed efficiently on the device").
    /// The order of magnitude agrees with SqueezeNet on a V100, 0.86 ms one operation after another and 0.98 ms with
    /// greedy concurrency (README of Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration", MLSys 2021):
    /// its graph asks for 24 synchronisations, 5 µs each if all the loss is theirs. Not measured on these devices.
    /// How waits are counted stands at the simulator of plans (`djinn_plan::simulate`).
    pub fn sync_seconds(&self) -> f64 {
        self.own_sync_seconds.unwrap_or(self.launch_seconds)
    }

    /// The profile as TOML that [`Profile::from_toml`] reads; every line of `remark` goes first, as a comment.
    pub fn to_toml(&self, remark: &str) -> String {
        crate::print::profile(self, remark)
    }

    /// What an operation reaches: its own rates if the profile has them, else those of its class.
    pub fn rates(&self, op: &str, class: OpClass) -> &Rates {
        // Most profiles name no operation: no look-up then.
        let own = if self.ops.is_empty() { None } else { self.ops.get(op) };
        own.unwrap_or(&self.classes[class as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_is_read_and_named_after_its_file() {
        for (name, text) in BUILTIN {
            let profile = Profile::from_toml(text, name).expect("valid");
            assert_eq!(profile.name, name);
            assert!(!profile.sources.is_empty());
        }
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .expect("profiles are there")
            .filter_map(|e| e.expect("readable").file_name().into_string().ok())
            .filter_map(|f| f.strip_suffix(".toml").map(str::to_owned))
            .collect();
        files.sort();
        assert_eq!(files, Profile::names().collect::<Vec<_>>());
    }

    #[test]
    fn profiles_round_trip_through_text() {
        for name in Profile::names() {
            let profile = Profile::named(name).expect("built in");
            let text = profile.to_toml("a remark\nof two lines");
            assert_eq!(&Profile::from_toml(&text, name).expect("valid"), profile, "{text}");
        }
    }

    #[test]
    fn a_wait_costs_what_the_profile_says_or_a_launch() {
        let text = BUILTIN[1].1;
        let own = text.replacen(
            "multiprocessors",
            "sync_seconds = { value = 7e-6, estimate = \"a test\" }\nmultiprocessors",
            1,
        );
        let profile = Profile::from_toml(&own, "x").expect("valid");
        assert_eq!((Profile::generic().sync_seconds(), profile.sync_seconds()), (4e-6, 7e-6));
        assert_eq!(Profile::from_toml(&profile.to_toml(""), "x").expect("valid"), profile);
        let bad = own.replacen("7e-6", "-7e-6", 1);
        assert_eq!(Profile::from_toml(&bad, "x").expect_err("negative").code, "profile.figure");
    }

    #[test]
    fn generic_keeps_its_round_figures() {
        let g = Profile::generic();
        assert_eq!((g.memory_bandwidth, g.launch_seconds), (1e12, 4e-6));
        assert!(Precision::ALL.iter().all(|p| g.peaks.of(*p) == 100e12));
        assert!(g.classes.iter().all(|c| *c == Rates::default()) && g.ops.is_empty());
    }

    #[test]
    fn an_unknown_profile_is_answered_with_the_nearest() {
        let e = Profile::named("h100").expect_err("unknown");
        assert_eq!(e.code, "profile.unknown");
        assert!(
            e.help.as_deref().is_some_and(|h| h.contains("did you mean") && h.contains("'h100-80'")),
            "{e}"
        );
    }

    #[test]
    fn wrong_figures_are_refused() {
        let text = BUILTIN[1].1;
        for (from, to, code) in [
            ("value = 1e12", "value = -1e12", "profile.figure"),
            ("value = 1e12", "value = nan", "profile.figure"),
            ("value = 1e12", "value = inf", "profile.figure"),
            ("value = 1e12", "value = 1e-300", "profile.figure"),
            ("value = 4e-6", "value = -1.0", "profile.figure"),
            ("value = 4e-6", "value = 1e300", "profile.figure"),
            ("f32 =", "f33 =", "profile.format"),
            ("summary", "sumary", "profile.format"),
            ("name = \"generic\"", "name = \"a b\"", "profile.format"),
            ("memory_bandwidth", "[[", "profile.format"),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text, "{from}");
            let e = Profile::from_toml(&bad, "x.toml").expect_err(to);
            assert_eq!((e.code.as_str(), e.place[0].as_str()), (code, "x.toml"), "{to}: {e}");
        }
        let unsourced = text.replacen(", estimate = ", ", remark = ", 1);
        assert!(Profile::from_toml(&unsourced, "x").is_err(), "a figure needs a source");
    }

    #[test]
    fn gpus_are_known_by_what_their_drivers_call_them() {
        let of = |name| Profile::of_gpu(name).map(|p| p.name.as_str());
        assert_eq!(of("NVIDIA H200"), Some("h200"));
        assert_eq!(of("NVIDIA H100 80GB HBM3"), Some("h100-80"));
        assert_eq!(of("NVIDIA A100-SXM4-80GB"), Some("a100-80"));
        assert_eq!(of("NVIDIA L4"), Some("l4"));
        assert_eq!(of("NVIDIA GeForce RTX 4090"), Some("rtx-4090"));
        for other in
            ["NVIDIA A100-SXM4-40GB", "NVIDIA L40S", "NVIDIA H100 NVL", "Djinn emulator", "generic", ""]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
