//! Two passes that need no search.
//!
//! - `canonicalize`: shape arithmetic becomes symbolic sizes, common subexpressions are merged, dead code goes.
//! - `fold-weights`: what depends on weights and literals only is computed once and becomes a weight or a literal.
//!
//! Both: Requires a verified module. Ensures a verified module that computes the same bits. Preserves signatures.

mod canonicalize;
mod fold;

pub use canonicalize::{CANONICALIZE, Canonicalize};
pub use fold::{FOLD_WEIGHTS, FoldWeights};
