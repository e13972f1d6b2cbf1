//! Memory of the devices: an address space that is not the host's, with gaps, and poison where nothing was written.

use super::code::{Code, Result};
use crate::ptx::{Memory, Refusal};

/// An allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) base: u64,
    pub(crate) device: usize,
    pub(crate) bytes: Vec<u8>,
}

/// All allocations, by address. No address is given twice.
#[derive(Debug, Default)]
pub(crate) struct Space {
    list: Vec<Allocation>,
    next: Vec<u64>,
    used: Vec<u64>,
}

/// At least so many bytes lie between two allocations.
const GUARD: u64 = 4096;

/// Whether an address is one of a device, not of the host.
pub(crate) fn of_device(address: u64) -> bool {
    (1..=64).contains(&(address >> 40))
}

impl Space {
    pub(crate) fn used(&self, device: usize) -> u64 {
        self.used.get(device).copied().unwrap_or(0)
    }

    pub(crate) fn allocate(&mut self, device: usize, size: usize, room: u64) -> Result<u64> {
        if size == 0 {
            return Err(Code::INVALID_VALUE);
        }
        while self.next.len() <= device {
            self.next.push((self.next.len() as u64 + 1) << 40);
            self.used.push(0);
        }
        if self.used[device].saturating_add(size as u64) > room {
            return Err(Code::OUT_OF_MEMORY);
        }
        let base = (self.next[device] + GUARD).next_multiple_of(256);
        let end = base.saturating_add(size as u64);
        let mut bytes = Vec::new();
        if end >> 40 != device as u64 + 1 || bytes.try_reserve_exact(size).is_err() {
            return Err(Code::OUT_OF_MEMORY);
        }
        bytes.resize(size, 0xff);
        self.next[device] = end;
        self.used[device] += size as u64;
        let at = self.list.partition_point(|a| a.base < base);
        self.list.insert(at, Allocation { base, device, bytes });
        Ok(base)
    }

    pub(crate) fn free(&mut self, base: u64) -> Result<()> {
        let at = self.list.binary_search_by_key(&base, |a| a.base).map_err(|_| Code::INVALID_VALUE)?;
        let freed = self.list.remove(at);
        self.used[freed.device] -= freed.bytes.len() as u64;
        Ok(())
    }

    /// The allocation at or before an address.
    fn before(&self, address: u64) -> Option<usize> {
        self.list.partition_point(|a| a.base <= address).checked_sub(1)
    }

    /// The allocation that holds a range, and where in it the range begins.
    pub(crate) fn range(&self, address: u64, size: usize) -> Option<(usize, std::ops::Range<usize>)> {
        let index = self.before(address)?;
        let at = usize::try_from(address - self.list[index].base).ok()?;
        let end = at.checked_add(size)?;
        (end <= self.list[index].bytes.len()).then_some((index, at..end))
    }

    pub(crate) fn read(&self, address: u64, size: usize) -> Option<&[u8]> {
        let (index, range) = self.range(address, size)?;
        self.list[index].bytes.get(range)
    }

    pub(crate) fn write(&mut self, address: u64, size: usize) -> Option<&mut [u8]> {
        let (index, range) = self.range(address, size)?;
        self.list[index].bytes.get_mut(range)
    }

    pub(crate) fn device_of(&self, address: u64) -> Option<usize> {
        self.range(address, 1).map(|(index, _)| self.list[index].device)
    }

    /// Says what lies near an address.
    pub(crate) fn nearest(&self, address: u64) -> String {
        let before = self.before(address).and_then(|i| self.list.get(i));
        let after = self.list.iter().find(|a| a.base > address);
        let show =
            |a: &Allocation| format!("{} bytes at {:#x} of device {}", a.bytes.len(), a.base, a.device);
        match (before, after) {
            (Some(b), _) if address - b.base < b.bytes.len() as u64 => format!("inside {}", show(b)),
            (Some(b), _) if b.base >> 40 == address >> 40 => {
                format!("{} bytes behind {}", address - b.base - b.bytes.len() as u64, show(b))
            }
            (_, Some(a)) => format!("{} bytes before {}", a.base - address, show(a)),
            _ => "nothing is near".to_owned(),
        }
    }
}

/// What kernels of a device reach.
pub(crate) struct View<'a> {
    pub(crate) space: &'a mut Space,
    /// Bit by device: its own and those it may reach.
    pub(crate) reach: u64,
}

impl View<'_> {
    #[inline]
    fn find(&self, address: u64, size: u32, hint: &mut usize) -> std::result::Result<usize, Refusal> {
        let inside = |a: &Allocation| {
            address.checked_sub(a.base).is_some_and(|at| at + u64::from(size) <= a.bytes.len() as u64)
                && self.reach >> a.device & 1 == 1
        };
        if self.space.list.get(*hint).is_some_and(inside) {
            return Ok(*hint);
        }
        *hint = self.space.before(address).ok_or(Refusal::Illegal)?;
        if inside(&self.space.list[*hint]) { Ok(*hint) } else { Err(Refusal::Illegal) }
    }
}

impl Memory for View<'_> {
    #[inline]
    fn load(&self, address: u64, size: u32, hint: &mut usize) -> std::result::Result<u64, Refusal> {
        let allocation = &self.space.list[self.find(address, size, hint)?];
        crate::ptx::get(&allocation.bytes, address - allocation.base, size).ok_or(Refusal::Illegal)
    }

    #[inline]
    fn store(
        &mut self,
        address: u64,
        size: u32,
        value: u64,
        hint: &mut usize,
    ) -> std::result::Result<(), Refusal> {
        let index = self.find(address, size, hint)?;
        let allocation = &mut self.space.list[index];
        crate::ptx::put(&mut allocation.bytes, address - allocation.base, size, value).ok_or(Refusal::Illegal)
    }
}
