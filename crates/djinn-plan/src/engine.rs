//! Engine regions: what one TensorRT engine may hold, and whether launches are whole ones.

use serde::{Deserialize, Serialize};

use crate::plan::{DeviceId, KernelId, ValueRef};

/// What a launch of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// A kernel. Engine regions ([`crate::Entry::engines`]) are sets of them, but memory and order are those of the kernels: an
    /// engine cannot take their place.
    #[default]
    Kernels,
    /// A whole engine region, or a kernel that is in none. An engine of the region may be launched in place of the kernel
    /// that stands for it: it reads and writes what crosses the border of the region, and what it writes shares no bytes
    /// with what it reads. Such a kernel has no workspace: TensorRT allocates the scratch memory of an engine by itself.
    Engines,
}

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
    /// Its kernels, ascending; a single one in an entry of [`crate::Granularity::Engines`].
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
    /// Predicted seconds of its kernels, one after the other. In an entry of [`crate::Granularity::Engines`] without the launches
    /// of all of them but one.
    pub seconds: f64,
    /// Multiply-accumulate work of its kernels, FLOP.
    pub flops: f64,
    /// Why it ends where it ends: what kept operations that use its values out of it. Empty if that is not known, or if
    /// nothing but the caller uses them.
    pub ends: Vec<String>,
}

impl Engine {
    /// An engine of this number without anything in it.
    pub fn empty(number: u32, device: DeviceId) -> Engine {
        Engine {
            number,
            device,
            kernels: Vec::new(),
            ops: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            weight_bytes: 0,
            seconds: 0.0,
            flops: 0.0,
            ends: Vec::new(),
        }
    }
}
