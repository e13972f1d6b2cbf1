//! Each rule of storage, where it applies and where it must not.

use djinn_ir::walk::known_before_runs;
use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, OpId, OpKind, ResultKind, Symbol, SymbolInfo,
    SymbolTable, TensorData, TensorType, ValueId, Visibility, attrs,
};
use djinn_lifetime::{Storage, StorageKind, StorageOptions, assign, units};
use std::collections::{BTreeMap, BTreeSet};

/// A function under construction.
#[derive(Default)]
struct Builder {
    graph: Graph,
    arguments: Vec<(std::sync::Arc<str>, ArgumentKind)>,
    results: Vec<(std::sync::Arc<str>, ResultKind)>,
}

impl Builder {
    fn argument(&mut self, shape: &[i64], kind: ArgumentKind) -> ValueId {
        self.arguments.push((format!("a{}", self.arguments.len()).into(), kind));
        self.graph.add_argument(TensorType::of(DType::F32, shape))
    }

    fn input_of(&mut self, ty: TensorType) -> ValueId {
        self.arguments.push((format!("a{}", self.arguments.len()).into(), ArgumentKind::Input));
        self.graph.add_argument(ty)
    }

    fn input(&mut self, shape: &[i64]) -> ValueId {
        self.argument(shape, ArgumentKind::Input)
    }

    fn state(&mut self, shape: &[i64]) -> ValueId {
        self.argument(shape, ArgumentKind::State { initial: None })
    }

