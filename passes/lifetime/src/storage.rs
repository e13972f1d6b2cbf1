//! Where values are stored: which of them share a buffer, and at which byte of it.
//!
//! Every value that crosses the border of a unit (or is an argument or a result of the function) has a *storage
//! root*, a buffer, and an offset in it. Values share a buffer in three ways:
//!
//! - **views** (`views`): reshapes and contiguous slices are bytes of their operand; the operands of a contiguous
//!   concatenation are made at their places in its result; a transfer to where the value is anyway copies nothing.
//!   Such a unit runs nothing, and all its results have a place;
//! - **in place** (`in_place`): an elementwise unit writes over an operand that nothing reads afterwards;
//! - **updates** (`in_place`): the new value of a state is written over the old one;
//! - **renewals** (`renewal`): what the caller keeps on the device is written over the input that it is the new content
//!   of, such as a cache of keys with a row for the new token over the cache without; only for pairs that are asked for.
//!
//! Weights and other inputs are never written over, and neither are values that the function gives back. Writing over a value needs every other reader of the old bytes to run before: where the dependences do not say so,
//! [`Storage::must_precede`] does. These pairs always go forward in the given order of units, so any order that
//! respects the dependences and them is right.

mod in_place;
mod renewal;
mod views;

pub use renewal::renewals;

use crate::units::{is_ahead, owners};
use djinn_ir::graph::Definition;
use djinn_ir::{
    ArgumentKind, Dim, Function, Graph, OpId, OpKind, ResultKind, Symbol, SymbolTable, TensorType, ValueId,
};
use std::collections::{BTreeMap, BTreeSet};

/// A buffer of [`Storage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageId(pub u32);

impl StorageId {
    /// The number as an index into [`Storage::buffers`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    /// The input of this argument number: only read, unless a renewal stands in it as well.
    Input(u32),
    /// The state of this argument number: the old value, and the new one where that is written in place.
    State(u32),
    /// Values of one run.
    Temporary,
}

/// A buffer: what it is, its bytes, and the values in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageInfo {
    /// What it is.
    pub kind: StorageKind,
    /// Bytes, as an expression of the symbols.
    pub bytes: Dim,
    /// Values in it, in order of their numbers; none if it was merged into another buffer.
    pub values: Vec<ValueId>,
    /// Does it hold a value that is handed to the caller?
    pub output: bool,
}

/// Which kinds of sharing are wanted.
#[derive(Debug, Clone, Copy)]
pub struct StorageOptions<'a> {
    /// Reshapes and other values of the same bytes as views.
    pub views: bool,
    /// Contiguous slices as views, too.
    pub slices: bool,
    /// Operands of concatenations made in place.
    pub concat: bool,
    /// Elementwise units over dying operands.
    pub in_place: bool,
    /// New values of states over the old ones.
    pub updates: bool,
    /// Offsets of views inside a buffer are multiples of this many bytes.
    pub view_alignment: i64,
    /// May an elementwise unit write over an operand with readers on other streams, at the price of an order
    /// between them? Updates of states always may.
    pub order_streams: bool,
    /// The sizes for which the storage is right: symbols that have one size only count as that number. Every offset is
    /// then one number for all sizes. Without it, offsets may be expressions of the symbols.
    pub symbols: Option<&'a SymbolTable>,
    /// Values that fill a buffer of this run by themselves, at most one in each: what the caller keeps.
    pub apart: &'a BTreeSet<ValueId>,
    /// Values that the caller keeps, and the input that each is to be written over. Where that is not possible,
    /// [`Storage::not_renewed`] says why.
    pub renewals: &'a BTreeMap<ValueId, ValueId>,
    /// Numbers of units that run as they are and write while they still read: none of their results shares bytes with their
    /// operands.
    pub whole: &'a BTreeSet<usize>,
}

/// No values.
static NONE: BTreeSet<ValueId> = BTreeSet::new();

/// No units.
static NO_UNITS: BTreeSet<usize> = BTreeSet::new();

/// No pairs of values.
static NO_PAIRS: BTreeMap<ValueId, ValueId> = BTreeMap::new();

impl Default for StorageOptions<'_> {
    /// Everything, views at multiples of 16 bytes (the widest vector access of a GPU thread), no order between streams.
    fn default() -> Self {
        StorageOptions {
            views: true,
            slices: true,
            concat: true,
            in_place: true,
            updates: true,
            view_alignment: 16,
            order_streams: false,
            symbols: None,
            apart: &NONE,
            renewals: &NO_PAIRS,
            whole: &NO_UNITS,
        }
    }
}

