//! Streams and events for a partial order.
//!
//! Nodes are what one launch runs; edges say what needs what. Nothing here knows of graphs of
//! operations: callers turn theirs into a [`Dag`].
//!
//! - [`assign_unlimited`]: full concurrency with provably the fewest events.
//! - [`assign`]: the best schedule of at most so many streams, by simulated time.
//! - [`synchronise`]: the fewest events for given streams and order; [`happens_before`] says what
//!   they order, for whoever packs buffers.
//! - [`simulate`]: what a schedule takes.
//!
//! The result depends on the input alone, and every search is bounded by [`Limits`].
//!
//! ```
//! use djinn_schedule::{Dag, Limits, Node, Options, assign};
//!
//! // A fork and a join: two branches of 10 µs, each on half the device.
//! let dag = Dag::new(4, &[(0, 1), (0, 2), (1, 3), (2, 3)])?;
//! let nodes = [1e-6, 10e-6, 10e-6, 1e-6].map(|seconds| Node::new(seconds, 0.5));
//! let schedule = assign(&dag, &nodes, &Options::new(4, 1e-6), &Limits::default())?;
//! assert_eq!(schedule.streams, [2]);
//! assert_eq!(schedule.events.len(), 2);
//! assert!(schedule.makespan < schedule.sequential);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod assign;
mod bits;
mod bound;
mod clocks;
mod dag;
mod error;
mod events;
mod improve;
mod in_order;
mod limits;
mod list;
mod matching;
mod simulate;
mod unlimited;

pub mod samples;

pub use assign::{Options, Order, Schedule, assign};
pub use bits::BitMatrix;
pub use dag::{Dag, Reduction};
pub use error::ScheduleError;
pub use events::{Event, HappensBefore, Synchronisation, happens_before, synchronise};
pub use limits::{Limits, Stop};
pub use simulate::{Node, Timeline, simulate};
pub use unlimited::{Assignment, assign_unlimited, width};
