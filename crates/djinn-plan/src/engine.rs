//! Engine regions: what one TensorRT engine may hold.

use serde::{Deserialize, Serialize};

use crate::plan::{DeviceId, KernelId, ValueRef};

/// An engine region of an entry: kernels of one device that may run as one, because nothing outside waits for some of
/// them while others wait for it.
///
/// What the engine holds by itself (weights, values that only its operations use) does not cross its border.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// What [`crate::Kernel::engine`] of its kernels says; engines of an entry are listed by it.
    pub number: u32,
    /// Where it runs.
    pub device: DeviceId,
    /// Its kernels, ascending.
    pub kernels: Vec<KernelId>,
    /// Positions of its operations, ascending: those of its kernels, and those that cost nothing because their results
    /// are bytes of its values.
    pub ops: Vec<u32>,
    /// Values that it uses and that neither its operations make nor constants are; ascending.
    pub inputs: Vec<ValueRef>,
    /// Values of its operations that are used elsewhere or outlive the run; ascending.
    pub outputs: Vec<ValueRef>,
    /// Bytes of the inputs at the largest sizes that the entry admits.
    pub bytes_in: u64,
    /// Bytes of the outputs, likewise.
    pub bytes_out: u64,
    /// Bytes of the constants that its kernels read.
    pub weight_bytes: u64,
    /// Predicted seconds of its kernels, one after the other.
    pub seconds: f64,
    /// Multiply-accumulate work of its kernels, FLOP.
    pub flops: f64,
    /// Why it ends where it ends: what kept operations that use its values out of it. Empty if that is not known, or if
    /// nothing but the caller uses them.
    pub ends: Vec<String>,
}
