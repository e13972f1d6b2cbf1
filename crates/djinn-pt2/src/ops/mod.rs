//! The operator table: which function translates which operator of torch.
//!
//! Operators of torch's library are listed by their bare name, whatever the overload: translations look at the
//! arguments that are there. In-place forms (`add_`) and `out` forms need no entry of their own.

mod activation;
mod control;
mod create;
mod einsum;
mod elementwise;
mod index;
mod lstm;
mod matmul;
mod movement;
mod nn;
mod norm;
mod pool;
mod reduce;
mod symbols;
mod views;

use crate::context::{Call, Cx, Ret};
use djinn_diag::Result;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Translates one call.
pub(crate) type Handler = for<'p> fn(&mut Cx<'p>, &Call<'p>) -> Result<Ret>;

/// Entries of one family.
type Table = &'static [(&'static str, Handler)];

/// All families.
const TABLES: &[Table] = &[
    activation::TABLE,
    control::TABLE,
    create::TABLE,
    einsum::TABLE,
    elementwise::TABLE,
    index::TABLE,
    lstm::TABLE,
    matmul::TABLE,
    movement::TABLE,
    nn::TABLE,
    norm::TABLE,
    pool::TABLE,
    reduce::TABLE,
    symbols::TABLE,
    views::TABLE,
];

/// Checks that torch made while tracing; they hold for every input that the program accepts.
const DROPPED: &[&str] = &[
    "_assert_tensor_metadata",
    "_assert_async",
    "_assert_scalar",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
    "_functional_assert_async",
    "_functional_assert_scalar",
    "_functional_sym_constrain_range",
    "_functional_sym_constrain_range_for_size",
];

/// Is this operator a mere check?
pub(crate) fn is_dropped(base: &str) -> bool {
    DROPPED.contains(&base)
}

/// The translation of an operator.
pub(crate) fn find(base: &str) -> Option<Handler> {
    static INDEX: OnceLock<BTreeMap<&'static str, Handler>> = OnceLock::new();
    let index = INDEX.get_or_init(|| TABLES.iter().flat_map(|t| t.iter().copied()).collect());
    index.get(base).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_one_entry() {
        let mut names: Vec<&str> = TABLES.iter().flat_map(|t| t.iter().map(|(n, _)| *n)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|n| find(n).is_some() && !is_dropped(n)));
    }
}
