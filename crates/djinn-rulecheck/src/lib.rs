//! Checks rewrite rules by the reference evaluator, and checks itself by mutants of the rules.
//!
//! - [`check_rule`] makes instances of a rule's left side from its examples (sizes, element types, values and
//!   single properties varied), applies the rule with the real engine, and compares both sides over floats
//!   and over a pair of finite fields;
//! - [`mutation_report`] breaks rules on purpose and counts how many of the broken ones are found out.
//!
//! Method: random testing against an oracle; probabilistic identity testing over finite fields after Mirage
//! (Wu et al., OSDI 2025); mutation analysis after DeMillo, Lipton and Sayward, "Hints on Test Data Selection"
//! (1978).
//!
//! Invariant: no clock, no file system and no hash order; equal rules and configuration give equal reports.

mod case;
mod check;
mod evaluate;
mod field;
mod instance;
mod mutants;
mod mutation;
mod perturb;
mod rng;
mod slots;
mod values;

pub use check::{Config, Report, RuleReport, check_rule, check_rules};
pub use field::FieldOutcome;
pub use mutation::{MutationReport, Outcome, Tally, mutation_report};
