//! Packing of buffers into one arena: exact search, anytime, with a proved lower bound; knows no IR.
//!
//! A [`Problem`] is a list of buffers with sizes and alignments, and a relation that says which of them may
//! never share bytes: their lifetimes overlap (one stream), or pairs are given (several streams, where
//! lifetimes are only partly ordered). [`pack`] looks for offsets of least height, [`fit`] for offsets within
//! a capacity. The work goes through these steps and ends as soon as the lower bound is reached:
//!
//! 1. greedy packings by size, by birth, by load and others (`greedy`), among them what widely used runtimes
//!    do ([`baseline`]);
//! 2. the exact search of MiniMalloc with stronger bounds (`exact`), first with few steps;
//! 3. a hill climb over the order of placing (`climb`);
//! 4. the exact search in rounds of growing steps, on a shrinking capacity.
//!
//! Steps 2 to 4 are bounded by [`Limits`]. The result depends on the input alone: there is no clock and no
//! iteration in hash order. [`check`] verifies a packing and shares no code with the search.
//!
//! ```
//! use djinn_pack::{Buffer, Limits, Problem, check, pack};
//!
//! let problem = Problem::intervals(vec![
//!     Buffer::new(0, 2, 64).aligned(64),
//!     Buffer::new(1, 3, 100).aligned(64),
//!     Buffer::new(2, 4, 64).aligned(64),
//! ])?;
//! let packing = pack(&problem, &Limits::quick());
//! assert_eq!((packing.height, packing.lower_bound), (164, 164));
//! assert_eq!(check(&problem, &packing.offsets, packing.height), Ok(()));
//! # Ok::<(), djinn_pack::ProblemError>(())
//! ```

pub mod baseline;
mod check;
mod climb;
mod csv;
mod exact;
mod greedy;
mod instance;
mod problem;
mod random;
mod solve;

pub use check::{Violation, check};
pub use csv::CsvError;
pub use problem::{Buffer, Conflicts, Lifetimes, MAX_BUFFERS, MAX_TOTAL, Problem, ProblemError};
pub use solve::{Fit, Limits, Outcome, Proof, StopReason, fit, pack};
