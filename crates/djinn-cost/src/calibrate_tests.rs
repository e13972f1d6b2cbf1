//! Tests of fitting: known coefficients are found, files round-trip, and the committed `host` profile is what its
//! measurements give.

use super::*;

const HOST: &str = include_str!("../../djinn-device/profiles/host.csv");

#[test]
fn the_host_profile_is_what_its_measurements_give() {
    let host = Profile::named("host").expect("built in");
    let measurements = from_csv(HOST, "host.csv").expect("valid");
    let source = &host.sources["class.contraction"].source;
    let fit = fit(host, &measurements, source).expect("enough");
    assert!(fit.profile == *host, "host.toml is not what host.csv gives: calibrate again");
    let all = fit.report.all;
    assert!(all.count > 200 && all.median < 0.10 && all.p90 < 0.35, "{all:?}");
    for class in &fit.report.classes {
        assert!(class.held_out.median < 0.20, "{class:?}");
    }
    // The profile predicts its own held-out measurements as the fit says, whoever asks.
    assert_eq!(judge(host, &measurements), fit.report);
}

/// Measurements of an operation with known coefficients; every seventh is disturbed threefold.
fn made_up(profile: &Profile, kind: OpKind, disturbed: bool) -> Vec<Measurement> {
    let mut state = 5u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        2f64.powf((state >> 40) as f64 / 1e6)
    };
    let measurement = |i: usize| {
        let (elements, bytes, flops) = (random().floor(), random().floor(), random().floor());
        let mut work = Work {
            flops,
            bytes_read: bytes,
            bytes_written: 0.0,
            elements,
            half_bytes: 0.0,
            launches: 1.0,
            passes: 1.0,
        };
        let seconds = work.seconds(profile, kind, Some(DType::F32));
        if i % 9 == 8 {
            work.half_bytes = bytes;
        }
        let seconds = seconds + profile.half_seconds_per_byte * work.half_bytes;
        let seconds = if disturbed && i % 7 == 6 { 3.0 * seconds } else { seconds };
        Measurement { kind, dtype: DType::F32, work, operands: "a,b".to_owned(), seconds }
    };
    (0..300).map(measurement).collect()
}

#[test]
fn known_coefficients_are_found_in_spite_of_disturbances() {
    let mut known = Profile::named("host").expect("built in").clone();
    let own = Rates {
        overhead_seconds: 1e-6,
        per_element: 3e-9,
        per_flop: 4e-11,
        per_byte: 2e-10,
        ..Rates::default()
    };
    known.ops = BTreeMap::from([("matmul".to_owned(), own)]);
    known.half_seconds_per_byte = 1.5e-9;
    for disturbed in [false, true] {
        let fit = fit(&known, &made_up(&known, OpKind::MatMul, disturbed), "made up").expect("enough");
        let found = fit.profile.ops["matmul"];
        let launch = fit.profile.launch_seconds + found.overhead_seconds;
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.02;
        assert!(near(launch, known.launch_seconds + 1e-6), "{launch}");
        assert!(near(found.per_element, 3e-9) && near(found.per_flop, 4e-11), "{found:?}");
        assert!(near(found.per_byte, 2e-10) && near(fit.profile.half_seconds_per_byte, 1.5e-9));
        assert!(fit.report.all.median < 0.02, "{:?}", fit.report);
    }
}

#[test]
fn coefficients_are_the_best_that_are_not_negative() {
    // The least squares would take a negative second coefficient; without it the first is the mean.
    let row = |a: f64, b: f64, rest| Row { features: [a, b, 0.0, 0.0], rest };
    let rows = [row(1.0, 1.0, 3.0), row(1.0, 2.0, 2.0), row(1.0, 3.0, 1.0)];
    assert!((least_squares(&rows, &[1.0; 3])[0] - 2.0).abs() < 1e-12);
    assert_eq!(least_squares(&rows, &[1.0; 3])[1], 0.0);
    assert_eq!(least_squares(&[], &[]), [0.0; 4]);
}

#[test]
fn files_of_measurements_round_trip() {
    let host = Profile::named("host").expect("built in");
    let mut all = made_up(host, OpKind::Gelu, true);
    all.iter_mut().for_each(|m| (m.operands, m.seconds) = ("a;b".to_owned(), 1.25e-6));
    assert_eq!(from_csv(&to_csv(&all), "m.csv"), Ok(all));
    for (text, line) in [
        ("", "line 1"),
        ("op,seconds\n", "line 1"),
        (&format!("{HEADER}\ngelu,f32,1,2"), "line 2"),
        (&format!("{HEADER}\ngelu,f32,1,2,3,4,5,6,7,nan,x"), "line 2"),
        (&format!("{HEADER}\ngelu,f32,1,2,3,4,5,6,7,-1,x"), "line 2"),
        (&format!("{HEADER}\nglue,f32,1,2,3,4,5,6,7,1,x"), "line 2"),
        (&format!("{HEADER}\ngelu,f33,1,2,3,4,5,6,7,1,x"), "line 2"),
    ] {
        let e = from_csv(text, "m.csv").expect_err(text);
        assert_eq!(
            (e.code.as_str(), &e.place[..]),
            ("calibrate.csv", &["m.csv".to_owned(), line.to_owned()][..])
        );
    }
}

#[test]
fn too_few_or_impossible_measurements_are_refused() {
    let host = Profile::named("host").expect("built in");
    let mut some = made_up(host, OpKind::Gelu, false);
    assert_eq!(fit(host, &some[..2], "x").map_err(|e| e.code), Err("calibrate.samples".to_owned()));
    assert_eq!(fit(host, &[], "x").map_err(|e| e.code), Err("calibrate.samples".to_owned()));
    some[3].seconds = 0.0;
    assert_eq!(fit(host, &some, "x").map_err(|e| e.code), Err("calibrate.seconds".to_owned()));
}
