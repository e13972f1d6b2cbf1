//! The aliasing environment: which names share storage, and how a write reaches all of them.
//!
//! A [`Slot`] is one tensor name's value. A root slot owns its storage; a view slot knows its parent and the IR
//! operations that make it from the parent. Writing to a view writes back through these operations up to the root;
//! reading a slot whose root was written since makes the view anew. In-place operations thus become pure ones.

use crate::context::Cx;
use djinn_diag::{Result, internal, unsupported};
use djinn_ir::{Attrs, DType, Dim, OpKind, TensorType, attrs};
use djinn_srg::SrgValue;
use std::sync::Arc;

/// Views of views through which a write is followed, at most; each write repeats the operations of its chain.
const MAX_VIEW_DEPTH: u32 = 8;

/// Number of a slot of the current graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(pub(crate) usize);

/// One operation of a view chain: an IR operation over one operand.
pub(crate) type Step = (OpKind, Attrs);

/// One tensor of the environment.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    root: SlotId,
    parent: Option<Parent>,
    /// The value; `None` for a weight that was not used yet.
    value: Option<SrgValue>,
    /// Version of the root at which `value` was made.
    version: u32,
    origin: RootOrigin,
    /// Number of view slots between this one and its root.
    depth: u32,
}

#[derive(Debug, Clone)]
struct Parent {
    slot: SlotId,
    steps: Arc<[Step]>,
    /// Does it certainly share storage with the parent? torch decides by strides that may be symbolic.
    certain: bool,
}

/// What a root slot stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootOrigin {
    /// A value of the graph.
    Computed,
    /// Argument number of the function.
    Argument(u32),
    /// Lifted weight by number, not mutated.
    Lifted(usize),
    /// An argument of a region.
    Captured,
}

