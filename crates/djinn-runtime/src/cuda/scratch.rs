//! Memory for what a kernel makes between its steps.
//!
//! A stream runs one step after the other, so that bytes may be handed out again as soon as no later step needs them.
//! Chunks stay where they are from run to run: captured graphs hold their addresses.

use super::prepare::roomy;
use djinn_cuda::{Device, DeviceMemory};
use djinn_diag::Result;
use djinn_plan::ALIGNMENT;

/// The least size of a chunk.
const CHUNK: u64 = 1 << 20;

/// Scratch memory of a stream.
pub(crate) struct Scratch {
    device: Device,
    chunks: Vec<DeviceMemory>,
    /// What is in use: number of the chunk, first byte, and bytes; sorted.
    used: Vec<(usize, u64, u64)>,
}

impl Scratch {
    /// No memory yet.
    pub(crate) fn new(device: &Device) -> Scratch {
        Scratch { device: device.clone(), chunks: Vec::new(), used: Vec::new() }
    }

    /// Nothing is in use any more.
    pub(crate) fn clear(&mut self) {
        self.used.clear();
    }

    /// The address of so many bytes that nobody uses.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<u64> {
        let bytes = bytes.max(1).next_multiple_of(ALIGNMENT);
        for (number, chunk) in self.chunks.iter().enumerate() {
            let mut at = 0;
            for (_, start, len) in self.used.iter().filter(|(n, ..)| *n == number) {
                if start - at >= bytes {
                    break;
                }
                at = start + len;
            }
            if chunk.bytes() - at >= bytes {
                let chunk = chunk.address();
                self.mark((number, at, bytes));
                return Ok(chunk + at);
            }
        }
        let chunk = DeviceMemory::new(&self.device, roomy(bytes).max(CHUNK))?;
        let address = chunk.address();
        self.chunks.push(chunk);
        self.mark((self.chunks.len() - 1, 0, bytes));
        Ok(address)
    }

    /// Gives back what [`Scratch::take`] gave.
    pub(crate) fn give_back(&mut self, address: u64) {
        self.used.retain(|(number, start, _)| {
            self.chunks.get(*number).is_none_or(|chunk| chunk.address() + start != address)
        });
    }

    fn mark(&mut self, range: (usize, u64, u64)) {
        let at = self.used.partition_point(|other| *other < range);
        self.used.insert(at, range);
    }
}
