//! Kernels in the form that is run: instructions whose operands are numbers of registers, constants being registers
//! that nothing writes.

use super::alu::Alu;
use super::parse::{ParseError, Result, parse};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The parts of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// Addresses at which a part of memory is seen through generic addresses.
pub(crate) const SHARED_WINDOW: u64 = 0x7000_0000_0000;
pub(crate) const LOCAL_WINDOW: u64 = 0x7100_0000_0000;
/// Addresses of a module's own constants.
pub(crate) const MODULE_WINDOW: u64 = 0x7200_0000_0000;
/// Size of each window.
pub(crate) const WINDOW: u64 = 1 << 40;

/// How an atomic operation makes the new word of the old one and its operands.
pub(crate) type Update = Arc<dyn Fn(u64, u64, u64) -> u64 + Send + Sync>;

/// Memory that an instruction names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) space: Space,
    /// Bytes of an element.
    pub(crate) size: u32,
    pub(crate) base: u32,
    pub(crate) offset: i64,
}

/// How lanes exchange words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// How a warp votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What an instruction does.
pub(crate) enum Kind {
    Alu(Alu, [u32; 5]),
    /// To registers; values are cut to the mask after extension of the sign.
    Load {
        place: Place,
        signed: bool,
        to: Box<[(u32, u64)]>,
    },
    Store {
        place: Place,
        from: Box<[u32]>,
    },
    Atomic {
        place: Place,
        update: Update,
        to: Option<u32>,
        operands: [u32; 2],
    },
    Shuffle {
        mode: Shuffle,
        to: u32,
        valid: Option<u32>,
        from: u32,
        lane: u32,
        clamp: u32,
        members: u32,
    },
    Vote {
        mode: Vote,
        to: u32,
        from: u32,
        negate: bool,
        members: u32,
    },
    /// Folds a word over the members.
    Reduce {
        update: Update,
        to: u32,
        from: u32,
        members: u32,
    },
    ActiveMask {
        to: u32,
    },
    Branch(usize),
    Exit,
    Barrier,
    WarpBarrier,
    Trap,
    Nothing,
}

/// An instruction, the predicate that guards it and whether it is negated, and its line.
pub(crate) struct Instruction {
    pub(crate) guard: Option<(u32, bool)>,
    pub(crate) line: u32,
    pub(crate) kind: Kind,
}

/// A parameter's place among the parameters' bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamLayout {
    /// Bytes from the begin.
    pub offset: usize,
    /// Bytes that it takes.
    pub size: usize,
}

/// A kernel.
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) params: Vec<ParamLayout>,
    pub(crate) code: Vec<Instruction>,
    /// Number of registers.
    pub(crate) registers: usize,
    /// Registers with constants.
    pub(crate) constants: Vec<(u32, u64)>,
    /// Registers with numbers of threads and blocks.
    pub(crate) special: Vec<(u32, &'static str)>,
    pub(crate) shared: u64,
    pub(crate) local: u64,
    pub(crate) module: Arc<[u8]>,
    pub(crate) has_barrier: bool,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("name", &self.name)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its parameters, in order.
    pub fn params(&self) -> &[ParamLayout] {
        &self.params
    }

    /// Bytes that all parameters take.
    pub fn param_bytes(&self) -> usize {
        self.params.last().map_or(0, |p| p.offset + p.size)
    }

    /// Bytes of shared memory that it declares.
    pub fn shared_bytes(&self) -> u64 {
        self.shared
    }

    /// Bytes of local memory that a thread has.
    pub fn local_bytes(&self) -> u64 {
        self.local
    }

    /// Number of registers, as an estimate of what a GPU would use.
    pub fn register_count(&self) -> usize {
        self.registers
    }
}

/// The kernels of a PTX text.
#[derive(Debug)]
pub struct Module {
    kernels: BTreeMap<String, Arc<Kernel>>,
}

impl Module {
    /// Reads a text; instructions that are not known are refused.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str) -> std::result::Result<Self, ParseError> {
        let file = parse(text)?;
        let mut kernels = BTreeMap::new();
        for entry in &file.entries {
            let kernel = Arc::new(super::decode::decode(entry, &file.variables)?);
            if kernels.insert(entry.name.clone(), kernel).is_some() {
                return Err(ParseError {
                    line: entry.line,
                    message: format!("there are two '{}'", entry.name),
                });
            }
        }
        Ok(Self { kernels })
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Arc<Kernel>> {
        self.kernels.get(name)
    }

    /// All kernels, by name.
    pub fn kernels(&self) -> impl Iterator<Item = &Arc<Kernel>> {
        self.kernels.values()
    }
}

pub(crate) fn error<T>(line: u32, message: impl Into<String>) -> Result<T> {
    Err(ParseError { line, message: message.into() })
}
