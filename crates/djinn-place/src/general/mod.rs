//! Problems with devices of any kind, any links between them, and bytes shared by tasks.

mod bound;
pub(crate) mod cost;
mod line;
mod local;
pub(crate) mod problem;
pub(crate) mod solve;
mod tree;
