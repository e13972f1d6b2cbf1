//! Tests of profiles: merging, hostile files, and fits that find a hidden device.

use super::*;
use crate::features::Member;
use crate::work::{Work, op_class};
use djinn_device::{OpClass, Profile};
use djinn_ir::{DType, OpKind};

struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    fn size(&mut self, low: f64, high: f64) -> f64 {
        (low * (high / low).powf(self.unit())).floor()
    }
}

const KINDS: [OpKind; 9] = [
    OpKind::Add,
    OpKind::Exp,
    OpKind::Mul,
    OpKind::Transpose,
    OpKind::ReduceSum,
    OpKind::Softmax,
    OpKind::LayerNorm,
    OpKind::MatMul,
    OpKind::Conv,
];

fn member(random: &mut Random, kind: OpKind) -> Member {
    let elements = random.size(1e3, 1e6);
    let flops =
        if op_class(kind) == Some(OpClass::Contraction) { elements * random.size(64.0, 4096.0) } else { 0.0 };
    let work = Work {
        flops,
        bytes_read: 4.0 * random.size(0.5, 2.0).max(1.0) * elements,
        bytes_written: 4.0 * elements,
        elements,
        half_bytes: 0.0,
        launches: 1.0,
        passes: 1.0,
    };
    Member { kind, dtype: Some(DType::F32), shapes: format!("f32[{elements}] {flops}"), work }
}

fn kernels(seed: u64, count: usize) -> Vec<Features> {
    let mut random = Random(seed);
    (0..count)
        .map(|i| {
            let several = 1 + (i % 3) * (i % 2);
            let members: Vec<Member> =
                (0..several).map(|j| member(&mut random, KINDS[(i + 4 * j) % KINDS.len()])).collect();
            Features {
                bytes_read: members.iter().map(|m| m.work.bytes_read).fold(0.0, f64::max),
                bytes_written: members.last().map_or(0.0, |m| m.work.bytes_written),
                members,
                regions: false,
            }
        })
        .collect()
}

fn subject(mode: &str, machine: &str) -> Subject {
    let ran = Ran { device: "host".into(), mode: mode.into(), machine: machine.into() };
    let (program, plan, entry) = ("p".into(), "q".into(), "main".into());
    Subject { program, plan, entry, sizes: [("s0".to_owned(), 128)].into(), planned_for: "host".into(), ran }
}

/// What a hidden device would measure: noise of a few per cent, and every eleventh kernel disturbed threefold.
fn measured(hidden: &Profile, base: &Profile, kernels: &[Features], seed: u64) -> RunProfile {
    let mut random = Random(seed);
    let mut section = Section::new(1.0);
    for (i, features) in kernels.iter().enumerate() {
        let mut samples = Samples::default();
        let disturbed = if i % 11 == 10 { 3.0 } else { 1.0 };
        for _ in 0..7 {
            let noise = 1.0 + 0.06 * (random.unit() - 0.5);
            samples.add(features.seconds(hidden) * noise * disturbed).expect("a time");
        }
        let times = KernelTimes {
            name: features.members[0].kind.name().into(),
            predicted: written(features.seconds(base)),
            measured: samples,
            features: features.clone(),
        };
        section.kernels.insert(kernel_key(features), times);
    }
    for bytes in [64u64, 4096, 1 << 16, 1 << 20, 1 << 24] {
        let mut samples = Samples::default();
        samples.add(3e-6 + bytes as f64 / 5e9).expect("a time");
        let copy = CopyTimes { reason: "input".into(), bytes, predicted: 1e-6, measured: samples };
        section.copies.insert(format!("input {bytes}"), copy);
    }
    (0..20).for_each(|i| section.waits.add(2e-6 + 1e-8 * f64::from(i)).expect("a time"));
    section.step.add(1.1).expect("a time");
    RunProfile { sections: [(subject("evaluator", "m"), section)].into() }
}

