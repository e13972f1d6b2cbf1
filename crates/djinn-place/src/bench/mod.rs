//! Instances of the published benchmark: identical accelerators with limited memory, and CPU cores.
//!
//! The cost model is that of J. M. Tarnawski et al., *Efficient Algorithms for Device Placement of DNN Graph
//! Operators* (NeurIPS 2020), sections 3 and 4; the files are those of its code package.

pub(crate) mod evaluate;
mod free;
mod ideals;
pub(crate) mod instance;
mod latency;
pub(crate) mod solve;
pub(crate) mod split;
mod throughput;
mod units;
