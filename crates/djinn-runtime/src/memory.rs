//! The arenas of a plan, and constants that are read where they are.

use crate::arena::Arena;
use crate::resolve::{Slot, byte_size, wrong};
use djinn_diag::{Result, internal};
use djinn_ir::data::Bytes;
use djinn_ir::{TensorData, TensorType};
use djinn_plan::{ArenaKind, Content, Plan};
use std::sync::Arc;

/// What unwritten and outlived bytes hold: not-a-number in every float type, −1 in signed integers.
pub(crate) const POISON: u8 = 0xFF;

/// The bytes of a constant.
struct Held(TensorData);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// All memory of a plan.
pub(crate) struct Memory {
    /// `None`: the arena holds nothing but constants, which stand in `held`.
    arenas: Vec<Option<Arena>>,
    /// By buffer: constants that are not in an arena.
    held: Vec<Option<Arc<Held>>>,
    /// By buffer: is it a constant?
    constant: Vec<bool>,
}

impl Memory {
    /// Allocates the arenas.
    pub(crate) fn new(plan: &Plan, share_constants: bool, poison: bool) -> Result<Memory> {
        let mut shared: Vec<bool> =
            plan.arenas.iter().map(|a| share_constants && a.kind == ArenaKind::Weights).collect();
        for buffer in &plan.buffers {
            if let Some(shared) = shared.get_mut(buffer.arena.index()) {
                *shared &= matches!(buffer.content, Content::Constant { .. });
            }
        }
        let fill = if poison { POISON } else { 0 };
        let arena = |(arena, shared): (&djinn_plan::Arena, &bool)| {
            if *shared { Ok(None) } else { Arena::new(arena.bytes, fill).map(Some) }
        };
        let arenas = plan.arenas.iter().zip(&shared).map(arena).collect::<Result<_>>()?;
        let constant = plan.buffers.iter().map(|b| matches!(b.content, Content::Constant { .. })).collect();
        Ok(Memory { arenas, held: plan.buffers.iter().map(|_| None).collect(), constant })
    }

    /// Does a slot lie in a constant?
    pub(crate) fn is_constant(&self, slot: &Slot) -> bool {
        self.constant[slot.buffer]
    }

    /// Places the value of a constant buffer.
    pub(crate) fn set_constant(&mut self, slot: &Slot, value: &TensorData) -> Result<()> {
        self.check_room(slot, value.bytes().len() as u64)?;
        match self.arena(slot) {
            Some(arena) => arena.store(slot.start, value.bytes()),
            None => self.held[slot.buffer] = Some(Arc::new(Held(value.clone()))),
        }
        Ok(())
    }

    /// The tensor of this type and shape at the start of a slot.
    pub(crate) fn load(&self, slot: &Slot, ty: &TensorType, shape: Vec<usize>) -> Result<TensorData> {
        let len = byte_size(ty, &shape)?;
        self.check_room(slot, len)?;
        let bytes = match (self.arena(slot), &self.held[slot.buffer]) {
            (Some(arena), _) => Some(Bytes::from(arena.load(slot.start, len as usize))),
            (None, Some(held)) => {
                let held: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::clone(held) as _;
                Bytes::window(held, slot.within as usize, len as usize)
            }
            (None, None) => None,
        };
        let tensor = bytes.and_then(|bytes| TensorData::new(ty.dtype, shape, bytes));
        tensor.ok_or_else(|| internal("runtime.load", "a buffer does not hold the bytes of its value"))
    }

    /// Writes a value to the start of a slot.
    pub(crate) fn store(&self, slot: &Slot, bytes: &[u8]) -> Result<()> {
        self.check_room(slot, bytes.len() as u64)?;
        if let Some(arena) = self.arena(slot) {
            arena.store(slot.start, bytes);
        }
        Ok(())
    }

    /// Fills a slot with this byte.
    pub(crate) fn fill(&self, slot: &Slot, byte: u8) {
        if let Some(arena) = self.arena(slot) {
            arena.fill(slot.start, slot.bytes, byte);
        }
    }

    /// Is there room for so many bytes in a slot?
    pub(crate) fn check_room(&self, slot: &Slot, bytes: u64) -> Result<()> {
        if bytes > slot.bytes {
            let message = format!("a value takes {bytes} bytes, but its view has {}", slot.bytes);
            return Err(wrong(message).at(format!("buffer {}", slot.buffer)));
        }
        Ok(())
    }

    fn arena(&self, slot: &Slot) -> Option<&Arena> {
        self.arenas.get(slot.arena).and_then(Option::as_ref)
    }
}