/// A device unlike `base`: slower memory, faster arithmetic, dearer launches, operations with rates of their own.
fn hidden(base: &Profile) -> Profile {
    let mut hidden = base.clone();
    hidden.launch_seconds = 5e-6;
    // Where there is a roofline, its bandwidth says what bytes take.
    let per_byte = if base.roofline { 0.0 } else { 2e-10 };
    for (i, class) in OpClass::ALL.into_iter().enumerate() {
        let rates = &mut hidden.classes[class as usize];
        rates.compute *= 0.4;
        rates.memory *= 0.3 + 0.1 * i as f64;
        rates.per_element *= 2.5;
        rates.per_flop *= 1.7;
        rates.per_byte = 2.5 * rates.per_byte + per_byte;
        rates.overhead_seconds += 2e-6;
    }
    for (name, rates) in &mut hidden.ops {
        let slower = if name == "exp" { 4.0 } else { 2.0 };
        rates.per_element *= slower;
        rates.per_flop *= 1.7;
        rates.per_byte = slower * rates.per_byte + per_byte;
        rates.overhead_seconds += 2e-6;
    }
    hidden
}

#[test]
fn a_hidden_device_is_found() {
    for name in ["host", "h200", "generic"] {
        let base = Profile::named(name).expect("built in");
        let base = &Profile { name: "host".into(), ..base.clone() };
        let hidden = hidden(base);
        let measured = measured(&hidden, base, &kernels(3, 240), 5);
        let fit = fit(base, &measured, None, "a test").expect("enough");
        let (before, after) = (fit.before.all, fit.after.all);
        assert!(before.count > 30 && before.median > 0.3, "{name}: {before:?}");
        assert!(after.median <= 0.10, "{name}: {after:?}");
        // Kernels of other sizes, undisturbed.
        let fresh = kernels(17, 200);
        let errors = fresh.iter().map(|f| (f.seconds(&fit.profile) / f.seconds(&hidden) - 1.0).abs());
        let fresh = crate::calibrate::Errors::of(errors.collect());
        assert!(fresh.median <= 0.10 && fresh.p90 <= 0.3, "{name}: {fresh:?}");
        if base.roofline {
            // Shares of the bandwidth come back as they are hidden.
            for class in [OpClass::Elementwise, OpClass::Copy] {
                let [found, truth] = [&fit.profile, &hidden].map(|p| p.classes[class as usize].memory);
                assert!((found / truth - 1.0).abs() < 0.25, "{name} {class}: {found} for {truth}");
            }
        }
        let link = fit.profile.host_link;
        assert!((link.bandwidth / 5e9 - 1.0).abs() < 0.03, "{link:?}");
        assert!((link.latency_seconds / 3e-6 - 1.0).abs() < 0.05, "{link:?}");
        assert!((fit.profile.sync_seconds() / 2.1e-6 - 1.0).abs() < 0.03);
        // It is a profile that can be written and read.
        let text = fit.profile.to_toml("fitted");
        assert_eq!(Profile::from_toml(&text, "x").expect("valid"), fit.profile);
        assert_eq!(super::fit(base, &measured, None, "a test").expect("again"), fit);
    }
}

#[test]
fn too_few_kernels_of_a_class_leave_it_as_it_is() {
    let base = Profile::named("host").expect("built in");
    let mut few = kernels(3, 240);
    let class = |f: &Features| f.class(base);
    let mut norms = 0;
    few.retain(|f| {
        norms += usize::from(class(f) == Some(OpClass::Normalization));
        class(f) != Some(OpClass::Normalization) || norms < 4
    });
    let fit = fit(base, &measured(&hidden(base), base, &few, 5), None, "a test").expect("enough");
    let class = OpClass::Normalization as usize;
    assert_eq!(fit.profile.classes[class], base.classes[class]);
    assert_eq!(fit.profile.ops["softmax"], base.ops["softmax"]);
    assert!(fit.remarks.iter().any(|r| r.rule == "class" && r.place == "normalization"), "{:?}", fit.remarks);
    let none = measured(&hidden(base), base, &few[..3], 5);
    assert_eq!(super::fit(base, &none, None, "x").expect_err("too few").code, "calibrate.samples");
}

#[test]
fn ways_of_running_are_not_mixed() {
    let base = Profile::named("host").expect("built in");
    let slow = hidden(base);
    let mut both = measured(&slow, base, &kernels(3, 200), 5);
    let fast = measured(base, base, &kernels(3, 200), 6);
    let times = fast.sections.into_values().next().expect("one");
    both.sections.insert(subject("compiled", "m"), times);
    assert_eq!(fit(base, &both, None, "x").expect_err("two").code, "calibrate.modes");
    assert_eq!(fit(base, &both, Some("gpu"), "x").expect_err("none").code, "calibrate.modes");
    let other = fit(base, &both, Some("compiled"), "x").expect("enough");
    assert!(other.after.all.median < 0.05, "{:?}", other.after);
    assert!(fit(base, &both, Some("evaluator"), "x").expect("enough").before.all.median > 0.3);
    let h200 = Profile::named("h200").expect("built in");
    assert_eq!(fit(h200, &both, None, "x").expect_err("no such").code, "calibrate.device");
}

