//! Malformed, extreme and large input.

use djinn_pack::{
    Buffer, Conflicts, Fit, Limits, Problem, ProblemError, StopReason, Violation, check, fit, pack,
};

/// The message for a file of the usual header and these rows.
fn message(rows: &str) -> String {
    Problem::from_csv(&format!("id,lower,upper,size\n{rows}")).expect_err("refused").to_string()
}

#[test]
fn errors_name_the_line() {
    assert_eq!(
        message("a,0,2,1\nb,0,NaN,1\n"),
        "line 3, column 5: upper is \"NaN\", not an integer of at most 64 bits"
    );
    assert_eq!(
        message("a,0,2,-1\n"),
        "line 2, column 7: size is \"-1\", not a natural number of at most 64 bits"
    );
    assert_eq!(
        message("a,0,2,1e3\n"),
        "line 2, column 7: size is \"1e3\", not a natural number of at most 64 bits"
    );
    assert_eq!(message("a,2,2,1\n"), "line 2: buffer 0: the lifetime 2..2 is empty; upper is exclusive");
    assert_eq!(message("a,0,2\n"), "line 2: there are fewer than 4 fields");
    assert_eq!(message("a,0,2,1,\n"), "line 2, column 9: there are more than 4 fields");
    assert_eq!(message("a,0,2,1\n\na,0,2,1\n"), "line 4: the id \"a\" stands on line 2 too");
    assert!(message("a,0,2,18446744073709551616\n").starts_with("line 2, column 7: size is"));
    assert!(message("a,0,1,9223372036854775807\n").starts_with("line 2: buffer 0: all buffers together"));
    let error = |text: &str| Problem::from_csv(text).expect_err("refused").to_string();
    assert_eq!(error(""), "line 1: there is no header");
    assert_eq!(error("id,lower,upper\n"), "line 1: the column size is missing");
    assert_eq!(error("id,id,upper\n"), "line 1, column 4: the column id stands twice");
    assert!(error("id,lower,upper,size,gaps\n").starts_with("line 1, column 21: unknown column \"gaps\""));
    let wide = "id,lower,upper,size,alignment,offset\n";
    assert!(error(&format!("{wide}a,0,1,4,3,\n")).starts_with("line 2: buffer 0: the alignment 3"));
    assert!(error(&format!("{wide}a,0,1,4,4,2\n")).starts_with("line 2: buffer 0: the offset 2"));
    assert!(error(&format!("{wide}a,0,2,4,,0\nb,1,3,4,,2\n")).starts_with("line 3: buffers 0 and 1"));
}

#[test]
fn columns_stand_in_any_order_and_offsets_are_read_back() {
    let problem =
        Problem::from_csv("size,alignment,upper,id,lower\n5,4,2,x,0\n3,,3,y,1\n").expect("well formed");
    let found = pack(&problem, &Limits::quick());
    let text = problem.to_csv_with_offsets(&found.offsets);
    let fixed = Problem::from_csv(&text).expect("well formed");
    assert_eq!(pack(&fixed, &Limits::quick()).offsets, found.offsets);
    assert_eq!(found.height, 8);
}

#[test]
fn extreme_numbers_do_not_overflow() {
    let far = vec![
        Buffer::new(i64::MIN, i64::MAX, 1 << 59),
        Buffer::new(i64::MIN, 0, 1),
        Buffer::new(0, i64::MAX, 1),
    ];
    let problem = Problem::intervals(far).expect("valid");
    let found = pack(&problem, &Limits::quick());
    assert_eq!(found.height, (1 << 59) + 1);
    assert_eq!(check(&problem, &found.offsets, found.height), Ok(()));
    let too_large = vec![Buffer::new(0, 1, 1).aligned(1 << 62)];
    assert_eq!(Problem::intervals(too_large), Err(ProblemError::TooLarge { buffer: 0 }));
    assert_eq!(
        check(&problem, &[u64::MAX, 0, 0], u64::MAX),
        Err(Violation::AboveCapacity { buffer: 0, end: u64::MAX })
    );
    let nothing = Problem::intervals(Vec::new()).expect("valid");
    assert_eq!(pack(&nothing, &Limits::quick()).height, 0);
    assert_eq!(fit(&nothing, 0, &Limits::quick()), Fit::Packed(Vec::new()));
}

