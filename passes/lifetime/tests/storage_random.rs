//! Storage of random graphs, run in random orders on memory that remembers what was written where.

mod common;

use common::{Random, random_function};
use djinn_ir::walk::known_before_runs;
use djinn_ir::{ArgumentKind, Function, OpId, OpKind, ResultKind, ValueId};
use djinn_lifetime::{Storage, StorageOptions, assign, units};
use std::collections::{BTreeMap, BTreeSet};

/// A byte as it was written: which value wrote it, and as which of its bytes.
type Byte = (ValueId, usize);

fn size(f: &Function, v: ValueId) -> usize {
    f.graph.ty(v).numel().as_const().expect("constant") as usize * 4
}

fn offset(s: &Storage, v: ValueId) -> usize {
    s.offset[v.0 as usize].as_const().expect("constant") as usize
}

/// What the bytes of every value should be.
fn contents(f: &Function, units: &[Vec<OpId>], storage: &Storage) -> BTreeMap<ValueId, Vec<Byte>> {
    let mut all: BTreeMap<ValueId, Vec<Byte>> = BTreeMap::new();
    let own = |v: ValueId| (0..size(f, v)).map(|i| (v, i)).collect::<Vec<_>>();
    for v in &f.graph.arguments {
        all.insert(*v, own(*v));
    }
    for (u, ops) in units.iter().enumerate() {
        for id in ops {
            let op = f.graph.op(*id);
            let v = op.results[0];
            let parts: Vec<&Vec<Byte>> = op.operands.iter().map(|o| &all[o]).collect();
            let made = match op.kind {
                _ if !storage.skipped[u] => own(v),
                OpKind::Slice => {
                    let start = op.attrs.dim("start").as_const().expect("constant") as usize * 256;
                    parts[0][start..start + size(f, v)].to_vec()
                }
                OpKind::Concat => parts.into_iter().flatten().copied().collect(),
                _ => parts[0].clone(),
            };
            all.insert(v, made);
        }
    }
    all
}

/// A random order of the units that respects the dependences and the extra pairs.
fn random_order(f: &Function, units: &[Vec<OpId>], storage: &Storage, random: &mut Random) -> Vec<usize> {
    let mut waits = vec![Vec::new(); units.len()];
    for (u, ops) in units.iter().enumerate() {
        for v in ops.iter().flat_map(|id| &f.graph.op(*id).operands) {
            let maker =
                f.graph.definition(*v).and_then(|(op, _)| units.iter().position(|ops| ops.contains(&op)));
            waits[u].extend(maker.filter(|m| *m != u));
        }
    }
    for &(first, second) in &storage.must_precede {
        assert!(first < second, "pairs go forward");
        waits[second].push(first);
    }
    let mut order: Vec<usize> = Vec::new();
    while order.len() < units.len() {
        let ready: Vec<usize> = (0..units.len())
            .filter(|u| !order.contains(u) && waits[*u].iter().all(|w| order.contains(w)))
            .collect();
        order.push(ready[random.below(ready.len())]);
    }
    order
}

fn check(f: &Function, storage: &Storage, v: ValueId, memory: &[Vec<Byte>], want: &[Byte], when: &str) {
    let root = storage.root[v.0 as usize].expect("stored");
    let low = offset(storage, v);
    assert_eq!(&memory[root.index()][low..low + size(f, v)], want, "%{} {when}\n{storage:?}", v.0);
}