#[test]
fn merging_does_not_depend_on_the_order() {
    let base = Profile::named("host").expect("built in");
    let kernels = kernels(3, 40);
    let parts: Vec<RunProfile> = (0..3).map(|i| measured(base, base, &kernels[5 * i..], i as u64)).collect();
    let merged = |order: [usize; 3]| {
        let mut all = RunProfile::default();
        order.iter().for_each(|i| all.merge(&parts[*i]));
        all.to_json().expect("written")
    };
    let all = merged([0, 1, 2]);
    assert!(all == merged([2, 0, 1]));
    let mut tail = parts[1].clone();
    tail.merge(&parts[2]);
    let mut head = parts[0].clone();
    head.merge(&tail);
    assert!(head.to_json().expect("written") == all);
    let read = RunProfile::from_json(&all, "p.json").expect("read");
    assert!(read.to_json().expect("written") == all, "what is read is what was written");
}

#[test]
fn hostile_profiles_are_refused() {
    let base = Profile::named("host").expect("built in");
    let text = measured(base, base, &kernels(3, 6), 1).to_json().expect("written");
    for (from, to, code) in [
        ("\"version\": 1", "\"version\": 2", "profile.version"),
        ("\"version\": 1", "\"version\": -1", "profile.format"),
        ("djinn-run-profile", "something-else", "profile.format"),
        ("\"predicted\": 1.0", "\"predicted\": -1.0", "profile.value"),
        ("\"predicted\": 1.0", "\"predicted\": NaN", "profile.format"),
        ("\"predicted\": 1.0", "\"predicted\": 1e300", "profile.value"),
        ("\"predicted\": 1.0", "\"predicted\": 1e999", "profile.format"),
        ("\"passes\": 1.0", "\"passes\": -1.0", "profile.value"),
        ("\"passes\": 1.0", "\"passes\": 1e200", "profile.value"),
        ("\"median\": ", "\"median\": -", "profile.format"),
        ("\"count\": 7", "\"count\": 8", "profile.format"),
        ("\"dtype\": \"f32\"", "\"dtype\": \"f33\"", "profile.format"),
        ("\"op\": \"add\"", "\"op\": \"adder\"", "profile.format"),
        ("f32[", "f16[", "profile.value"),
        ("\"buckets\": {", "\"buckets\": {\"2147483647\": 1,", "profile.format"),
        ("\"sections\"", "\"sektions\"", "profile.format"),
    ] {
        let bad = text.replacen(from, to, 1);
        assert!(bad != text, "{from} is there");
        let e = RunProfile::from_json(&bad, "p.json").expect_err(to);
        assert_eq!(
            (e.code.as_str(), e.place.first().map(String::as_str)),
            (code, Some("p.json")),
            "{to}: {e}"
        );
    }
    assert_eq!(RunProfile::from_json("", "p").expect_err("nothing").code, "profile.format");
    let nested = "[".repeat(100_000);
    assert_eq!(RunProfile::from_json(&nested, "p").expect_err("deep").code, "profile.format");
}

#[test]
fn accuracy_and_what_is_far_off() {
    assert_eq!(accuracy(0.9, 1.0), Some(0.9));
    assert_eq!((accuracy(1.25, 1.0), accuracy(3.0, 1.0), accuracy(1.0, 0.0)), (Some(0.75), Some(-1.0), None));
    let base = Profile::named("host").expect("built in");
    let slow = hidden(base);
    let section = measured(&slow, base, &kernels(3, 60), 5).sections.into_values().next().expect("one");
    let remarks = off(&section, base);
    assert!(!remarks.is_empty());
    assert!(remarks.iter().all(|r| r.rule == "off" && r.message.contains("times")), "{remarks:?}");
    let exact = measured(base, base, &kernels(3, 9), 5).sections.into_values().next().expect("one");
    assert_eq!(off(&exact, base), []);
    assert!(Judgement::of_section(&exact, base).all.median < 0.03);
}
