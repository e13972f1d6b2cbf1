//! An entry of a plan with every number resolved: what the streams execute.

use crate::compiled::Compiled;
use crate::resolve::{FunctionTable, Slot};
use djinn_ir::{OpId, Symbol, TensorData, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// An entry.
pub(crate) struct EntryCode {
    /// The function that it runs.
    pub(crate) table: FunctionTable,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
    /// States read: at the start of a run their bytes are defined.
    pub(crate) states: Vec<StateUse>,
    /// States written: at the end of a run the new values stand in their slots.
    pub(crate) updates: Vec<StateUse>,
    pub(crate) kernels: Vec<KernelCode>,
    /// Commands of each stream.
    pub(crate) streams: Vec<Vec<Step>>,
    /// Number of commands in all streams.
    pub(crate) commands: usize,
    pub(crate) events: usize,
    /// Are all kernels steps, none of which evaluates regions? Then any thread's stack will do.
    pub(crate) is_flat: bool,
    /// Buffers that hold values of one run.
    pub(crate) buffers: Vec<Slot>,
    /// Parts of those that commands make useless.
    pub(crate) pieces: Vec<Piece>,
    /// Values whose bytes are those of other values.
    pub(crate) aliases: BTreeMap<ValueId, Vec<ValueId>>,
}

/// A value that the caller gives.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) value: ValueId,
    /// Where a resident input is put before the run.
    pub(crate) resident: Option<Slot>,
    /// Name of the output that is its new value, if that stays elsewhere: what a run leaves here is out of date.
    pub(crate) renewed_elsewhere: Option<String>,
}

/// A value that the caller gets.
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) value: ValueId,
    pub(crate) source: Source,
    /// Name of the input whose new value it is.
    pub(crate) update_of: Option<String>,
}

/// Where the value of an output comes from.
pub(crate) enum Source {
    /// A copy command brings it.
    Copied,
    /// It is read after the run.
    Resident(Slot),
    /// It is the input of this number.
    Input(usize),
    /// It is the value of a state before the run.
    State(Slot),
    /// It depends on weights only.
    Constant(Option<TensorData>),
}

/// A state that an entry reads or writes.
pub(crate) struct StateUse {
    pub(crate) name: String,
    /// Its value: the argument if it is read, the new value if it is written.
    pub(crate) value: ValueId,
    pub(crate) slot: Slot,
}

/// Bytes of a buffer of one run that the same commands access: they die together.
pub(crate) struct Piece {
    /// The bytes.
    pub(crate) slot: Slot,
    /// Commands that access them.
    pub(crate) uses: u32,
}

/// A value at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) value: ValueId,
    pub(crate) slot: Slot,
}

/// A kernel.
pub(crate) struct KernelCode {
    pub(crate) name: String,
    pub(crate) ops: Vec<OpCode>,
    pub(crate) reads: Vec<Placed>,
    pub(crate) writes: Vec<Write>,
    pub(crate) workspace: Option<Slot>,
    /// Its steps, if it is not evaluated as a whole.
    pub(crate) compiled: Option<Compiled>,
    /// Symbols that other kernels must have determined.
    pub(crate) needs: BTreeSet<Symbol>,
    /// Symbols that this kernel determines.
    pub(crate) determines: BTreeSet<Symbol>,
}

/// A value that a kernel leaves.
pub(crate) struct Write {
    /// Number of the operation in the kernel, and of its result.
    pub(crate) from: (usize, usize),
    pub(crate) to: Placed,
}

/// An operation of a kernel.
pub(crate) struct OpCode {
    pub(crate) op: OpId,
    /// Its position in the function.
    pub(crate) position: usize,
    pub(crate) operands: Vec<OperandCode>,
    /// Operations of the kernel whose results nothing uses after this one.
    pub(crate) drops: Vec<usize>,
}

/// Where an operand comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OperandCode {
    /// An earlier operation of the kernel, and the number of its result.
    Local(usize, usize),
    /// A read of the kernel.
    Read(usize),
}

/// A command.
pub(crate) struct Step {
    /// Its number among the commands of the entry.
    pub(crate) command: usize,
    pub(crate) work: Work,
    /// Numbers in [`EntryCode::pieces`] of those that it only reads.
    pub(crate) read: Vec<usize>,
    /// Numbers of those that it writes.
    pub(crate) written: Vec<usize>,
}

/// What a command does.
pub(crate) enum Work {
    Launch(usize),
    Copy(CopyCode),
    Record(usize),
    Wait(usize),
}

/// A copy.
pub(crate) struct CopyCode {
    /// The value at the source.
    pub(crate) value: ValueId,
    /// The value that it is at the destination.
    pub(crate) result: ValueId,
    pub(crate) from: End,
    pub(crate) to: End,
}

/// One end of a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// A range of an arena on this device.
    Slot(Slot, usize),
    /// The input of this number.
    Input(usize),
    /// The output of this number.
    Output(usize),
}

impl End {
    /// The device; `None` is the memory of the caller.
    pub(crate) fn device(&self) -> Option<usize> {
        match self {
            End::Slot(_, device) => Some(*device),
            End::Input(_) | End::Output(_) => None,
        }
    }
}
