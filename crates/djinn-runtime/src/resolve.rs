//! Numbers of a plan as things of the plan and of its program, checked.

use djinn_diag::{Diagnostic, Result, input};
use djinn_ir::{Function, Graph, Module, OpId, TensorType, ValueId, data};
use djinn_plan::{Content, Plan, ValueRef, View};

/// Streams of one entry, at most: each is a thread.
pub const MAX_STREAMS: usize = 256;

/// A diagnostic about a plan that does not hold together or does not fit its program.
pub(crate) fn wrong(message: impl Into<String>) -> Box<Diagnostic> {
    input("runtime.plan", message).help("make the plan again from this program")
}

/// A function of the program, with its operations by position.
pub(crate) struct FunctionTable {
    number: usize,
    ops: Vec<OpId>,
}

impl FunctionTable {
    /// The function of this name.
    pub(crate) fn new(program: &Module, name: &str) -> Result<FunctionTable> {
        let number = program.functions.iter().position(|f| &*f.name == name);
        let number = number.ok_or_else(|| wrong(format!("the program has no function '{name}'")))?;
        let ops = program.functions[number].graph.ops().map(|(id, _)| id).collect();
        Ok(FunctionTable { number, ops })
    }

    /// The function; it is one of the program that the table was made from.
    pub(crate) fn function<'a>(&self, program: &'a Module) -> &'a Function {
        &program.functions[self.number]
    }

    /// Its operations in order.
    pub(crate) fn ops(&self) -> &[OpId] {
        &self.ops
    }

    /// The operation at a position.
    pub(crate) fn op(&self, position: u32) -> Result<OpId> {
        self.ops.get(position as usize).copied().ok_or_else(|| {
            wrong(format!("there is no operation {position}; the function has {}", self.ops.len()))
        })
    }

    /// The value that a plan names.
    pub(crate) fn value(&self, program: &Module, value: ValueRef) -> Result<ValueId> {
        let graph = &self.function(program).graph;
        let id = match value {
            ValueRef::Argument(n) => graph.arguments.get(n as usize).copied(),
            ValueRef::Result { op, index } => {
                let op = graph.get_op(self.op(op)?);
                op.and_then(|op| op.results.get(index as usize)).copied()
            }
        };
        id.filter(|v| graph.get_value(*v).is_some())
            .ok_or_else(|| wrong(format!("the function has no value {}", name(value))))
    }

    /// Name of an argument.
    pub(crate) fn argument<'a>(&self, program: &'a Module, number: u32) -> Result<&'a str> {
        let arguments = &self.function(program).arguments;
        let argument = arguments.get(number as usize).map(|(name, _)| &**name);
        argument.ok_or_else(|| wrong(format!("the function has no argument {number}")))
    }
}

/// How messages name a value.
pub(crate) fn name(value: ValueRef) -> String {
    match value {
        ValueRef::Argument(n) => format!("argument {n}"),
        ValueRef::Result { op, index } => format!("result {index} of operation {op}"),
    }
}

/// The declared type of a value; ids come from [`FunctionTable::value`] or from the graph itself.
pub(crate) fn type_of(graph: &Graph, value: ValueId) -> Result<&TensorType> {
    graph.get_value(value).map(|v| &v.ty).ok_or_else(|| wrong(format!("value {} does not exist", value.0)))
}

/// Bytes of a tensor of this shape.
pub(crate) fn byte_size(ty: &TensorType, shape: &[usize]) -> Result<u64> {
    let bytes = data::numel(shape).and_then(|n| n.checked_mul(ty.dtype.size()));
    bytes
        .map(|n| n as u64)
        .ok_or_else(|| input("runtime.size", format!("a tensor of shape {shape:?} is too large")))
}

/// A view as a range of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Number of the buffer.
    pub(crate) buffer: usize,
    /// Number of the arena.
    pub(crate) arena: usize,
    /// First byte in the arena.
    pub(crate) start: u64,
    /// First byte in the buffer.
    pub(crate) within: u64,
    /// Bytes that there is room for.
    pub(crate) bytes: u64,
}

impl Slot {
    /// Do two ranges share a byte?
    pub(crate) fn overlaps(&self, other: &Slot) -> bool {
        self.arena == other.arena
            && self.start < other.start + other.bytes
            && other.start < self.start + self.bytes
    }
}

