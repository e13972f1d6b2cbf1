//! Structural hashes, outlining of repeated regions into functions, and inlining.
//!
//! - [`Outline`] makes one private function of a region that comes again (the layers of a transformer), so that what
//!   follows works on it once; [`Inline`] is its inverse;
//! - `repeats`: repeated runs in a sequence of tokens; `sequence`: a body as such a sequence; `instances`: the
//!   function that stands for the instances of a region; `scopes`: their places in the model's code;
//! - [`region_hash`] and [`function_hash`] say what is computed, whatever it is called; [`same_region`] and
//!   [`same_function`] prove that two of the same hash are the same; `labels`: what both are made of.

mod inline;
mod instances;
mod labels;
mod outline;
mod repeats;
mod same;
mod scopes;
mod sequence;

pub use djinn_ir::{graph_hash, program_hash};
pub use inline::{INLINE, Inline, inlined};
pub use outline::{OUTLINE, Outline, make as make_outline};
pub use same::{Correspondence, RegionHash, function_hash, region_hash, same_function, same_region};
