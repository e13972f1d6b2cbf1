//! Memory that kernels reach by global addresses.

/// Why an access is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No memory of the device is there.
    Illegal,
    /// The address is no multiple of the access's size.
    Misaligned,
}

/// Global memory.
pub trait Memory {
    /// Reads `size` (1, 2, 4 or 8) bytes. `hint` is 0 at first and is handed back to the next access of the same
    /// instruction.
    ///
    /// # Errors
    /// If nothing is there.
    fn load(&self, address: u64, size: u32, hint: &mut usize) -> Result<u64, Refusal>;

    /// Writes the low `size` (1, 2, 4 or 8) bytes of `value`.
    ///
    /// # Errors
    /// If nothing is there.
    fn store(&mut self, address: u64, size: u32, value: u64, hint: &mut usize) -> Result<(), Refusal>;
}

/// Reads a little-endian word; `None` beyond the end.
pub(crate) fn get(bytes: &[u8], at: u64, size: u32) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let bytes = bytes.get(at..at.checked_add(size as usize)?)?;
    Some(match size {
        4 => u64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        8 => u64::from_le_bytes(bytes.try_into().ok()?),
        2 => u64::from(u16::from_le_bytes(bytes.try_into().ok()?)),
        _ => u64::from(*bytes.first()?),
    })
}

/// Writes a little-endian word; `None` beyond the end.
pub(crate) fn put(bytes: &mut [u8], at: u64, size: u32, value: u64) -> Option<()> {
    let at = usize::try_from(at).ok()?;
    let bytes = bytes.get_mut(at..at.checked_add(size as usize)?)?;
    bytes.copy_from_slice(value.to_le_bytes().get(..size as usize)?);
    Some(())
}

/// Where a buffer lies.
#[derive(Debug)]
struct Buffer {
    base: u64,
    bytes: Vec<u8>,
}

/// Buffers at addresses of their own, far enough apart that what runs over the end of one hits no other.
#[derive(Debug, Default)]
pub struct Buffers {
    list: Vec<Buffer>,
}

/// Bytes from the begin of one buffer to that of the next, beyond the first's size.
const GAP: u64 = 1 << 20;

impl Buffers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a buffer; gives its address, a multiple of 256.
    pub fn add(&mut self, bytes: Vec<u8>) -> u64 {
        let end = self.list.last().map_or(1 << 40, |b| b.base + b.bytes.len() as u64);
        let base = (end + GAP) & !0xff;
        self.list.push(Buffer { base, bytes });
        base
    }

    /// The bytes of the buffer at exactly this address.
    pub fn bytes(&self, base: u64) -> Option<&[u8]> {
        let at = self.list.binary_search_by_key(&base, |b| b.base).ok()?;
        self.list.get(at).map(|b| &*b.bytes)
    }

    fn find(&self, address: u64, hint: &mut usize) -> Option<(usize, u64)> {
        if let Some(buffer) = self.list.get(*hint)
            && let Some(at) = address.checked_sub(buffer.base)
            && at < buffer.bytes.len() as u64
        {
            return Some((*hint, at));
        }
        let index = self.list.partition_point(|b| b.base <= address).checked_sub(1)?;
        *hint = index;
        Some((index, address - self.list[index].base))
    }
}

impl Memory for Buffers {
    fn load(&self, address: u64, size: u32, hint: &mut usize) -> Result<u64, Refusal> {
        let found = self.find(address, hint);
        found.and_then(|(b, at)| get(&self.list[b].bytes, at, size)).ok_or(Refusal::Illegal)
    }

    fn store(&mut self, address: u64, size: u32, value: u64, hint: &mut usize) -> Result<(), Refusal> {
        let found = self.find(address, hint);
        found.and_then(|(b, at)| put(&mut self.list[b].bytes, at, size, value)).ok_or(Refusal::Illegal)
    }
}
