//! DAG extraction from e-graphs, with a proved lower bound.
//!
//! An *e-graph* is a set of *e-classes*, each a set of equivalent *e-nodes*, and the children of
//! an e-node are e-classes. A *selection* chooses one e-node for every e-class that the roots
//! need, without cycles. [`extract`] looks for a selection whose e-nodes, each counted once, cost
//! as little as possible. It returns the best one found together with a lower bound on the cost of
//! every selection.
//!
//! The work goes through these steps, each bounded by [`Limits`]:
//!
//! 1. exact simplification (`reduce`, `needs`);
//! 2. a first selection by cheapest trees (`greedy`);
//! 3. local search with joint moves (`search`);
//! 4. a lower bound by cuts (`cuts`), which also excludes e-nodes, after which the smaller problem
//!    is simplified and searched again.
//!
//! The result depends on the input alone: there is no clock, no randomness from outside and no
//! iteration in hash order. [`check`] verifies a selection and shares no code with the search.
//!
//! ```
//! use djinn_extract::{ClassId, Limits, ProblemBuilder, extract};
//!
//! // Two halves cost 3 each on their own; a merged operation at 4 provides both.
//! let [root, left, right, merged] = [0, 1, 2, 3].map(ClassId);
//! let mut builder = ProblemBuilder::new(4);
//! builder.node(root, 0.0, [left, right]);
//! builder.node(left, 3.0, []);
//! builder.node(left, 0.0, [merged]);
//! builder.node(right, 3.0, []);
//! builder.node(right, 0.0, [merged]);
//! builder.node(merged, 4.0, []);
//! builder.root(root);
//! let problem = builder.finish()?;
//! let extraction = extract(&problem, &Limits::default(), None)?;
//! assert_eq!(extraction.cost, 4.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod cuts;
mod graph;
mod greedy;
mod needs;
mod prepared;
mod problem;
mod reduce;
mod search;
pub mod serialized;
mod solve;

pub use check::{CheckError, check};
pub use problem::{ClassId, MAX_COST, NodeId, Problem, ProblemBuilder, ProblemError};
pub use solve::{ExtractError, Extraction, Limits, Stats, StopReason, extract};
