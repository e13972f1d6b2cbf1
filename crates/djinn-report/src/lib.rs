//! What a plan does, for people.
//!
//! - [`explain()`]: text for a terminal, at most 100 columns wide;
//! - [`explain_measured()`]: the same, with what was measured beside it;
//! - [`explain_built()`]: the engines of a bundle and what they are made of;
//! - [`html()`]: one self-contained page: graph, placement, timeline, memory map, costs, rewrites.
//!
//! Both read the plan, its simulation and, where it is given, the module; both give the same bytes for the same input.
//! Nothing here computes a plan, and nothing a plan or module holds (names, numbers out of range) makes this crate fail:
//! what cannot be shown is left out, and the text says so.

mod built;
mod engines;
mod explain;
mod facts;
mod html;
mod limit;
mod measured;
mod names;
mod path;
mod scopes;
mod table;
mod units;

pub use built::{Built, BuiltEngine, BuiltLayer, BuiltPort, BuiltRefusal, explain_built};
pub use explain::{explain, explain_measured};
pub use html::{Page, html};
pub use measured::{ALARM, Measured, MeasuredEntry};
