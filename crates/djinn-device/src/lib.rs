//! Device profiles and network topology as data, with the measurements they were fitted from.
//!
//! - [`Profile`]: what one kind of device can do, each figure with its source; read from TOML, a few built in;
//! - [`Topology`]: the devices of a system, the links between them, and routes over those links;
//! - [`Target`]: what is planned for: a topology, bound symbols, an objective and limits.
//!
//! Invariant: no file system, no clock, no environment; the caller hands over texts and their names.

mod print;
pub mod profile;
mod read;
mod route;
pub mod target;
pub mod topology;

pub use profile::{Figure, LinkFigures, OpClass, Peaks, Precision, Profile, Rates};
pub use route::{Hop, ROUTE_BYTES, Route, Transfer, shared_seconds};
pub use target::{Objective, OwnCosts, Target};
pub use topology::{DeviceInfo, Link, LinkKind, NodeInfo, Topology};