/// Where every value of a function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The buffer of each value, by value number; none for values inside a unit that runs and for those ahead of time.
    pub root: Vec<Option<StorageId>>,
    /// First byte of each value in its buffer, by value number.
    pub offset: Vec<Dim>,
    /// Bytes of each value that has any, by value number.
    pub bytes: Vec<Dim>,
    /// The buffers.
    pub buffers: Vec<StorageInfo>,
    /// Pairs of units of which the first must be complete before the second starts, besides the dependences.
    pub must_precede: Vec<(usize, usize)>,
    /// Whether each unit runs nothing: its results are bytes of its operands.
    pub skipped: Vec<bool>,
    /// Values of [`StorageOptions::renewals`] that have a buffer of their own, and why.
    pub not_renewed: BTreeMap<ValueId, &'static str>,
}

/// Decides where the values of `function` are stored. `units` are its operations in an order of execution, see
/// [`crate::units()`]; those ahead of time (`ahead`, by value number) are in none.
pub fn assign(
    function: &Function,
    units: &[Vec<OpId>],
    ahead: &[bool],
    options: &StorageOptions<'_>,
) -> Storage {
    let mut assigner = Assigner::new(function, units, ahead, *options);
    assigner.roots();
    if options.views {
        assigner.views();
    }
    if options.concat {
        assigner.concats();
    }
    assigner.overwrites();
    assigner.finish()
}

/// The state of an assignment.
struct Assigner<'a> {
    function: &'a Function,
    graph: &'a Graph,
    units: &'a [Vec<OpId>],
    options: StorageOptions<'a>,
    ahead: &'a [bool],
    owner: Vec<Option<usize>>,
    /// The device of each value, by value number, see [`homes`].
    homes: Vec<Option<&'a str>>,
    /// Units that read each value from outside of themselves, by value number, in order.
    readers: Vec<Vec<usize>>,
    /// Values that the function gives back: to the caller, or as the new value of an argument.
    given_back: BTreeSet<ValueId>,
    /// Values handed to the caller.
    outputs: BTreeSet<ValueId>,
    /// Values whose bytes another value has been written over.
    overwritten: Vec<bool>,
    /// The values of each buffer that nothing has been written over.
    present: Vec<Vec<ValueId>>,
    storage: Storage,
}

impl<'a> Assigner<'a> {
    fn new(
        function: &'a Function,
        units: &'a [Vec<OpId>],
        ahead: &'a [bool],
        options: StorageOptions<'a>,
    ) -> Self {
        let graph = &function.graph;
        let capacity = graph.value_capacity();
        let is_state =
            |n: u32| matches!(function.arguments.get(n as usize), Some((_, ArgumentKind::State { .. })));
        let handed = graph.results.iter().zip(&function.results).filter(|(_, (_, kind))| match kind {
            ResultKind::Output => true,
            ResultKind::Update(n) => !is_state(*n),
        });
        let owner = owners(graph, units);
        Assigner {
            function,
            graph,
            units,
            options,
            ahead,
            homes: homes(function, units),
            owner,
            readers: vec![Vec::new(); capacity],
            given_back: graph.results.iter().copied().collect(),
            outputs: handed.map(|(v, _)| *v).collect(),
            overwritten: vec![false; capacity],
            present: Vec::new(),
            storage: Storage {
                root: vec![None; capacity],
                offset: vec![Dim::ZERO; capacity],
                bytes: vec![Dim::ZERO; capacity],
                buffers: Vec::new(),
                must_precede: Vec::new(),
                skipped: vec![false; units.len()],
                not_renewed: BTreeMap::new(),
            },
        }
    }

    /// A buffer of its own for every value that needs one.
    fn roots(&mut self) {
        let graph = self.graph;
        for (u, ops) in self.units.iter().enumerate() {
            for v in ops.iter().flat_map(|id| &graph.op(*id).operands) {
                let outside = self.owner_of(*v) != Some(u);
                let readers = &mut self.readers[v.0 as usize];
                if outside && readers.last() != Some(&u) {
                    readers.push(u);
                }
            }
        }
        for (n, v) in graph.arguments.iter().enumerate() {
            let kind = match self.function.arguments.get(n) {
                Some((_, ArgumentKind::Weight)) => continue,
                Some((_, ArgumentKind::State { .. })) => StorageKind::State(n as u32),
                _ => StorageKind::Input(n as u32),
            };
            self.storage.bytes[v.0 as usize] = self.sized(graph.ty(*v));
            self.own_buffer(*v, kind);
        }
        for (_, op) in graph.ops() {
            if is_ahead(op, self.ahead) {
                continue;
            }
            for v in &op.results {
                self.storage.bytes[v.0 as usize] = self.sized(graph.ty(*v));
                // A copy leaves its bytes somewhere, even if nothing reads them.
                let copied = op.kind == OpKind::Transfer;
                if copied || !self.readers[v.0 as usize].is_empty() || self.given_back.contains(v) {
                    self.own_buffer(*v, StorageKind::Temporary);
                }
            }
        }
    }

