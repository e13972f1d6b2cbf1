//! How much work a search may do, and why it ended.

use std::fmt;

/// How much work a search may do, in counts, so that a result depends on the input alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ideals enumerated; beyond that only the prefixes of one order are split.
    pub ideals: usize,
    /// Entries of the table of the programme for stages.
    pub entries: usize,
    /// Pairs of ideals visited and labels extended by one programme.
    pub steps: u64,
    /// Labels that an ideal keeps in the programme for latency.
    pub labels: usize,
    /// Moves of annealing (benchmark instances) or of local search (problems).
    pub moves: u64,
    /// Nodes of the tree of the exact search on problems.
    pub tree_nodes: u64,
}

impl Default for Limits {
    /// At most about a minute for benchmark instances, well under a second for problems of 2,000 nodes.
    fn default() -> Self {
        Self {
            ideals: 100_000,
            entries: 20_000_000,
            steps: 400_000_000,
            labels: 256,
            moves: 6_000_000,
            tree_nodes: 200_000,
        }
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The value is the lower bound: nothing costs less.
    Proved,
    /// [`Limits::ideals`].
    Ideals,
    /// [`Limits::steps`] or [`Limits::entries`].
    Steps,
    /// [`Limits::labels`].
    Labels,
    /// [`Limits::moves`], or no move improves.
    Moves,
    /// [`Limits::tree_nodes`].
    TreeNodes,
    /// The programme ended, but what it solves is a relaxation or restriction with another value.
    Relaxation,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proved => "proved",
            Self::Ideals => "limit of ideals",
            Self::Steps => "limit of steps",
            Self::Labels => "limit of labels",
            Self::Moves => "local search ended",
            Self::TreeNodes => "limit of tree nodes",
            Self::Relaxation => "relaxation has another value",
        })
    }
}
