//! The arenas of a plan, and constants that are read where they are.

use crate::arena::Arena;
use crate::resolve::{Slot, byte_size, wrong};
use djinn_diag::{Result, internal};
use djinn_ir::data;
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

/// Bytes that a kernel reads where they stand.
pub(crate) enum Bytes<'a> {
    /// Of an arena: first byte and number.
    Shared(*mut u8, usize),
    /// Of one owner.
    Own(&'a [u8]),
}

impl Bytes<'_> {
    #[allow(unsafe_code, reason = "kernels read arenas without copying")]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            // SAFETY: the address and the bytes after it lie in an arena, which outlives the borrow and is initialised. The
            // plan was accepted by the checker of plans: while a kernel runs, no other command writes what it reads, and
            // the kernel itself writes nowhere that it reads (`compiled.rs`).
            Bytes::Shared(at, len) => unsafe { std::slice::from_raw_parts(*at, *len) },
            Bytes::Own(bytes) => bytes,
        }
    }
}

/// Bytes that a kernel writes where they stand.
pub(crate) enum BytesMut<'a> {
    /// Of an arena: first byte and number.
    Shared(*mut u8, usize),
    /// Of one owner.
    Own(&'a mut [u8]),
}

impl BytesMut<'_> {
    #[allow(unsafe_code, reason = "kernels write arenas without copying")]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            // SAFETY: as for `Bytes`; the plan's checker has also found that nothing else reads these bytes meanwhile, and
            // that the values that one kernel writes do not overlap.
            BytesMut::Shared(at, len) => unsafe { std::slice::from_raw_parts_mut(*at, *len) },
            BytesMut::Own(bytes) => bytes,
        }
    }
}

/// The arenas of a plan, wherever they are.
pub(crate) trait Store {
    /// Places the value of a constant buffer.
    fn set_constant(&mut self, slot: &Slot, value: &TensorData) -> Result<()>;

    /// The tensor of this type and shape at the start of a slot.
    fn load(&self, slot: &Slot, ty: &TensorType, shape: Vec<usize>) -> Result<TensorData>;

    /// Writes a value to the start of a slot.
    fn store(&self, slot: &Slot, bytes: &[u8]) -> Result<()>;

    /// Fills a slot with this byte.
    fn fill(&self, slot: &Slot, byte: u8) -> Result<()>;

    /// Is there room for so many bytes in a slot?
    fn check_room(&self, slot: &Slot, bytes: u64) -> Result<()> {
        if bytes > slot.bytes {
            let message = format!("a value takes {bytes} bytes, but its view has {}", slot.bytes);
            return Err(wrong(message).at(format!("buffer {}", slot.buffer)));
        }
        Ok(())
    }
}

/// The memory of the host as the memory of all devices of a plan.
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

    /// The first bytes of a slot, where they stand.
    pub(crate) fn bytes(&self, slot: &Slot, bytes: u64) -> Result<Bytes<'_>> {
        self.check_room(slot, bytes)?;
        let missing = || internal("runtime.load", "a buffer does not hold the bytes of its value");
        match (self.arena(slot), &self.held[slot.buffer]) {
            (Some(arena), _) => arena.address(slot.start, bytes).map(|at| Bytes::Shared(at, bytes as usize)),
            (None, Some(held)) => {
                let window = (*held.0.bytes()).get(slot.within as usize..);
                window.and_then(|window| window.get(..bytes as usize)).map(Bytes::Own)
            }
            (None, None) => None,
        }
        .ok_or_else(missing)
    }

    /// The first bytes of a slot, to be written where they stand.
    pub(crate) fn bytes_mut(&self, slot: &Slot, bytes: u64) -> Result<BytesMut<'_>> {
        self.check_room(slot, bytes)?;
        let at = self.arena(slot).and_then(|arena| arena.address(slot.start, bytes));
        let at = at.ok_or_else(|| internal("runtime.store", "a buffer has no bytes that can be written"))?;
        Ok(BytesMut::Shared(at, bytes as usize))
    }

    fn arena(&self, slot: &Slot) -> Option<&Arena> {
        self.arenas.get(slot.arena).and_then(Option::as_ref)
    }
}

impl Store for Memory {
    fn set_constant(&mut self, slot: &Slot, value: &TensorData) -> Result<()> {
        self.check_room(slot, value.bytes().len() as u64)?;
        match self.arena(slot) {
            Some(arena) => arena.store(slot.start, value.bytes()),
            None => self.held[slot.buffer] = Some(Arc::new(Held(value.clone()))),
        }
        Ok(())
    }

    fn load(&self, slot: &Slot, ty: &TensorType, shape: Vec<usize>) -> Result<TensorData> {
        let len = byte_size(ty, &shape)?;
        self.check_room(slot, len)?;
        let bytes = match (self.arena(slot), &self.held[slot.buffer]) {
            (Some(arena), _) => Some(data::Bytes::from(arena.load(slot.start, len as usize))),
            (None, Some(held)) => {
                let held: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::clone(held) as _;
                data::Bytes::window(held, slot.within as usize, len as usize)
            }
            (None, None) => None,
        };
        let tensor = bytes.and_then(|bytes| TensorData::new(ty.dtype, shape, bytes));
        tensor.ok_or_else(|| internal("runtime.load", "a buffer does not hold the bytes of its value"))
    }

    fn store(&self, slot: &Slot, bytes: &[u8]) -> Result<()> {
        self.check_room(slot, bytes.len() as u64)?;
        if let Some(arena) = self.arena(slot) {
            arena.store(slot.start, bytes);
        }
        Ok(())
    }

    fn fill(&self, slot: &Slot, byte: u8) -> Result<()> {
        if let Some(arena) = self.arena(slot) {
            arena.fill(slot.start, slot.bytes, byte);
        }
        Ok(())
    }
}
