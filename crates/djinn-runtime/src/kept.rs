//! Values that runs leave on their devices: inputs and outputs that stay there.

use crate::memory::Store;
use crate::resolve::{Slot, byte_size};
use djinn_diag::Result;
use djinn_ir::{DType, TensorData, TensorType};
use std::collections::BTreeMap;

/// A value at the start of a slot.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    bytes: u64,
}

/// What stands in the bytes of resident ports, by arena and first byte.
#[derive(Debug, Default)]
pub(crate) struct KeptValues(BTreeMap<(usize, u64), Kept>);

impl KeptValues {
    /// The value at a slot, if a run or a caller has left one.
    pub(crate) fn at(&self, slot: &Slot) -> Option<&Kept> {
        self.0.get(&(slot.arena, slot.start))
    }

    /// The value at a slot as data.
    pub(crate) fn load(&self, slot: &Slot, memory: &dyn Store) -> Result<Option<TensorData>> {
        let Some(kept) = self.at(slot) else { return Ok(None) };
        let shape = kept.shape.iter().map(|n| (*n as i64).into()).collect();
        let ty = TensorType { dtype: kept.dtype, shape };
        memory.load(slot, &ty, kept.shape.clone()).map(Some)
    }

    /// Notes what stands at a slot; what stood in these bytes is gone.
    pub(crate) fn set(&mut self, slot: &Slot, ty: &TensorType, shape: Vec<usize>) -> Result<()> {
        let bytes = byte_size(ty, &shape)?;
        self.forget(slot);
        self.0.insert((slot.arena, slot.start), Kept { dtype: ty.dtype, shape, bytes });
        Ok(())
    }

    /// Forgets everything in the bytes of a slot.
    pub(crate) fn forget(&mut self, slot: &Slot) {
        let end = slot.start.saturating_add(slot.bytes);
        self.0.retain(|(arena, start), kept| {
            let apart = *start >= end || start.saturating_add(kept.bytes) <= slot.start;
            *arena != slot.arena || (apart && *start != slot.start)
        });
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
