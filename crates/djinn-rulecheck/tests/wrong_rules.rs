//! Wrong rules, each with the flaw that a reviewer might overlook: the checker refuses them and says why.

use djinn_egraph::rule::parse_rules;
use djinn_rulecheck::{Config, RuleReport, check_rule, check_rules};

fn check(text: &str) -> RuleReport {
    let rules = parse_rules("wrong.rw", text).unwrap_or_else(|e| panic!("{e}"));
    check_rule(&rules[0], &Config::default())
}

/// The rule is refused, with this in the reasons.
fn refuses(text: &str, reason: &str) {
    let report = check(text);
    let reasons = report.failures.join("\n");
    assert!(!report.passed(), "'{}' passes", report.name);
    assert!(reasons.contains(reason), "expected '{reason}' in:\n{reasons}");
}

#[test]
fn a_wrong_constant() {
    refuses(
        r#"(rule gelu "GELU with a constant that is off." (class reassoc)
          (from (mul (mul ?x 0.5) (add (erf (mul ?x ?c)) 1.0))) (to (gelu :approximate none ?x))
          (where (splat ?c) (near (value ?c) 0.7072))
          (given (?x f32 (a b)) (?c const f32 0.7072)))"#,
        "on the right",
    );
    refuses(
        r#"(rule silu "SiLU of the negated value." (class reassoc)
          (from (mul ?x (sigmoid (neg ?x)))) (to (silu ?x)) (given (?x f32 (a b))))"#,
        "on the right",
    );
}

#[test]
fn transposes_composed_in_the_wrong_order() {
    refuses(
        r#"(rule transposes "The inner one is applied last." (class exact)
          (from (transpose :perm ?q (transpose :perm ?p ?x))) (to (transpose :perm (compose ?q ?p) ?x))
          (given (?x f32 (a b c)) (?p attr (1 2 0)) (?q attr (0 2 1))))"#,
        "does not match",
    );
    refuses(
        r#"(rule transposes-of-a-cube "The types do not show it where all sizes are equal." (class exact)
          (from (transpose :perm ?q (transpose :perm ?p ?x))) (to (transpose :perm (compose ?q ?p) ?x))
          (given (?x f32 (3 3 3)) (?p attr (1 2 0)) (?q attr (0 2 1))))"#,
        "on the right",
    );
}

#[test]
fn a_slice_that_is_off_by_one() {
    refuses(
        r#"(rule slices "Both bounds are moved one too far." (class exact)
          (from (slice :axis ?a :start ?s :limit ?l :stride 1 (slice :axis ?a :start ?t :limit ?k :stride 1 ?x)))
          (to (slice :axis ?a :start (+ ?s ?t 1) :limit (+ ?l ?t 1) :stride 1 ?x))
          (given (?x f32 (a 9)) (?a attr 1) (?s attr 1) (?l attr 4) (?t attr 2) (?k attr 8)))"#,
        "on the right",
    );
}

#[test]
fn a_missing_condition_on_padding() {
    refuses(
        r#"(rule conv-pad "Padding with any value belongs to the convolution." (class reassoc)
          (from (conv :strides ?st :pads (repeat 0 4) :dilations ?d :groups ?g (pad :mode constant :low ?l :high ?h ?x ?z) ?w))
          (to (conv :strides ?st :pads (join (skip ?l 2) (skip ?h 2)) :dilations ?d :groups ?g ?x ?w))
          (where (= (len ?l) 4) (splat ?z))
          (given (?x f32 (a 2 b+2 c+2)) (?w weight f32 (3 2 3 3)) (?z const f32 0.0) (?l attr (0 0 1 1)) (?h attr (0 0 1 2))
                 (?st attr (1 1)) (?d attr (1 1)) (?g attr 1)))"#,
        "on the right",
    );
}

#[test]
fn siblings_sliced_at_the_wrong_place() {
    refuses(
        r#"(siblings merge "Every member gets the first columns." (class reassoc) (shared ?x)
          (from (matmul ?x ?w))
          (to (slice :axis (- (rank ?x) 1) :start 0 :limit (dim ?w 1) :stride 1 (matmul ?x (concat :axis 1 ?w...))))
          (where (weight ?w) (= (rank ?w) 2) (>= (rank ?x) 2))
          (given (?x f32 (a b 4)) (?w weight f32 (4 n))))"#,
        "on the right",
    );
}

#[test]
fn a_class_that_promises_too_much() {
    refuses(
        r#"(rule div "A division by three is a product, bit for bit." (class exact)
          (from (div ?x 3.0)) (to (mul ?x (scalar 0.33333333333333331 ?x))) (given (?x f32 (a b))))"#,
        "on the right",
    );
    refuses(
        r#"(rule zero "Adding zero keeps even the sign of zero." (class exact)
          (from (add ?x 0.0)) (to ?x) (given (?x f32 (a b))))"#,
        "0.0 on the left",
    );
}

#[test]
fn a_rule_for_floats_that_takes_integers() {
    refuses(
        r#"(rule inverse "Integers divide by their inverse, too." (class reassoc)
          (from (div ?x ?c)) (to (mul ?x (scalar (/ 1.0 (value ?c)) ?x))) (where (splat ?c) (= (value ?c) 3.0))
          (given (?x f32 (a b)) (?c const f32 3.0)))"#,
        "i64 for f64",
    );
}

#[test]
fn sizes_that_are_equal_only_in_the_example() {
    refuses(
        r#"(rule masked "A mask of more keys than there are widens the scores." (class reassoc)
          (from (matmul (softmax :axis 3 (add (matmul ?q ?k) ?m)) ?v))
          (to (sdpa :scale 1.0 :causal false :causal_offset 0 :query_heads 0 :kv_heads 0 ?q (transpose :perm (ints 0 1 3 2) ?k) ?v ?m))
          (where (= (rank ?q) 4) (= (rank ?k) 4) (= (rank ?v) 4)
                 (= (dim ?q 0) (dim ?k 0)) (= (dim ?q 1) (dim ?k 1)) (= (dim ?q 0) (dim ?v 0)) (= (dim ?q 1) (dim ?v 1)))
          (given (?q f32 (a b c 4)) (?k f32 (a b 4 d)) (?m f32 (a 1 c d)) (?v f32 (a b d 4))))"#,
        "widths and lengths agree",
    );
}

#[test]
fn examples_that_say_too_little() {
    refuses(
        r#"(rule sums "The axes are nowhere given." (class exact)
          (from (reduce_sum :axes ?a :keepdims true ?x)) (to ?x) (given (?x f32 (a b))))"#,
        "must give attribute 'axes' of 'reduce_sum'",
    );
    refuses(
        r#"(rule guard "The example breaks the condition." (class exact)
          (from (relu (relu ?x))) (to (relu ?x)) (where (int ?x)) (given (?x f32 (a b))))"#,
        "does not match",
    );
}

#[test]
fn two_rules_of_one_name() {
    let text = r#"(rule twice "Once." (class exact) (from (abs (abs ?x))) (to (abs ?x)) (given (?x f32 (a))))
                  (rule twice "Again." (class exact) (from (neg (neg ?x))) (to ?x) (given (?x f32 (a))))"#;
    let rules = parse_rules("wrong.rw", text).unwrap_or_else(|e| panic!("{e}"));
    let report = check_rules(&rules, &Config::default());
    let failures: Vec<&str> = report.failures().flat_map(|r| &r.failures).map(String::as_str).collect();
    assert_eq!(failures, ["the rule at wrong.rw:1 has the same name"]);
}