/// The range of a view, which must lie within its buffer, and the buffer within its arena.
pub(crate) fn slot(plan: &Plan, view: View) -> Result<Slot> {
    let whole = buffer_slot(plan, view.buffer.index())?;
    if view.offset.checked_add(view.bytes).is_none_or(|end| end > whole.bytes) {
        let name = &plan.buffers[whole.buffer].name;
        return Err(wrong(format!(
            "a view of {} bytes from byte {} on leaves buffer {} '{name}' of {} bytes",
            view.bytes, view.offset, whole.buffer, whole.bytes
        )));
    }
    Ok(Slot { start: whole.start + view.offset, within: view.offset, bytes: view.bytes, ..whole })
}

/// The range of a whole buffer.
pub(crate) fn buffer_slot(plan: &Plan, number: usize) -> Result<Slot> {
    let buffer = plan.buffers.get(number).ok_or_else(|| wrong(format!("there is no buffer {number}")))?;
    let place = || format!("buffer {number} '{}'", buffer.name);
    let arena = plan.arenas.get(buffer.arena.index());
    let arena = arena.ok_or_else(|| wrong(format!("there is no arena {}", buffer.arena.0)).at(place()))?;
    if buffer.offset.checked_add(buffer.bytes).is_none_or(|end| end > arena.bytes) {
        let message = format!(
            "{} bytes from byte {} on leave its arena of {}",
            buffer.bytes, buffer.offset, arena.bytes
        );
        return Err(wrong(message).at(place()));
    }
    let arena = buffer.arena.index();
    Ok(Slot { buffer: number, arena, start: buffer.offset, within: 0, bytes: buffer.bytes })
}

/// Checks everything in a plan that does not concern one entry.
pub(crate) fn check_plan(plan: &Plan, memory_limit: u64) -> Result<()> {
    if plan.version != djinn_plan::FORMAT_VERSION {
        let message = format!("the plan has format version {}", plan.version);
        return Err(wrong(format!("{message}, this runtime reads {}", djinn_plan::FORMAT_VERSION)));
    }
    for (i, arena) in plan.arenas.iter().enumerate() {
        if arena.device.index() >= plan.devices.len() {
            return Err(wrong(format!("arena {i} is on device {}, which is not there", arena.device.0)));
        }
    }
    let total = plan.arenas.iter().fold(0u64, |sum, arena| sum.saturating_add(arena.bytes));
    if total > memory_limit {
        let message = format!("the arenas take {total} bytes, more than the limit of {memory_limit}");
        return Err(input("runtime.memory", message)
            .help("allow more memory, or plan for smaller sizes or a smaller budget"));
    }
    let slots: Vec<Slot> = (0..plan.buffers.len()).map(|i| buffer_slot(plan, i)).collect::<Result<_>>()?;
    check_overlaps(plan, slots)
}

/// Buffers whose contents outlive a run share bytes with no other buffer.
fn check_overlaps(plan: &Plan, mut slots: Vec<Slot>) -> Result<()> {
    let lasting = |s: &Slot| !matches!(plan.buffers[s.buffer].content, Content::Run { .. });
    slots.retain(|s| s.bytes > 0);
    slots.sort_by_key(|s| (s.arena, s.start, s.buffer));
    // The furthest end so far in this arena: of any buffer, and of buffers that outlive a run.
    let (mut any, mut kept): (Option<Slot>, Option<Slot>) = (None, None);
    for slot in slots {
        let opponent = if lasting(&slot) { &any } else { &kept };
        if let Some(other) =
            opponent.as_ref().filter(|o| o.arena == slot.arena && o.start + o.bytes > slot.start)
        {
            let (a, b) = (&plan.buffers[other.buffer].name, &plan.buffers[slot.buffer].name);
            let message = format!("buffers {} '{a}' and {} '{b}' overlap", other.buffer, slot.buffer);
            return Err(wrong(format!("{message}, and one of them outlives a run")));
        }
        let further = |o: &Option<Slot>| {
            o.is_none_or(|o| o.arena != slot.arena || o.start + o.bytes < slot.start + slot.bytes)
        };
        if further(&any) {
            any = Some(slot);
        }
        if lasting(&slot) && further(&kept) {
            kept = Some(slot);
        }
    }
    Ok(())
}
