//! The named bounds of every search in this crate.

use std::fmt;

/// Bounds; each is counted, none is a clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most nodes for which closures are computed; 20,000 nodes take 50 MB.
    pub closure_nodes: usize,
    /// The most pairs of chains that are considered for joining.
    pub chain_pairs: usize,
    /// The most cells (nodes × streams) of the table of clocks; 12 million take 48 MB.
    pub clock_cells: usize,
    /// The most schedules that local search simulates.
    pub evaluations: usize,
    /// The most nodes simulated by local search, over all schedules.
    pub visited_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            closure_nodes: 20_000,
            chain_pairs: 4_000_000,
            clock_cells: 12_000_000,
            evaluations: 128,
            visited_nodes: 40_000,
        }
    }
}

/// The bound that stopped a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// [`Limits::closure_nodes`].
    ClosureNodes,
    /// [`Limits::chain_pairs`].
    ChainPairs,
    /// [`Limits::clock_cells`].
    ClockCells,
    /// [`Limits::evaluations`].
    Evaluations,
    /// [`Limits::visited_nodes`].
    VisitedNodes,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::ClosureNodes => "closure_nodes",
            Stop::ChainPairs => "chain_pairs",
            Stop::ClockCells => "clock_cells",
            Stop::Evaluations => "evaluations",
            Stop::VisitedNodes => "visited_nodes",
        })
    }
}
