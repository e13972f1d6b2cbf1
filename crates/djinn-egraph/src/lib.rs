//! Equality saturation over IR bodies.
//!
//! - [`language`]: one e-node per operation of the op table; types, constants and shape values as e-class analyses;
//! - [`rule`], [`functions`], [`sexpr`]: the `.rw` rule language;
//! - [`matcher`], [`saturate`]: applying rules under named limits, with per-rule counters;
//! - [`region`]: IR bodies to e-graphs and, by DAG extraction, back.
//!
//! Invariant: no clock and no hash order decides a result; the same body, rules and limits give the same body.

pub mod functions;
pub mod language;
pub mod matcher;
pub mod region;
pub mod rule;
pub mod saturate;
pub mod sexpr;
