//! How kernels are launched, and what may stop them.

/// How a kernel is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Instructions of all threads together that may be done.
    pub limit: u64,
    /// Blocks and warps from the last to the first?
    pub reverse: bool,
}

impl Launch {
    /// A grid in one dimension, without dynamic memory and with a limit of 2^40 instructions.
    pub fn new(grid: u32, block: u32) -> Self {
        Self { grid: [grid, 1, 1], block: [block, 1, 1], dynamic_shared: 0, limit: 1 << 40, reverse: false }
    }
}

/// What stops a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// An access to memory that is not there.
    Illegal {
        /// The address.
        address: u64,
        /// Bytes.
        size: u32,
        /// Was it written?
        store: bool,
    },
    /// An access whose address is no multiple of its size.
    Misaligned {
        /// The address.
        address: u64,
        /// Bytes.
        size: u32,
    },
    /// Threads of a block wait at different barriers, or some have ended.
    Divergent,
    /// A warp's instruction names lanes that are elsewhere.
    Members,
    /// More instructions than allowed.
    Limit,
    /// The kernel stopped itself.
    Trap,
    /// It cannot be launched like this.
    Launch,
}

/// What stopped a kernel, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub trouble: Trouble,
    /// The line of the text.
    pub line: u32,
    /// The block.
    pub block: [u32; 3],
    /// The thread's number in its block.
    pub thread: u32,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.trouble {
            Trouble::Illegal { address, size, store } => {
                let what = if store { "write" } else { "read" };
                write!(f, "illegal {what} of {size} bytes at {address:#x}")?;
            }
            Trouble::Misaligned { address, size } => {
                write!(f, "misaligned access of {size} bytes at {address:#x}")?;
            }
            Trouble::Divergent => write!(f, "threads of a block are at different barriers")?,
            Trouble::Members => write!(f, "lanes that take part are elsewhere")?,
            Trouble::Limit => write!(f, "too many instructions")?,
            Trouble::Trap => write!(f, "trap")?,
            Trouble::Launch => write!(f, "wrong launch: parameters, threads or shared memory")?,
        }
        write!(f, " (line {}, block {:?}, thread {})", self.line, self.block, self.thread)
    }
}