/// Runs the units in this order and checks every byte that is read.
fn execute(f: &Function, units: &[Vec<OpId>], storage: &Storage, order: &[usize]) {
    let want = contents(f, units, storage);
    let nothing: Byte = (ValueId(u32::MAX), 0);
    let bytes = |b: &djinn_lifetime::StorageInfo| b.bytes.as_const().expect("constant") as usize;
    let mut memory: Vec<Vec<Byte>> = storage.buffers.iter().map(|b| vec![nothing; bytes(b)]).collect();
    let write = |memory: &mut Vec<Vec<Byte>>, v: ValueId| {
        if let Some(root) = storage.root[v.0 as usize] {
            let low = offset(storage, v);
            memory[root.index()][low..low + want[&v].len()].copy_from_slice(&want[&v]);
        }
    };
    f.graph.arguments.iter().for_each(|v| write(&mut memory, *v));
    for &u in order.iter().filter(|u| !storage.skipped[**u]) {
        for id in &units[u] {
            for v in &f.graph.op(*id).operands {
                check(f, storage, *v, &memory, &want[v], &format!("read by unit {u} in {order:?}"));
            }
            f.graph.op(*id).results.iter().for_each(|v| write(&mut memory, *v));
        }
    }
    for (v, (_, kind)) in f.graph.results.iter().zip(&f.results) {
        check(f, storage, *v, &memory, &want[v], "at the end");
        if *kind == ResultKind::Output {
            let root = storage.root[v.0 as usize].expect("stored");
            assert!(storage.buffers[root.index()].output);
        }
    }
}

/// What appends to an input, and the input: handed to the caller from now on.
fn kept(f: &mut Function) -> BTreeMap<ValueId, ValueId> {
    let mut pairs = BTreeMap::new();
    let appends = |op: &djinn_ir::Op| {
        let n = f.graph.arguments.iter().position(|a| op.operands.first() == Some(a))?;
        let grows = op.kind == OpKind::Concat && f.arguments[n].1 == ArgumentKind::Input;
        grows.then(|| (op.results[0], op.operands[0]))
    };
    let found: Vec<(ValueId, ValueId)> = f.graph.ops().filter_map(|(_, op)| appends(op)).collect();
    for (new, old) in found {
        if pairs.values().all(|o| *o != old) && !f.graph.results.contains(&new) {
            pairs.insert(new, old);
            f.results.push((format!("kept {}", new.0).into(), ResultKind::Output));
            f.graph.results.push(new);
        }
    }
    pairs
}

#[test]
fn every_order_that_respects_the_pairs_reads_what_was_written() {
    let mut random = Random(5);
    let (mut shared, mut updated, mut ordered, mut appended, mut refused) = (0, 0, 0, 0, 0);
    for case in 0..3_000 {
        let ops = 3 + random.below(12);
        let mut f = random_function(&mut random, ops, true);
        let renewals = kept(&mut f);
        let apart: BTreeSet<ValueId> = renewals.keys().copied().collect();
        let ahead = known_before_runs(&f);
        let units = units(&f.graph, &ahead).expect("an order");
        let options = StorageOptions {
            order_streams: case % 2 == 0,
            apart: &apart,
            renewals: &renewals,
            ..StorageOptions::default()
        };
        let storage = assign(&f, &units, &ahead, &options);
        ordered += storage.must_precede.len();
        shared += storage.buffers.iter().filter(|b| b.values.len() > 1).count();
        let renewed = |(v, (_, kind)): (&ValueId, &(_, ResultKind))| match kind {
            ResultKind::Update(n) => {
                storage.root[v.0 as usize] == storage.root[f.graph.arguments[*n as usize].0 as usize]
            }
            ResultKind::Output => false,
        };
        updated += f.graph.results.iter().zip(&f.results).filter(|pair| renewed(*pair)).count();
        for (new, old) in &renewals {
            let same = storage.root[new.0 as usize] == storage.root[old.0 as usize];
            assert_eq!(same, !storage.not_renewed.contains_key(new));
            appended += usize::from(same);
            refused += usize::from(!same);
        }
        for _ in 0..4 {
            let order = random_order(&f, &units, &storage, &mut random);
            execute(&f, &units, &storage, &order);
        }
    }
    assert!(appended > 100 && refused > 100, "{appended} {refused}");
    assert!(shared > 1_000 && updated > 100 && ordered > 100, "{shared} {updated} {ordered}");
}
