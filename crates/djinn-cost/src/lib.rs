//! What an operation, a fused group or a transfer costs on a device.
//!
//! - [`Work`]: what an operation asks for (operations, bytes, elements, launches), in numbers or in symbolic sizes;
//! - [`CostModel`]: seconds of that work on a device profile, with symbols bound or guessed;
//! - [`SymbolicCost`]: an operation analysed once, to be costed under any sizes;
//! - [`Features`]: a kernel as the model sees it, to be costed on any profile;
//! - [`profile`]: predicted and measured times of kernels, and profiles of devices fitted to them;
//! - [`OpCost`] and [`CostTable`]: models of a user's own, in code or as a TOML file.
//!
//! The model is a roofline plus a launch cost per kernel (Williams, Waterman, Patterson: "Roofline: an insightful
//! visual performance model for multicore architectures", CACM 52(4), 2009), with what each class of work reaches of
//! the peaks as data in the profile ([`djinn_device::Rates`]).

pub mod calibrate;
mod custom;
mod features;
mod group;
mod model;
pub mod profile;
mod symbolic;
mod work;

pub use custom::{CostTable, OpCost, OpQuery, own_costs};
pub use features::{Features, Member};
pub use group::{GroupCost, MIN_SHARE};
pub use model::{CostModel, UNBOUND_SIZE};
pub use symbolic::SymbolicCost;
pub use work::{Work, op_class, precision};

#[cfg(test)]
mod tests;
