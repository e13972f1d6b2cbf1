//! The arenas of a plan on GPUs and in pinned memory of the host.

use crate::memory::{POISON, Store};
use crate::resolve::{Slot, byte_size};
use djinn_cuda::{Device, DeviceMemory, PinnedMemory};
use djinn_diag::{Result, internal};
use djinn_ir::{TensorData, TensorType};
use djinn_plan::Plan;

/// An arena.
enum Block {
    /// On a GPU.
    Device(DeviceMemory),
    /// In pinned memory of the host.
    Host(PinnedMemory),
}

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// This address of the memory of this device of the plan.
    Device(usize, u64),
    /// This address of the host's memory.
    Host(u64),
}

impl Place {
    /// The address.
    pub(crate) fn address(self) -> u64 {
        match self {
            Place::Device(_, address) | Place::Host(address) => address,
        }
    }
}

/// All arenas: one block each, allocated once.
pub(crate) struct CudaMemory {
    blocks: Vec<Block>,
    /// By arena: the device of the plan.
    devices: Vec<usize>,
}

impl CudaMemory {
    /// Allocates the arenas. `devices`: the GPU in the place of each device of the plan; the host has none.
    pub(crate) fn new(plan: &Plan, devices: &[Option<Device>], first: &Device, poison: bool) -> Result<Self> {
        let mut blocks = Vec::with_capacity(plan.arenas.len());
        for arena in &plan.arenas {
            let device = devices.get(arena.device.index()).and_then(Option::as_ref);
            let fill = if poison { POISON } else { 0 };
            blocks.push(match device {
                Some(device) => {
                    let memory = DeviceMemory::new(device, arena.bytes)?;
                    memory.fill(0, arena.bytes, fill)?;
                    Block::Device(memory)
                }
                None => {
                    let memory = PinnedMemory::new(first, arena.bytes)?;
                    memory.fill(0, arena.bytes, fill)?;
                    Block::Host(memory)
                }
            });
        }
        Ok(CudaMemory { blocks, devices: plan.arenas.iter().map(|a| a.device.index()).collect() })
    }

    /// Where so many bytes of a slot are.
    pub(crate) fn place(&self, slot: &Slot, bytes: u64) -> Result<Place> {
        self.check_room(slot, bytes)?;
        Ok(match self.block(slot)? {
            Block::Device(memory) => Place::Device(
                self.devices.get(slot.arena).copied().unwrap_or(0),
                memory.address() + slot.start,
            ),
            Block::Host(memory) => Place::Host(memory.address(slot.start, bytes)?.expose_provenance() as u64),
        })
    }

    fn block(&self, slot: &Slot) -> Result<&Block> {
        self.blocks.get(slot.arena).ok_or_else(|| internal("runtime.arena", "an arena is missing"))
    }
}

impl Store for CudaMemory {
    fn set_constant(&mut self, slot: &Slot, value: &TensorData) -> Result<()> {
        self.store(slot, value.bytes())
    }

    fn load(&self, slot: &Slot, ty: &TensorType, shape: Vec<usize>) -> Result<TensorData> {
        let len = byte_size(ty, &shape)?;
        self.check_room(slot, len)?;
        let bytes = match self.block(slot)? {
            Block::Device(memory) => {
                let mut bytes = vec![0; len as usize];
                memory.read(slot.start, &mut bytes)?;
                bytes
            }
            Block::Host(memory) => memory.read(slot.start, len as usize)?,
        };
        TensorData::new(ty.dtype, shape, bytes)
            .ok_or_else(|| internal("runtime.load", "a buffer does not hold the bytes of its value"))
    }

    fn store(&self, slot: &Slot, bytes: &[u8]) -> Result<()> {
        self.check_room(slot, bytes.len() as u64)?;
        match self.block(slot)? {
            Block::Device(memory) => memory.write(slot.start, bytes),
            Block::Host(memory) => memory.write(slot.start, bytes),
        }
    }

    fn fill(&self, slot: &Slot, byte: u8) -> Result<()> {
        match self.block(slot)? {
            Block::Device(memory) => memory.fill(slot.start, slot.bytes, byte),
            Block::Host(memory) => memory.fill(slot.start, slot.bytes, byte),
        }
    }
}