    fn op(&mut self, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> ValueId {
        self.graph.build1(kind, operands, attrs).expect("well typed")
    }

    /// A value that no rule lets share with its operand.
    fn fresh(&mut self, x: ValueId) -> ValueId {
        let axis = self.graph.ty(x).rank() as i64 - 1;
        self.op(OpKind::Softmax, &[x], attrs! { axis: axis })
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        self.op(OpKind::Relu, &[x], Attrs::new())
    }

    fn reshape(&mut self, x: ValueId, shape: &[i64]) -> ValueId {
        let shape: Vec<Dim> = shape.iter().map(|d| Dim::from(*d)).collect();
        self.op(OpKind::Reshape, &[x], attrs! { shape: shape })
    }

    fn slice(&mut self, x: ValueId, axis: i64, start: i64, limit: i64, stride: i64) -> ValueId {
        let (start, limit) = (Dim::from(start), Dim::from(limit));
        self.op(OpKind::Slice, &[x], attrs! { axis: axis, start: start, limit: limit, stride: stride })
    }

    fn returns(&mut self, v: ValueId, kind: ResultKind) {
        self.results.push((format!("r{}", self.results.len()).into(), kind));
        self.graph.results.push(v);
    }

    fn output(&mut self, v: ValueId) {
        self.returns(v, ResultKind::Output);
    }

    fn assign(self) -> (Storage, Vec<Vec<OpId>>) {
        self.assign_with(&StorageOptions::default())
    }

    fn assign_with(self, options: &StorageOptions<'_>) -> (Storage, Vec<Vec<OpId>>) {
        let function = Function {
            name: "main".into(),
            visibility: Visibility::Entry,
            graph: self.graph,
            arguments: self.arguments,
            results: self.results,
        };
        let ahead = known_before_runs(&function);
        let units = units(&function.graph, &ahead).expect("an order");
        (assign(&function, &units, &ahead, options), units)
    }
}

/// Do two values share a buffer, the second at this byte after the first?
fn at(storage: &Storage, a: ValueId, b: ValueId, bytes: i64) -> bool {
    let (x, y) = (a.0 as usize, b.0 as usize);
    storage.root[x].is_some()
        && storage.root[x] == storage.root[y]
        && &storage.offset[x] + &Dim::from(bytes) == storage.offset[y]
}

#[test]
fn a_reshape_is_a_view_and_runs_nothing() {
    let mut b = Builder::default();
    let x = b.input(&[4, 8]);
    let y = b.fresh(x);
    let z = b.reshape(y, &[32]);
    let out = b.fresh(z);
    b.output(out);
    let (storage, _) = b.assign();
    assert!(at(&storage, y, z, 0) && !at(&storage, z, out, 0));
    assert_eq!(storage.skipped, [false, true, false]);
    assert_eq!(storage.must_precede, []);
}

#[test]
fn a_view_of_an_input_that_is_given_back_is_copied() {
    let mut b = Builder::default();
    let x = b.input(&[4, 8]);
    let inner = b.reshape(x, &[8, 4]);
    let given = b.reshape(x, &[32]);
    let out = b.fresh(inner);
    b.output(out);
    b.output(given);
    let (storage, _) = b.assign();
    assert!(at(&storage, x, inner, 0) && !at(&storage, x, given, 0));
    assert_eq!(storage.skipped, [true, false, false]);
    let kinds: Vec<StorageKind> = storage.buffers.iter().map(|b| b.kind).collect();
    assert_eq!(kinds[0], StorageKind::Input(0));
}

#[test]
fn contiguous_aligned_slices_are_views_and_others_are_not() {
    let mut b = Builder::default();
    let x = b.input(&[8, 4]);
    let y = b.fresh(x);
    let rows = b.slice(y, 0, 2, 6, 1);
    let columns = b.slice(y, 1, 0, 2, 1);
    let strided = b.slice(y, 0, 0, 8, 2);
    let flat = b.reshape(y, &[32]);
    let misaligned = b.slice(flat, 0, 3, 20, 1);
    for v in [rows, columns, strided, misaligned] {
        let out = b.fresh(v);
        b.output(out);
    }
    let (storage, _) = b.assign();
    assert!(at(&storage, y, rows, 32));
    for v in [columns, strided, misaligned] {
        assert_ne!(storage.root[v.0 as usize], storage.root[y.0 as usize]);
    }
}

#[test]
fn a_transpose_is_a_view_only_if_it_moves_axes_of_one_element() {
    let mut b = Builder::default();
    let x = b.input(&[4, 1, 8]);
    let y = b.fresh(x);
    let moved = b.op(OpKind::Transpose, &[y], attrs! { perm: vec![1i64, 0, 2] });
    let turned = b.op(OpKind::Transpose, &[y], attrs! { perm: vec![2i64, 1, 0] });
    for v in [moved, turned] {
        let out = b.fresh(v);
        b.output(out);
    }
    let (storage, _) = b.assign();
    assert!(at(&storage, y, moved, 0) && !at(&storage, y, turned, 0));
}

#[test]
fn operands_of_a_contiguous_concatenation_are_made_in_its_result() {
    let mut b = Builder::default();
    let x = b.input(&[2, 8]);
    let (p, q) = (b.fresh(x), b.relu(x));
    let joined = b.op(OpKind::Concat, &[p, q], attrs! { axis: 0i64 });
    let out = b.fresh(joined);
    b.output(out);
    let (storage, _) = b.assign();
    assert!(at(&storage, joined, p, 0) && at(&storage, joined, q, 64));
    assert_eq!(storage.skipped, [false, false, true, false]);
}

#[test]
fn other_concatenations_copy() {
    // An operand twice, an operand that is an input, an inner axis, an operand that is given back.
    let cases: [fn(&mut Builder, ValueId) -> ValueId; 4] = [
        |b, x| {
            let p = b.fresh(x);
            b.op(OpKind::Concat, &[p, p], attrs! { axis: 0i64 })
        },
        |b, x| {
            let p = b.fresh(x);
            b.op(OpKind::Concat, &[p, x], attrs! { axis: 0i64 })
        },
        |b, x| {
            let (p, q) = (b.fresh(x), b.relu(x));
            b.op(OpKind::Concat, &[p, q], attrs! { axis: 1i64 })
        },
        |b, x| {
            let (p, q) = (b.fresh(x), b.relu(x));
            b.output(p);
            b.op(OpKind::Concat, &[p, q], attrs! { axis: 0i64 })
        },
    ];
    for (case, make) in cases.into_iter().enumerate() {
        let mut b = Builder::default();
        let x = b.input(&[2, 8]);
        let joined = make(&mut b, x);
        let out = b.fresh(joined);
        b.output(out);
        let (storage, _) = b.assign();
        assert!(storage.skipped.iter().all(|s| !s), "case {case}");
        let own = storage.root[joined.0 as usize].expect("stored");
        assert_eq!(storage.buffers[own.index()].values, [joined], "case {case}");
    }
}

#[test]
fn an_elementwise_result_takes_the_place_of_a_dying_operand() {
    let mut b = Builder::default();
    let x = b.input(&[4, 8]);
    let y = b.fresh(x);
    let z = b.relu(y);
    let out = b.fresh(z);
    b.output(out);
    let (storage, _) = b.assign();
    assert!(at(&storage, y, z, 0));
    assert_eq!(storage.must_precede, []);
}

#[test]
fn earlier_readers_of_an_overwritten_value_are_ordered() {
    let mut b = Builder::default();
    let x = b.input(&[4, 8]);
    let y = b.fresh(x);
    let other = b.fresh(y);
    let z = b.relu(y);
    let last = b.fresh(z);
    b.output(other);
    b.output(last);
    let (storage, _) = b.assign();
    assert!(at(&storage, y, z, 0));
    assert_eq!(storage.must_precede, [(1, 2)]);
}

/// Storage where the caller keeps `new`, which is to be written over `old`.
fn renewing(mut b: Builder, new: ValueId, old: ValueId) -> Storage {
    b.output(new);
    let (apart, renewals) = (BTreeSet::from([new]), BTreeMap::from([(new, old)]));
    b.assign_with(&StorageOptions { apart: &apart, renewals: &renewals, ..StorageOptions::default() }).0
}

#[test]
fn what_is_appended_to_an_input_takes_its_place() {
    let mut b = Builder::default();
    let (old, row) = (b.input(&[2, 3, 4]), b.input(&[2, 1, 4]));
    let reader = b.fresh(old);
    let new = b.op(OpKind::Concat, &[old, row], attrs! { axis: 1i64 });
    let later = b.fresh(new);
    b.output(reader);
    b.output(later);
    let storage = renewing(b, new, old);
    assert!(at(&storage, old, new, 0) && storage.not_renewed.is_empty());
    let info = &storage.buffers[storage.root[old.0 as usize].expect("stored").index()];
    assert_eq!(
        (info.kind, info.bytes.as_const(), info.output),
        (StorageKind::Input(0), Some(2 * 4 * 4 * 4), true)
    );
    assert_eq!(storage.must_precede, [(0, 1)], "who reads the old cache comes first");
}

#[test]
fn what_is_scattered_into_an_input_takes_its_place() {
    let mut b = Builder::default();
    let (old, row) = (b.input(&[2, 3, 4]), b.input(&[2, 1, 4]));
    let index = b.input_of(TensorType::of(DType::I64, &[1]));
    let new = b.op(OpKind::IndexCopy, &[old, index, row], attrs! { axis: 1i64 });
    let storage = renewing(b, new, old);
    assert!(at(&storage, old, new, 0) && storage.not_renewed.is_empty());
}

#[test]
fn an_input_that_is_still_needed_is_not_appended_to() {
    // A later reader, the input given back, a view of it read later, behind something else, twice the same.
    type Make = fn(&mut Builder, ValueId, ValueId) -> ValueId;
    let cases: [(Make, &str); 5] = [
        (
            |b, old, row| {
                let new = b.op(OpKind::Concat, &[old, row], attrs! { axis: 1i64 });
                let part = b.slice(new, 1, 0, 3, 1);
                let both = b.op(OpKind::Sub, &[old, part], Attrs::new());
                b.output(both);
                new
            },
            "afterwards",
        ),
        (
            |b, old, row| {
                b.output(old);
                b.op(OpKind::Concat, &[old, row], attrs! { axis: 1i64 })
            },
            "gives the input back",
        ),
        (
            |b, old, row| {
                let view = b.reshape(old, &[6, 4]);
                let new = b.op(OpKind::Concat, &[old, row], attrs! { axis: 1i64 });
                let flat = b.reshape(new, &[8, 4]);
                let joined = b.op(OpKind::Concat, &[view, flat], attrs! { axis: 0i64 });
                b.output(joined);
                new
            },
            "afterwards",
        ),
        (|b, old, row| b.op(OpKind::Concat, &[row, old], attrs! { axis: 1i64 }), "does not append"),
        (|b, old, _| b.op(OpKind::Concat, &[old, old], attrs! { axis: 1i64 }), "does not append"),
    ];
    for (case, (make, why)) in cases.into_iter().enumerate() {
        let mut b = Builder::default();
        let (old, row) = (b.input(&[2, 3, 4]), b.input(&[2, 1, 4]));
        let new = make(&mut b, old, row);
        let storage = renewing(b, new, old);
        assert_ne!(storage.root[old.0 as usize], storage.root[new.0 as usize], "case {case}");
        assert!(storage.not_renewed[&new].contains(why), "case {case}: {:?}", storage.not_renewed);
    }
}

#[test]
fn nothing_is_written_over_that_is_still_needed() {
    // A later reader, an input, an output, a view that is read later, a smaller operand, another width, an operand
    // of which the unit reads a part for other elements.
    type Make = fn(&mut Builder, ValueId) -> (ValueId, ValueId);
    let cases: [Make; 7] = [
        |b, x| {
            let y = b.fresh(x);
            let z = b.relu(y);
            let late = b.fresh(y);
            b.output(late);
            (y, z)
        },
        |b, x| (x, b.relu(x)),
        |b, x| {
            let y = b.fresh(x);
            b.output(y);
            (y, b.relu(y))
        },
        |b, x| {
            let y = b.fresh(x);
            let view = b.reshape(y, &[32]);
            let z = b.relu(y);
            let late = b.fresh(view);
            b.output(late);
            (y, z)
        },
        |b, x| {
            let row = b.slice(x, 0, 0, 1, 1);
            let y = b.fresh(row);
            (y, b.op(OpKind::Add, &[x, y], Attrs::new()))
        },
        |b, x| {
            let y = b.fresh(x);
            (y, b.op(OpKind::Cast, &[y], attrs! { to: DType::F64 }))
        },
        |b, x| {
            let y = b.fresh(x);
            let row = b.slice(y, 0, 0, 1, 1);
            (y, b.op(OpKind::Add, &[y, row], Attrs::new()))
        },
    ];
    for (case, make) in cases.into_iter().enumerate() {
        let mut b = Builder::default();
        let x = b.input(&[4, 8]);
        let (y, z) = make(&mut b, x);
        let out = b.fresh(z);
        b.output(out);
        let (storage, _) = b.assign();
        assert_ne!(storage.root[y.0 as usize], storage.root[z.0 as usize], "case {case}");
    }
}

#[test]
fn what_the_caller_keeps_fills_a_buffer_of_its_own() {
    let build = |apart: bool| {
        let mut b = Builder::default();
        let x = b.input(&[4, 8]);
        let y = b.fresh(x);
        let z = b.relu(y);
        let flat = b.reshape(z, &[32]);
        b.output(z);
        b.output(flat);
        let kept = if apart { BTreeSet::from([z, flat]) } else { BTreeSet::new() };
        let (storage, _) = b.assign_with(&StorageOptions { apart: &kept, ..StorageOptions::default() });
        (at(&storage, y, z, 0), at(&storage, z, flat, 0))
    };
    assert_eq!(build(false), (true, true));
    assert_eq!(build(true), (false, false));
}

#[test]
fn bound_sizes_count_as_numbers_and_views_never_leave_their_buffer() {
    let n = Dim::symbol("n");
    let build = |symbols: Option<&SymbolTable>| {
        let mut b = Builder::default();
        let x = b.input_of(TensorType::new(DType::F32, vec![n.clone(), Dim::from(8)]));
        let y = b.fresh(x);
        let limit = Dim::from(4);
        let tail = attrs! { axis: 0i64, start: &n - &limit, limit: n.clone(), stride: 1i64 };
        let tail = b.op(OpKind::Slice, &[y], tail);
        let out = b.fresh(tail);
        b.output(out);
        let options = StorageOptions { symbols, ..StorageOptions::default() };
        let (storage, _) = b.assign_with(&options);
        (storage.skipped[1], storage.offset[tail.0 as usize].clone())
    };
    let table = |min, max| {
        let mut table = SymbolTable::default();
        let info = SymbolInfo { min, max: Some(max), ..table.info(&Symbol::new("n")) };
        table.0.insert(Symbol::new("n"), info);
        table
    };
    assert_eq!(build(Some(&table(16, 16))), (true, Dim::from(12 * 32)));
    assert!(!build(Some(&table(4, 16))).0, "the first byte depends on n");
    assert!(build(None).0);
}

#[test]
fn a_transfer_to_where_the_value_is_copies_nothing() {
    let mut b = Builder::default();
    let x = b.input(&[4, 8]);
    let here = b.op(OpKind::Transfer, &[x], attrs! { device: "a" });
    let y = b.fresh(here);
    let there = b.op(OpKind::Transfer, &[y], attrs! { device: "b" });
    b.output(there);
    for v in [here, y] {
        let (id, _) = b.graph.definition(v).expect("an operation");
        b.graph.annotate(id, "device", "a");
    }
    let (storage, _) = b.assign();
    assert_eq!(storage.skipped, [true, false, false]);
    assert!(at(&storage, x, here, 0) && !at(&storage, y, there, 0));
}

#[test]
fn readers_on_another_stream_are_ordered_only_if_wanted() {
    let build = || {
        let mut b = Builder::default();
        let x = b.input(&[4, 8]);
        let y = b.fresh(x);
        let other = b.fresh(y);
        let z = b.relu(y);
        let last = b.fresh(z);
        b.output(other);
        b.output(last);
        let (side, _) = b.graph.definition(other).expect("an operation");
        b.graph.annotate(side, "stream", 1i64);
        (b, y, z)
    };
    let (b, y, z) = build();
    assert!(!at(&b.assign().0, y, z, 0));
    let (b, y, z) = build();
    let (storage, _) = b.assign_with(&StorageOptions { order_streams: true, ..StorageOptions::default() });
    assert!(at(&storage, y, z, 0));
    assert_eq!(storage.must_precede, [(1, 2)]);
}

#[test]
fn kernels_that_are_not_elementwise_write_elsewhere() {
    let mut b = Builder::default();
    let x = b.input(&[4, 8]);
    let y = b.fresh(x);
    let z = b.relu(y);
    let w = b.fresh(z);
    let out = b.fresh(w);
    b.output(out);
    for v in [z, w] {
        let (id, _) = b.graph.definition(v).expect("an operation");
        b.graph.annotate(id, "kernel", 7i64);
    }
    let (storage, units) = b.assign();
    assert_eq!(units.len(), 3);
    assert_eq!(storage.root[z.0 as usize], None, "inside a unit");
    assert!(!at(&storage, y, w, 0));
}

/// A cache that is read before and after an `index_copy` renews it.
fn cache(late_reader: bool, handed_out: bool) -> (Builder, ValueId, ValueId) {
    let mut b = Builder::default();
    let cache = b.state(&[16, 8]);
    let index = b.argument(&[1], ArgumentKind::Input);
    let index = b.op(OpKind::Cast, &[index], attrs! { to: DType::I64 });
    let row = b.input(&[1, 8]);
    let early = b.fresh(cache);
    let new = b.op(OpKind::IndexCopy, &[cache, index, row], attrs! { axis: 0i64 });
    let read = b.fresh(new);
    b.output(early);
    b.output(read);
    if late_reader {
        let late = b.fresh(cache);
        b.output(late);
    }
    if handed_out {
        b.output(cache);
    }
    b.returns(new, ResultKind::Update(0));
    (b, cache, new)
}

#[test]
fn a_state_is_renewed_in_place_after_its_readers() {
    let (b, old, new) = cache(false, false);
    let (storage, _) = b.assign();
    assert!(at(&storage, old, new, 0));
    assert_eq!(storage.must_precede, [(1, 2)]);
    let root = storage.root[new.0 as usize].expect("stored");
    assert_eq!(storage.buffers[root.index()].kind, StorageKind::State(0));
}

#[test]
fn a_state_that_is_needed_later_is_renewed_elsewhere() {
    for (late, out) in [(true, false), (false, true)] {
        let (b, old, new) = cache(late, out);
        assert!(!at(&b.assign().0, old, new, 0));
    }
}

#[test]
fn a_chain_of_updates_and_views_ends_in_the_state() {
    let mut b = Builder::default();
    let state = b.state(&[4, 4, 8]);
    let index = b.argument(&[1], ArgumentKind::Input);
    let index = b.op(OpKind::Cast, &[index], attrs! { to: DType::I64 });
    let row = b.input(&[1, 8]);
    let flat = b.reshape(state, &[16, 8]);
    let once = b.op(OpKind::IndexCopy, &[flat, index, row], attrs! { axis: 0i64 });
    let twice = b.op(OpKind::IndexCopy, &[once, index, row], attrs! { axis: 0i64 });
    let new = b.reshape(twice, &[4, 4, 8]);
    b.returns(new, ResultKind::Update(0));
    let (storage, _) = b.assign();
    for v in [flat, once, twice, new] {
        assert!(at(&storage, state, v, 0));
    }
    assert_eq!(storage.must_precede, []);
}

#[test]
fn a_new_state_from_elsewhere_is_written_where_the_old_one_was() {
    let mut b = Builder::default();
    let state = b.state(&[4, 8]);
    let x = b.input(&[4, 8]);
    let sum = b.op(OpKind::Add, &[state, x], Attrs::new());
    let mixed = b.fresh(sum);
    b.returns(mixed, ResultKind::Update(0));
    let (storage, _) = b.assign();
    assert!(at(&storage, state, mixed, 0));
    assert_eq!(storage.must_precede, [], "the sum reads the state and feeds the new value");
    // A kernel that reads the state row by row cannot write over it.
    let mut b = Builder::default();
    let state = b.state(&[4, 8]);
    let mixed = b.fresh(state);
    b.returns(mixed, ResultKind::Update(0));
    assert!(!at(&b.assign().0, state, mixed, 0));
}

#[test]
fn weights_and_what_comes_of_them_take_no_storage() {
    let mut b = Builder::default();
    let x = b.input(&[1]);
    let one = TensorData::from_f32(&[1], &[1.0]).expect("one element");
    let size = b.op(OpKind::Constant, &[], attrs! { value: one });
    let size = b.op(OpKind::Neg, &[size], Attrs::new());
    let out = b.op(OpKind::Add, &[x, size], Attrs::new());
    b.output(out);
    let (storage, units) = b.assign();
    assert_eq!((units.len(), storage.root[size.0 as usize]), (1, None));
}

#[test]
fn groups_that_wait_for_one_another_are_refused() {
    let mut b = Builder::default();
    let x = b.input(&[8]);
    let y = b.relu(x);
    let z = b.relu(y);
    let w = b.relu(z);
    b.output(w);
    for (v, kernel) in [(y, 0i64), (z, 1), (w, 0)] {
        let (id, _) = b.graph.definition(v).expect("an operation");
        b.graph.annotate(id, "kernel", kernel);
    }
    let none = vec![false; b.graph.value_capacity()];
    assert_eq!(units(&b.graph, &none).map_err(|e| e.code), Err("lifetime.kernels".into()));
}
