//! Library operations on the host: what a loop program is not good at.
//!
//! - [`Operation::new`] takes an operation of the op table with concrete types, checks it and lays out its work;
//! - [`Operation::run`] computes it on bytes, in place: operands and results are slices of the caller's memory;
//! - [`supports`] says which operations have an implementation here at all.
//!
//! Matrix products, convolutions, transposed convolutions, attention, LSTMs and pools, in `f32` and `f64`; `f16` and
//! `bf16` are computed in `f32` and rounded once. The meaning is that of `djinn_interp`, up to the order of sums.
//!
//! Products are those of `matrixmultiply` (packed panels, AVX and FMA where the processor has them), which was level
//! with `gemm` 0.18 on matrices and builds in a tenth of the time; products with a vector, at which it is thirty times
//! slower, are loops of this crate (`gemm.rs`).
//!
//! Invariant: one thread, and the same bytes for the same operands on the same machine. Work memory is bounded: by
//! [`WORKSPACE_ELEMENTS`] or one column of what is multiplied, whichever is more, beside copies of `f16` operands.
//!
//! Invariant: what does not fit together is declined, never computed: the evaluator then says what is wrong with it.

mod attention;
mod conv;
mod gemm;
mod lstm;
mod matmul;
mod operation;
mod pool;
mod real;
mod windows;

pub use operation::{Operation, supports};

/// Elements of the matrices that convolutions and attention gather, at most, unless one column has more.
pub const WORKSPACE_ELEMENTS: usize = 1 << 18;

/// Elements of one operand or result, at most: as for the evaluator.
pub(crate) const MAX_ELEMENTS: usize = 1 << 30;