impl Cx<'_> {
    /// A new root slot that holds `value`.
    pub(crate) fn root(&mut self, value: SrgValue) -> SlotId {
        self.root_of(Some(value), RootOrigin::Computed)
    }

    /// A new root slot of this origin.
    pub(crate) fn root_of(&mut self, value: Option<SrgValue>, origin: RootOrigin) -> SlotId {
        let slots = &mut self.env_mut().slots;
        let id = SlotId(slots.len());
        slots.push(Slot { root: id, parent: None, value, version: 0, origin, depth: 0 });
        id
    }

    /// A new slot that shares storage with `parent`; the parent itself if there are no steps.
    pub(crate) fn view(&mut self, parent: SlotId, steps: Vec<Step>) -> Result<SlotId> {
        self.view_slot(parent, steps, true)
    }

    /// A slot that holds the result of `steps` and shares storage with `parent` or not: torch decides at run time.
    pub(crate) fn uncertain_view(&mut self, parent: SlotId, steps: Vec<Step>) -> Result<SlotId> {
        self.view_slot(parent, steps, false)
    }

    fn view_slot(&mut self, parent: SlotId, steps: Vec<Step>, certain: bool) -> Result<SlotId> {
        if steps.is_empty() {
            return Ok(parent);
        }
        let mut value = self.read(parent)?;
        for (kind, attrs) in &steps {
            value = self.b.op(*kind, &[value], attrs.clone())?;
        }
        let (root, depth) = (self.slot_ref(parent)?.root, self.slot_ref(parent)?.depth + 1);
        let version = self.slot_ref(root)?.version;
        let certain = certain && depth <= MAX_VIEW_DEPTH;
        let slots = &mut self.env_mut().slots;
        let parent = Some(Parent { slot: parent, steps: Arc::from(steps), certain });
        slots.push(Slot { root, parent, value: Some(value), version, origin: RootOrigin::Computed, depth });
        Ok(SlotId(slots.len() - 1))
    }

    fn slot_ref(&self, id: SlotId) -> Result<&Slot> {
        self.env().slots.get(id.0).ok_or_else(|| internal("pt2.slot", "a slot number is out of range"))
    }

    /// The current value of a slot.
    pub(crate) fn read(&mut self, id: SlotId) -> Result<SrgValue> {
        let slot = self.slot_ref(id)?.clone();
        let version = self.slot_ref(slot.root)?.version;
        match (slot.value, slot.parent) {
            (Some(value), _) if slot.version == version => Ok(value),
            (_, Some(parent)) => {
                if !parent.certain {
                    return Err(unclear_alias(slot.depth));
                }
                let mut value = self.read(parent.slot)?;
                for (kind, attrs) in parent.steps.iter() {
                    value = self.b.op(*kind, &[value], attrs.clone())?;
                }
                self.store(id, value, version);
                Ok(value)
            }
            (_, None) => {
                let RootOrigin::Lifted(number) = slot.origin else {
                    return Err(internal("pt2.slot", "a root slot has no value"));
                };
                let value = self.lifted_value(number)?;
                self.store(id, value, version);
                Ok(value)
            }
        }
    }

    fn store(&mut self, id: SlotId, value: SrgValue, version: u32) {
        if let Some(slot) = self.env_mut().slots.get_mut(id.0) {
            slot.value = Some(value);
            slot.version = version;
        }
    }

    /// Overwrites a slot, after conversion to its type, and with it everything that shares its storage.
    ///
    /// # Errors
    /// Views through which a write has no functional form here.
    pub(crate) fn write(&mut self, id: SlotId, value: SrgValue) -> Result<()> {
        let old = self.read(id)?;
        let ty = self.b.ty(old).clone();
        let value = self.cast(value, ty.dtype)?;
        let value = self.broadcast_to(value, &ty.shape)?;
        self.write_same_type(id, value)
    }

    fn write_same_type(&mut self, id: SlotId, value: SrgValue) -> Result<()> {
        let slot = self.slot_ref(id)?.clone();
        let Some(parent) = slot.parent else {
            if slot.origin == RootOrigin::Captured {
                return Err(unsupported(
                    "pt2.mutation",
                    "a branch or loop body writes to a value from outside",
                )
                .help("return the new value from the branch instead of writing in place"));
            }
            let version = slot.version + 1;
            self.store(id, value, version);
            return Ok(());
        };
        if !parent.certain {
            return Err(unclear_alias(slot.depth));
        }
        // The values before each step, then back through the steps.
        let mut before = vec![self.read(parent.slot)?];
        for (kind, attrs) in parent.steps.iter().take(parent.steps.len() - 1) {
            let next = self.b.op(*kind, &[before[before.len() - 1]], attrs.clone())?;
            before.push(next);
        }
        let mut written = value;
        for ((kind, attrs), base) in parent.steps.iter().zip(&before).rev() {
            written = self.write_back(*kind, attrs, *base, written)?;
        }
        self.write_same_type(parent.slot, written)?;
        let version = self.slot_ref(slot.root)?.version;
        self.store(id, value, version);
        Ok(())
    }

    /// `base` with the part that `(kind, attrs)` picks replaced by `part`.
    fn write_back(
        &mut self,
        kind: OpKind,
        attrs: &Attrs,
        base: SrgValue,
        part: SrgValue,
    ) -> Result<SrgValue> {
        let ty: TensorType = self.b.ty(base).clone();
        match kind {
            OpKind::Reshape => self.reshape(part, ty.shape),
            OpKind::Transpose => {
                let perm = attrs.ints("perm");
                let mut inverse = vec![0i64; perm.len()];
                for (i, p) in perm.iter().enumerate() {
                    if let Some(slot) = usize::try_from(*p).ok().and_then(|p| inverse.get_mut(p)) {
                        *slot = i as i64;
                    }
                }
                self.b.op(OpKind::Transpose, &[part], attrs! { perm: inverse })
            }
            OpKind::Slice => {
                let axis = attrs.int("axis");
                let (start, stride) = (attrs.dim("start"), attrs.int("stride"));
                let at = usize::try_from(axis).unwrap_or(usize::MAX);
                let part_size = self.b.ty(part).shape.get(at).cloned().unwrap_or(Dim::ZERO);
                if stride == 1 && start.is(0) && ty.shape.get(at) == Some(&part_size) {
                    return Ok(part);
                }
                let index = self.positions(&start, &part_size, stride)?;
                self.b.op(OpKind::IndexCopy, &[base, index, part], attrs! { axis: axis })
            }
            _ => Err(unsupported(
                "pt2.mutation",
                format!("a write through '{}' cannot be functionalised", kind.name()),
            )
            .help("write to the tensor itself, or to a slice, selection, reshape or transpose of it")),
        }
    }

    /// The i64 vector start, start + stride, … of `count` positions.
    pub(crate) fn positions(&mut self, start: &Dim, count: &Dim, stride: i64) -> Result<SrgValue> {
        const LISTED: i64 = 16;
        if let Some(n) = count.as_const().filter(|n| (0..=LISTED).contains(n)) {
            let at = |i: i64| start + &(&Dim::from(i) * &Dim::from(stride));
            return self.b.dims((0..n).map(at).collect());
        }
        let iota = attrs! { shape: vec![count.clone()], axis: 0i64, dtype: DType::I64 };
        let mut index = self.b.op(OpKind::Iota, &[], iota)?;
        if stride != 1 {
            let stride = self.b.dim(Dim::from(stride))?;
            index = self.b.op(OpKind::Mul, &[index, stride], Attrs::new())?;
        }
        if !start.is(0) {
            let start = self.b.dim(start.clone())?;
            index = self.b.op(OpKind::Add, &[index, start], Attrs::new())?;
        }
        Ok(index)
    }

    /// Roots of the current graph that were written: their origin and current value.
    pub(crate) fn written_roots(&self) -> Vec<(RootOrigin, SrgValue)> {
        let written = self.env().slots.iter().filter(|s| s.parent.is_none() && s.version > 0);
        written.filter_map(|s| Some((s.origin, s.value?))).collect()
    }
}

fn unclear_alias(depth: u32) -> Box<djinn_diag::Diagnostic> {
    if depth > MAX_VIEW_DEPTH {
        let message = format!("an in-place write meets a chain of {depth} views, more than {MAX_VIEW_DEPTH}");
        return unsupported("pt2.mutation", message).help("use `.clone()` on one of the views in the model");
    }
    let message = "a reshape of a non-contiguous tensor meets an in-place write: whether they share storage is \
                   decided at run time";
    unsupported("pt2.mutation", message)
        .help("use `.clone()` or `.view()` instead of `.reshape()` in the model")
}