#[test]
fn buffers_of_no_bytes_conflict_with_nothing() {
    let buffers = vec![Buffer::new(0, 2, 0), Buffer::new(0, 2, 4).at(0), Buffer::new(0, 2, 0).at(2)];
    let problem = Problem::intervals(buffers).expect("valid");
    let found = pack(&problem, &Limits::quick());
    assert_eq!(found.height, 4);
    assert_eq!(check(&problem, &found.offsets, 4), Ok(()));
}

#[test]
fn bad_conflicts_are_refused() {
    assert_eq!(Conflicts::from_pairs(2, &[(0, 2)]), Err(ProblemError::BadPair { pair: (0, 2) }));
    assert_eq!(Conflicts::from_pairs(2, &[(1, 1)]), Err(ProblemError::BadPair { pair: (1, 1) }));
    let of_three = Conflicts::from_pairs(3, &[]).expect("valid");
    let refused = Problem::with_conflicts(vec![Buffer::sized(1)], of_three);
    assert_eq!(refused, Err(ProblemError::WrongCount { buffers: 1, rows: 3 }));
}

#[test]
fn every_kind_of_violation_is_seen() {
    let buffers = vec![Buffer::new(0, 2, 4).aligned(4), Buffer::new(1, 3, 4), Buffer::new(2, 4, 4).at(0)];
    let problem = Problem::intervals(buffers).expect("valid");
    assert_eq!(check(&problem, &[0, 4, 0], 8), Ok(()));
    assert_eq!(check(&problem, &[0, 4], 8), Err(Violation::WrongCount { buffers: 3, offsets: 2 }));
    assert_eq!(check(&problem, &[2, 4, 0], 8), Err(Violation::Misaligned { buffer: 0, offset: 2 }));
    assert_eq!(check(&problem, &[0, 4, 1], 8), Err(Violation::Moved { buffer: 2, fixed: 0, offset: 1 }));
    assert_eq!(check(&problem, &[0, 5, 0], 8), Err(Violation::AboveCapacity { buffer: 1, end: 9 }));
    assert_eq!(check(&problem, &[0, 3, 0], 8), Err(Violation::Overlap { first: 0, second: 1 }));
    assert_eq!(check(&problem, &[4, 2, 0], 8), Err(Violation::Overlap { first: 0, second: 1 }));
}

/// Buffers of a chain of layers with skip connections.
fn layers(n: usize) -> Vec<Buffer> {
    let mut state = 7u64;
    (0..n as i64)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = if i % 7 == 0 { 40 + (state >> 60) as i64 } else { 1 + (state >> 61) as i64 };
            Buffer::new(i, i + 1 + length, (1 + (state >> 40) % 512) * 64).aligned(64)
        })
        .collect()
}

#[test]
fn many_buffers_are_packed_near_the_bound() {
    let problem = Problem::intervals(layers(20_000)).expect("valid");
    let found = pack(&problem, &Limits::quick());
    check(&problem, &found.offsets, found.height).expect("a valid packing");
    assert!(found.height as f64 <= 1.1 * found.lower_bound as f64, "{} {}", found.height, found.lower_bound);
}

#[test]
fn buffers_that_all_conflict_do_not_blow_up() {
    let buffers: Vec<Buffer> = (0..20_000).map(|i| Buffer::new(-i, i + 1, 64).aligned(64)).collect();
    let problem = Problem::intervals(buffers).expect("valid");
    let found = pack(&problem, &Limits::quick());
    assert_eq!((found.height, found.stopped_by), (20_000 * 64, StopReason::Optimal));
}

#[test]
fn a_file_of_a_million_lines_is_packed() {
    let mut text = String::from("id,lower,upper,size\n");
    for i in 0..1_000_000u64 {
        text.push_str(&format!("{i},{},{},{}\n", i / 4, i / 4 + 3, 16 + i % 5));
    }
    let problem = Problem::from_csv(&text).expect("well formed");
    let found = pack(&problem, &Limits { climb_steps: 0, search_steps: 0 });
    check(&problem, &found.offsets, found.height).expect("a valid packing");
}
