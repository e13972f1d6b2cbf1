//! Equality saturation over IR bodies.
//!
//! - [`language`]: one e-node per operation of the op table; types, constants and shape values as e-class analyses;
//! - [`rule`], [`functions`], [`sexpr`]: the `.rw` rule language;
//! - [`matcher`], [`saturate`]: applying rules under named limits, with per-rule counters;
//! - [`region`], [`extraction`]: IR bodies to e-graphs and, by DAG extraction, back;
//! - [`forms`]: what several bodies store of the same weights.
//!
//! Invariant: no clock and no hash order decides a result; the same body, rules and limits give the same body.

pub mod extraction;
pub mod forms;
pub mod functions;
pub mod language;
pub mod matcher;
pub mod region;
pub mod rule;
pub mod saturate;
pub mod sexpr;
