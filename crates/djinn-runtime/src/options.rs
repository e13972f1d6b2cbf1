//! What a caller may choose.

/// How fast copies between devices are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum LinkSpeed {
    /// As fast as this machine copies memory.
    #[default]
    Host,
    /// As slow as the plan's links: latency, bandwidth, and copies that share a hop wait for each other.
    Planned,
    /// This many bytes per second between any two devices, each pair by itself.
    BytesPerSecond(f64),
}

/// How kernels are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// By the reference evaluator, operation by operation: slow, exact, and safe for plans that are wrong.
    #[default]
    Evaluator,
    /// By compiled code and library calls on the bytes of the arenas; the evaluator does what neither can. Sums are taken in
    /// another order. The plan must be accepted by the checker of plans.
    Compiled,
}

/// Options of a [`Runtime`](crate::Runtime).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunOptions {
    /// Fills memory with a pattern (not-a-number as a float, −1 as an integer) before a run and after the last use of
    /// each buffer, and scratch memory around each kernel, so that a wrong plan gives visibly wrong values.
    pub poison: bool,
    /// Checks every access against the order that streams and events give.
    pub detect_races: bool,
    /// Reads constants where they are instead of copying them into their arenas: saves memory and time, but hides plans
    /// that misplace constants.
    pub share_constants: bool,
    /// Speed of copies between devices.
    pub links: LinkSpeed,
    /// How kernels are run.
    pub kernels: Kernels,
    /// Bytes of all arenas together, at most.
    pub memory_limit: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            poison: false,
            detect_races: false,
            share_constants: false,
            links: LinkSpeed::Host,
            kernels: Kernels::Evaluator,
            memory_limit: 16 << 30,
        }
    }
}

impl RunOptions {
    /// Everything that finds wrong plans is on.
    pub fn checking() -> Self {
        RunOptions { poison: true, detect_races: true, ..RunOptions::default() }
    }
}
