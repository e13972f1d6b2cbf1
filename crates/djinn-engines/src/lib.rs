//! Built engines on disk, authenticated and shared by processes, and the policy when building one pays.
//!
//! - [`EngineKey`]: what an engine depends on, as one digest;
//! - [`EngineCache`]: engines by key in a folder, built once by concurrent askers;
//! - [`Policy`], [`Record`], [`Decision`]: when building an engine pays, from counted executions and measured times;
//! - [`Background`]: threads that build while something else serves.
//!
//! Invariants: an engine is code, so it is handed out only if its very bytes were authenticated with the secret of the
//! folder; and the cache never fails its user: what cannot be read is built, what cannot be kept is handed out all the
//! same, and both are remarked. This crate knows nothing of what is in an engine or of how it is built.

mod background;
mod build;
mod cache;
mod flights;
mod key;
mod policy;
mod profile;
mod record;
mod secret;
mod statistics;

pub use background::{Background, Status};
pub use build::{BuildContext, BuildError};
pub use cache::{CacheOptions, Engine, EngineCache};
pub use key::{Capability, EngineKey, KeyDigest, SizeRange};
pub use policy::{Decision, Policy, Why};
pub use record::{Failure, Predicted, Record, Timing};
pub use statistics::Statistics;