    fn own_buffer(&mut self, v: ValueId, kind: StorageKind) {
        let id = StorageId(self.storage.buffers.len() as u32);
        let (bytes, output) = (self.bytes_of(v).clone(), self.outputs.contains(&v));
        self.storage.buffers.push(StorageInfo { kind, bytes, values: vec![v], output });
        self.present.push(vec![v]);
        self.storage.root[v.0 as usize] = Some(id);
    }

    /// The unit that makes a value.
    fn owner_of(&self, v: ValueId) -> Option<usize> {
        match self.graph.value(v).def {
            Definition::Argument(_) => None,
            Definition::Result(op, _) => self.owner.get(op.0 as usize).copied().flatten(),
        }
    }

    /// The device that a unit is annotated with.
    fn device_of(&self, unit: usize) -> Option<&'a str> {
        self.units[unit].first().and_then(|id| self.graph.op(*id).annotated_str("device"))
    }

    /// A size in which symbols of one size count as numbers.
    fn fixed(&self, dim: Dim) -> Dim {
        let Some(symbols) = self.options.symbols.filter(|_| dim.as_const().is_none()) else { return dim };
        let only = |s: &Symbol| {
            let info = symbols.info(s);
            info.max.filter(|max| *max == info.min)
        };
        match dim.eval(&only) {
            Some(number) => Dim::from(number),
            None => dim.substitute(&|s| only(s).map(Dim::from)),
        }
    }

    /// Bytes of a type.
    fn sized(&self, ty: &TensorType) -> Dim {
        let sizes = ty.shape.iter().map(|d| self.fixed(d.clone()));
        sizes.fold(Dim::from(ty.dtype.size()), |bytes, size| &bytes * &size)
    }

    fn bytes_of(&self, v: ValueId) -> &Dim {
        &self.storage.bytes[v.0 as usize]
    }

    /// Have two values the same sizes along all axes?
    fn same_shape(&self, a: ValueId, b: ValueId) -> bool {
        let (a, b) = (&self.graph.ty(a).shape, &self.graph.ty(b).shape);
        let same = |(a, b): (&Dim, &Dim)| a == b || self.fixed(a.clone()) == self.fixed(b.clone());
        a.len() == b.len() && a.iter().zip(b).all(same)
    }

    fn root(&self, v: ValueId) -> Option<StorageId> {
        self.storage.root[v.0 as usize]
    }

    fn info(&self, id: StorageId) -> &StorageInfo {
        &self.storage.buffers[id.index()]
    }

    /// Does a value fill a buffer of this run that no output is in?
    fn fills_temporary(&self, v: ValueId) -> Option<StorageId> {
        self.fills(v).filter(|id| !self.info(*id).output)
    }

    /// Does a value fill a buffer of this run?
    fn fills(&self, v: ValueId) -> Option<StorageId> {
        let id = self.root(v)?;
        let info = self.info(id);
        let whole = self.storage.offset[v.0 as usize].is(0) && info.bytes == *self.bytes_of(v);
        (info.kind == StorageKind::Temporary && whole).then_some(id)
    }

    /// Moves all values of one buffer to `offset` in another.
    fn merge(&mut self, from: StorageId, into: StorageId, offset: &Dim) {
        let moved = std::mem::take(&mut self.storage.buffers[from.index()].values);
        let output = std::mem::take(&mut self.storage.buffers[from.index()].output);
        for v in &moved {
            let slot = &mut self.storage.offset[v.0 as usize];
            *slot = &*slot + offset;
            self.storage.root[v.0 as usize] = Some(into);
        }
        let present = std::mem::take(&mut self.present[from.index()]);
        self.present[into.index()].extend(present);
        let target = &mut self.storage.buffers[into.index()];
        target.values.extend(moved);
        target.output |= output;
    }

    fn finish(mut self) -> Storage {
        self.storage.must_precede.sort_unstable();
        self.storage.must_precede.dedup();
        for buffer in &mut self.storage.buffers {
            buffer.values.sort_unstable();
        }
        self.storage
    }
}

/// The device of each value, by value number: where its maker is annotated to run, or for an argument the first unit
/// that reads it, other than as a transfer if there is one. None for operations without a device.
pub fn homes<'a>(function: &'a Function, units: &[Vec<OpId>]) -> Vec<Option<&'a str>> {
    let graph = &function.graph;
    let mut homes = vec![None; graph.value_capacity()];
    let mut known = vec![false; graph.value_capacity()];
    for transfers in [false, true] {
        for op in units.iter().flatten().map(|id| graph.op(*id)) {
            if (op.kind == OpKind::Transfer) != transfers {
                continue;
            }
            let home = if transfers { Some(op.attrs.str("device")) } else { op.annotated_str("device") };
            for v in op.operands.iter().filter(|v| graph.is_argument(**v)) {
                if !std::mem::replace(&mut known[v.0 as usize], true) {
                    homes[v.0 as usize] = home;
                }
            }
            op.results.iter().for_each(|v| homes[v.0 as usize] = home);
        }
    }
    homes
}
