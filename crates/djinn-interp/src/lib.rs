//! The reference evaluator: what every operation of the op table computes, slowly and obviously.
//!
//! - [`eval_op`] evaluates one operation on concrete operands;
//! - [`run`] and [`run_traced`] evaluate a function of a module;
//! - [`Env`] holds the values of symbols and solves them from concrete shapes;
//! - [`compare`] judges an actual tensor against an expected one.
//!
//! Numerics: integers are exact and wrap. Floats of every width are computed in `f64` and rounded to the element
//! type once per operation, to nearest even; sums of products accumulate in `f64`.
//!
//! Invariant: sequential, deterministic, and free of panics for any input; what cannot be evaluated is a
//! diagnostic. Every operation has its arm in one exhaustive match (`eval.rs`).

mod attention;
mod call;
mod compare;
mod contraction;
mod control;
mod dynamic;
mod elementwise;
mod env;
mod eval;
mod index;
mod indexing;
mod movement;
mod norm;
mod recurrent;
mod reduce;
mod resize;
mod run;
mod tensor;
mod window;

pub use compare::{Mismatch, Report, Tolerance, Worst, compare};
pub use env::Env;
pub use eval::{Weights, eval_op};
pub use run::{Outputs, run, run_traced};
pub use tensor::MAX_ELEMENTS;
