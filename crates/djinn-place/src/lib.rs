//! Placement of operator graphs on devices, with certificates; knows no IR.
//!
//! Two forms of the question:
//!
//! - [`place`] solves instances of the published benchmark ([`Instance`]): identical accelerators and CPU cores, the
//!   largest load or the latency of one sample, by programmes over ideals. [`evaluate`] judges a placement,
//!   [`read_placement`] and [`Placed::to_json`] read and write it.
//! - [`solve`] places a [`Problem`]: any devices, any links, bytes that tasks share. [`evaluate_problem`] judges it.
//!
//! Every result has a lower bound and says what ended the search. The judges share nothing with the solvers.
//!
//! ```
//! use djinn_place::{Limits, Link, Objective, Problem, Task, Value, solve};
//!
//! // Two tasks of 6 bytes do not fit one device of 10 bytes, so one value crosses.
//! let link = Link { latency: 1.0, seconds_per_byte: 0.5 };
//! let task = Task { seconds: vec![3.0, 3.0], bytes: 6.0, colour_class: None };
//! let problem = Problem {
//!     capacity: vec![10.0, 10.0],
//!     links: vec![vec![link; 2]; 2],
//!     tasks: vec![task.clone(), task],
//!     values: vec![Value { producer: 0, consumers: vec![1], bytes: 4.0 }],
//!     shared: vec![],
//!     objective: Objective::Latency,
//!     stages: false,
//! };
//! let solution = solve(&problem, &Limits::default())?;
//! assert_eq!(solution.value, 3.0 + (1.0 + 0.5 * 4.0) + 3.0);
//! assert_eq!(solution.lower_bound, solution.value);
//! # Ok::<(), djinn_place::PlaceError>(())
//! ```

mod bench;
mod error;
mod general;
mod graph;
mod limits;

pub use bench::evaluate::{Cost, Device, Placement, Violation, evaluate};
pub use bench::instance::{Instance, MAX_NODES, MAX_QUANTITY, Node};
pub use bench::solve::{Goal, Placed, place};
pub use bench::split::read_placement;
pub use error::PlaceError;
pub use general::cost::{ProblemCost, ProblemViolation, bytes_held, evaluate_problem};
pub use general::problem::{Link, MAX_DEVICES, Objective, Problem, Shared, Task, Value};
pub use general::solve::{Solution, solve};
pub use limits::{Limits, StopReason};
