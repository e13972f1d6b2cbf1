//! What is wrong with an input.

use std::fmt;

/// Why an input is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleError {
    /// An edge names a node that does not exist.
    NodeOutOfRange {
        /// The node named.
        node: usize,
        /// How many nodes there are.
        nodes: usize,
    },
    /// The edges form a cycle through this node.
    Cycle {
        /// A node on a cycle.
        node: usize,
    },
    /// There are more nodes than 32-bit numbers.
    TooManyNodes {
        /// How many nodes were asked for.
        nodes: usize,
    },
    /// A list does not have one entry per node.
    Length {
        /// What the list holds.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of nodes.
        expected: usize,
    },
    /// A weight is negative or not finite, or a share is not in (0, 1].
    Weight {
        /// The node whose weight it is.
        node: usize,
    },
    /// A node belongs to a group that the options do not have, or whose budget of streams is 0.
    Group {
        /// The node.
        node: usize,
    },
    /// The order is not a permutation of the nodes in which every dependence goes forward.
    Order {
        /// A node that stands before one that it depends on, or twice, or does not exist.
        node: usize,
    },
    /// The price of an event is negative or not finite.
    SyncSeconds,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleError::NodeOutOfRange { node, nodes } => {
                write!(f, "an edge names node {node}, but there are {nodes} nodes")
            }
            ScheduleError::Cycle { node } => write!(f, "node {node} depends on itself through a cycle"),
            ScheduleError::TooManyNodes { nodes } => write!(f, "{nodes} nodes are too many"),
            ScheduleError::Length { what, found, expected } => {
                write!(f, "{found} {what} for {expected} nodes")
            }
            ScheduleError::Weight { node } => {
                write!(f, "node {node} needs seconds that are finite and not negative, and a share in (0, 1]")
            }
            ScheduleError::Group { node } => write!(f, "node {node} is in a group without streams"),
            ScheduleError::Order { node } => write!(f, "node {node} is out of order"),
            ScheduleError::SyncSeconds => write!(f, "the price of an event must be finite and not negative"),
        }
    }
}

impl std::error::Error for ScheduleError {}
