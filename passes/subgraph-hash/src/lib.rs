//! Structural hashes, outlining of repeated regions into functions, and inlining.
//!
//! - [`Outline`] makes one private function of a region that comes again (the layers of a transformer), so that what
//!   follows works on it once; [`Inline`] is its inverse;
//! - [`Repeats`] only says where such regions are, for engines to be cut there;
//! - `repeats`: repeated runs in a sequence of tokens; `sequence`: a body as such a sequence; `instances`: the
//!   function that stands for the instances of a region; `scopes`: their places in the model's code;
//! - [`engine_hash`] says whether one engine can stand for several regions; [`region_hash`] and [`function_hash`] say what is computed, whatever it is called; [`same_region`] and
//!   [`same_function`] prove that two of the same hash are the same; `labels`: what both are made of.

mod inline;
mod instances;
mod labels;
mod mark;
mod outline;
mod repeats;
mod same;
mod scopes;
mod sequence;

pub use djinn_ir::{graph_hash, program_hash};
pub use inline::{INLINE, Inline, inlined};
pub use mark::{REPEATS, Repeats, make as make_repeats};
pub use outline::{OUTLINE, Outline, make as make_outline};
pub use same::{
    Correspondence, LITERAL_ELEMENTS, RegionHash, engine_hash, function_hash, region_hash, same_engine,
    same_function, same_region,
};
