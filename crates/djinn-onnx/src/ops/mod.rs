//! The operators: one import function each, in one table `(domain, operator, since version) → function`.

mod activation;
mod attention;
mod control;
mod conv;
mod einsum;
mod elementwise;
mod indexing;
mod linear;
mod movement;
mod norm;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod shape;
mod slicing;

use crate::node::Handler;
use std::collections::BTreeMap;

/// One row: an operator from this version of its operator set on.
pub(crate) struct Entry {
    domain: &'static str,
    name: &'static str,
    since: i64,
    handler: Handler,
}

/// A row of the default domain.
const fn row(name: &'static str, since: i64, handler: Handler) -> Entry {
    Entry { domain: "", name, since, handler }
}

/// All rows by domain and operator.
pub(crate) type Table = BTreeMap<(&'static str, &'static str), Vec<&'static Entry>>;

/// The whole table.
pub(crate) fn table() -> Table {
    let families = [
        elementwise::OPS,
        activation::OPS,
        shape::OPS,
        slicing::OPS,
        movement::OPS,
        indexing::OPS,
        reduce::OPS,
        norm::OPS,
        linear::OPS,
        einsum::OPS,
        conv::OPS,
        resize::OPS,
        sample::OPS,
        attention::OPS,
        recurrent::OPS,
        control::OPS,
    ];
    let mut table = Table::new();
    for entry in families.into_iter().flatten() {
        table.entry((entry.domain, entry.name)).or_default().push(entry);
    }
    table
}

/// The function for an operator in a version of its operator set.
pub(crate) fn find(table: &Table, domain: &str, name: &str, version: i64) -> Option<Handler> {
    let rows = table.get(&(domain, name))?;
    rows.iter().filter(|e| e.since <= version).max_by_key(|e| e.since).map(|e| e.handler)
}
