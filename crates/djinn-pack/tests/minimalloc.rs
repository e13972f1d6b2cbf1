//! The challenging instances of MiniMalloc that are copied into this crate.

use djinn_pack::{Conflicts, Fit, Limits, Problem, check, fit, pack};

fn instance(name: &str) -> Problem {
    let path = format!("{}/testdata/minimalloc/{name}.csv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the file is there");
    Problem::from_csv(&text).expect("the file is well formed")
}

#[test]
fn the_example_fits_12_bytes_and_no_less() {
    let problem = instance("input.12");
    let found = pack(&problem, &Limits::quick());
    assert_eq!((found.height, found.lower_bound), (12, 12));
    let Fit::Impossible { proof } = fit(&problem, 11, &Limits::quick()) else { panic!("11 is too little") };
    assert_eq!(proof.to_string(), "buffers that are live together need 12 bytes");
}

#[test]
fn a_and_e_fit_their_capacity() {
    let limits = Limits { climb_steps: 0, ..Limits::thorough() };
    for name in ["A.1048576", "E.1048576"] {
        let problem = instance(name);
        let Fit::Packed(offsets) = fit(&problem, 1_048_576, &limits) else {
            panic!("{name} is known to fit")
        };
        check(&problem, &offsets, 1_048_576).expect("a valid packing");
    }
}

#[test]
fn c_is_packed_at_its_bound() {
    let problem = instance("C.1048576");
    let found = pack(&problem, &Limits::default());
    assert_eq!((found.height, found.lower_bound), (1_039_360, 1_039_360));
    check(&problem, &found.offsets, found.height).expect("a valid packing");
}

#[test]
fn c_is_packed_at_its_bound_from_its_pairs_alone() {
    let problem = instance("C.1048576");
    let all = problem.buffers();
    let mut pairs = Vec::new();
    for i in 0..all.len() {
        for j in 0..i {
            if all[i].lower < all[j].upper && all[j].lower < all[i].upper {
                pairs.push((i, j));
            }
        }
    }
    let conflicts = Conflicts::from_pairs(all.len(), &pairs).expect("valid");
    let problem = Problem::with_conflicts(all.to_vec(), conflicts).expect("valid");
    let found = pack(&problem, &Limits::default());
    assert_eq!((found.height, found.lower_bound), (1_039_360, 1_039_360));
    check(&problem, &found.offsets, found.height).expect("a valid packing");
}
