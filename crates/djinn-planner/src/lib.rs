//! Assembles a plan from annotated IR.
//!
//! The passes have said where each operation runs (`device`), what is launched together (`kernel`), in which order
//! (the order of the operations) and on which stream (`stream`). What is left is mechanical: which bytes hold which
//! value, which copies and events make that true, and where in the arenas the bytes lie.
//!
//! - [`plan`] makes the plan of a module for entries at given sizes, of kernels or of whole engine regions;
//! - [`conforms`] compares a plan with the module it is for: every operation runs once, on the right operands.
//!
//! Invariant: the plan follows the order of commands in which it is built: reading them one after the other gives
//! the meaning, and events keep every conflicting pair in that order.

mod aliases;
mod budget;
mod caches;
mod choice;
mod commands;
mod conform;
mod constants;
mod cost;
mod engines;
mod entry;
mod events;
mod handover;
mod interface;
mod layers;
mod memory;
mod names;
mod places;
mod ports;
mod sizes;
mod units;
mod whole;

pub use budget::{capacities, overflow};
pub use caches::{OWN_SOURCES, SOURCES};
pub use conform::conforms;
pub use entry::{EntrySpec, PlanOptions, SizeRange, plan, plan_with};
pub use memory::packing;
pub use units::{Unit, UnitKind, units};
