//! Random programs run as the evaluator says; plans with a missing wait, with values on top of each other, or with
//! nonsense in them are found out.

mod support;

use djinn_ir::{
    ArgumentKind, Attrs, Dim, Graph, Module, OpKind as K, ResultKind, TensorData, ValueId, attrs,
};
use djinn_plan::{Action, Command, Content, Entry, EventId, Place, Plan, StreamId, View};
use djinn_runtime::{HazardKind, RunOptions, RunOutput, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use support::*;

fn run(plan: &Plan, program: &Module, options: RunOptions) -> djinn_diag::Result<RunOutput> {
    let mut runtime = Runtime::host(Arc::new(plan.clone()), Arc::new(program.clone()), options)?;
    runtime.run("main", &given())
}

fn given() -> BTreeMap<String, TensorData> {
    inputs(&[("a", f32s(&[2, 2], &[-1.0, 2.0, 0.5, -3.0])), ("b", f32s(&[4], &[0.25, -0.5, 1.0, 4.0]))])
}

/// A random program of so many operations over values of four elements.
fn random_program(rng: &mut Rng, count: usize) -> Module {
    let mut g = Graph::new();
    let mut square = vec![g.add_argument(ty(&["2", "2"]))];
    let mut flat = vec![g.add_argument(ty(&["4"]))];
    let constant = TensorData::splat(djinn_ir::DType::F32, &[2, 2], 0.5).expect("fits");
    square.push(op(&mut g, K::Constant, &[], attrs! { value: constant }));
    for _ in 0..count {
        let (a, b) = (square[rng.below(square.len())], square[rng.below(square.len())]);
        let f = flat[rng.below(flat.len())];
        let shape = |dims: &[i64]| attrs! { shape: dims.iter().map(|d| Dim::from(*d)).collect::<Vec<_>>() };
        match rng.below(7) {
            0 => square.push(op(&mut g, K::Add, &[a, b], Attrs::new())),
            1 => square.push(op(&mut g, K::MatMul, &[a, b], Attrs::new())),
            2 => square.push(op(&mut g, K::Tanh, &[a], Attrs::new())),
            3 => flat.push(op(&mut g, K::Reshape, &[a], shape(&[4]))),
            4 => square.push(op(&mut g, K::Reshape, &[f], shape(&[2, 2]))),
            5 => flat.push(op(&mut g, K::Cos, &[f], Attrs::new())),
            _ => square.push(op(&mut g, K::Sub, &[a, b], Attrs::new())),
        }
    }
    let last = |list: &[ValueId]| list[list.len() - 1];
    g.results = vec![last(&square), last(&flat), square[square.len() / 2]];
    let arguments = [("a", ArgumentKind::Input), ("b", ArgumentKind::Input)];
    module(function(g, &arguments, &["x", "y", "z"].map(|n| (n, ResultKind::Output))))
}

fn random_wish(rng: &mut Rng, devices: usize, streams_per_device: usize) -> Wish {
    let streams: Vec<usize> = (0..64).map(|_| rng.below(devices * streams_per_device)).collect();
    let mut yes = || rng.below(2) == 1;
    Wish {
        devices,
        streams_per_device,
        stream_of: Box::new(move |op| streams[op % streams.len()]),
        aliases: yes(),
        reuse: yes(),
        resident: yes(),
        group: 1 + usize::from(yes()),
        ranges: Vec::new(),
    }
}

#[test]
fn random_programs_run_as_the_evaluator_says() {
    let mut rng = Rng(1);
    for round in 0..150 {
        let program = random_program(&mut rng, 3 + round % 20);
        let expected = djinn_interp::run(&program, "main", &given()).expect("runs");
        let wish = random_wish(&mut rng, 1 + round % 3, 1 + round % 2);
        let out = run(&plan(&program, &wish), &program, RunOptions::checking());
        let out = out.unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(out.outputs, expected.outputs, "round {round}");
        assert_eq!(out.races, [], "round {round}");
    }
}

/// Ranges that a command reads and writes: (arena, start, end, written).
fn accesses(plan: &Plan, entry: &Entry, action: &Action) -> Vec<(u32, u64, u64, bool)> {
    let range = |view: &View, written| {
        let buffer = &plan.buffers[view.buffer.index()];
        let start = buffer.offset + view.offset;
        (buffer.arena.0, start, start + view.bytes, written)
    };
    match action {
        Action::Launch { kernel } => {
            let kernel = &entry.kernels[kernel.index()];
            let reads = kernel.reads.iter().map(|o| range(&o.view, false));
            reads.chain(kernel.writes.iter().map(|o| range(&o.view, true))).collect()
        }
        Action::Copy { from, to, .. } => {
            let end = |place: &Place, written| match place {
                Place::Buffer(view) => Some(range(view, written)),
                _ => None,
            };
            end(from, false).into_iter().chain(end(to, true)).collect()
        }
        _ => Vec::new(),
    }
}

/// Do two commands that nothing orders conflict? By reachability over all commands.
fn races_by_reachability(plan: &Plan) -> bool {
    let entry = &plan.entries[0];
    let n = entry.commands.len();
    let mut before = vec![vec![false; n]; n];
    let mut last: BTreeMap<StreamId, usize> = BTreeMap::new();
    let mut recorded: BTreeMap<EventId, usize> = BTreeMap::new();
    for (i, command) in entry.commands.iter().enumerate() {
        let mut direct: Vec<usize> = last.insert(command.stream, i).into_iter().collect();
        match command.action {
            Action::Record { event } => {
                recorded.insert(event, i);
            }
            Action::Wait { event } => direct.extend(recorded.get(&event)),
            _ => {}
        }
        for d in direct {
            let row = before[d].clone();
            before[i].iter_mut().zip(row).for_each(|(mine, theirs)| *mine |= theirs);
            before[i][d] = true;
        }
    }
    let all: Vec<_> = entry.commands.iter().map(|c| accesses(plan, entry, &c.action)).collect();
    (0..n).any(|b| {
        (0..b).filter(|a| !before[b][*a]).any(|a| {
            all[a].iter().any(|x| all[b].iter().any(|y| x.0 == y.0 && x.1 < y.2 && y.1 < x.2 && (x.3 || y.3)))
        })
    })
}

#[test]
fn a_dropped_wait_is_reported_exactly_if_it_mattered() {
    let mut rng = Rng(2);
    let (mut races, mut harmless) = (0, 0);
    for round in 0..25 {
        let program = random_program(&mut rng, 12);
        let wish = random_wish(&mut rng, 1 + round % 2, 2);
        let right = plan(&program, &wish);
        for i in 0..right.entries[0].commands.len() {
            if !matches!(right.entries[0].commands[i].action, Action::Wait { .. }) {
                continue;
            }
            let mut wrong = right.clone();
            wrong.entries[0].commands.remove(i);
            let expected = races_by_reachability(&wrong);
            let found = match run(&wrong, &program, RunOptions::checking()) {
                Ok(out) => out.races.iter().any(|r| r.kind == HazardKind::Race),
                Err(e) => panic!("{e}"),
            };
            assert_eq!(found, expected, "round {round}, wait {i}");
            *(if found { &mut races } else { &mut harmless }) += 1;
        }
    }
    assert!(races > 50 && harmless > 10, "{races} races, {harmless} harmless");
}

#[test]
fn values_on_top_of_each_other_are_reported_exactly_if_both_are_alive() {
    let mut rng = Rng(3);
    let (mut hazards, mut harmless) = (0, 0);
    for round in 0..8 {
        let program = random_program(&mut rng, 10);
        let right = plan(&program, &Wish { aliases: round % 2 == 0, ..Wish::default() });
        let entry = &right.entries[0];
        // First and last command, and whether the first writes and the last only reads.
        let mut lives: BTreeMap<(u32, u64), (usize, usize, bool)> = BTreeMap::new();
        for (i, command) in entry.commands.iter().enumerate() {
            for (arena, start, _, written) in accesses(&right, entry, &command.action) {
                let life = lives.entry((arena, start)).or_insert((i, i, written));
                (life.1, life.2) = (i, written);
            }
        }
        for a in 0..right.buffers.len() {
            for b in (0..right.buffers.len()).filter(|b| *b != a) {
                let [x, y] = [a, b].map(|i| &right.buffers[i]);
                if x.arena != y.arena || [x, y].iter().any(|b| !matches!(b.content, Content::Run { .. })) {
                    continue;
                }
                let [p, q] = [x, y].map(|b| lives[&(b.arena.0, b.offset)]);
                // The later one may be written where the earlier one is read for the last time.
                let apart =
                    |e: (usize, usize, bool), l: (usize, usize, bool)| e.1 < l.0 || (e.1 == l.0 && !e.2);
                let alive = !(apart(p, q) || apart(q, p));
                let mut wrong = right.clone();
                wrong.buffers[b].offset = x.offset;
                let found = match run(&wrong, &program, RunOptions::checking()) {
                    Ok(out) => !out.races.is_empty(),
                    Err(_) => true,
                };
                assert_eq!(found, alive, "round {round}, buffers {a} and {b}");
                *(if found { &mut hazards } else { &mut harmless }) += 1;
            }
        }
    }
    assert!(hazards > 100 && harmless > 100, "{hazards} hazards, {harmless} harmless");
}

/// `x = tanh(a)`, then `y = cos(b)`, `z = x`: the value of tanh is read last.
fn two_values() -> Module {
    let mut g = Graph::new();
    let a = g.add_argument(ty(&["2", "2"]));
    let b = g.add_argument(ty(&["4"]));
    let t = op(&mut g, K::Tanh, &[a], Attrs::new());
    let c = op(&mut g, K::Cos, &[b], Attrs::new());
    let s = op(&mut g, K::Sin, &[c], Attrs::new());
    let n = op(&mut g, K::Neg, &[t], Attrs::new());
    g.results = vec![n, s];
    let arguments = [("a", ArgumentKind::Input), ("b", ArgumentKind::Input)];
    module(function(g, &arguments, &["n", "s"].map(|n| (n, ResultKind::Output))))
}

#[test]
fn poison_shows_in_the_outputs_of_a_wrong_plan() {
    let program = two_values();
    let mut wrong = plan(&program, &Wish::default());
    let place = |name: &str| wrong.buffers.iter().position(|b| b.name == name).expect("there");
    // The value of cos dies before that of tanh is read.
    let (tanh, cos) = (place("value 2"), place("value 3"));
    wrong.buffers[cos].offset = wrong.buffers[tanh].offset;
    let out = run(&wrong, &program, RunOptions { poison: true, ..RunOptions::default() }).expect("runs");
    assert!((0..4).all(|i| out.output("n").and_then(|t| t.get_f64(i)).is_some_and(f64::is_nan)));
    let quiet = run(&wrong, &program, RunOptions::default()).expect("runs");
    assert!(quiet.output("n").and_then(|t| t.get_f64(0)).is_some_and(|v| !v.is_nan()));
    assert_eq!(quiet.races, []);
    let out = run(&wrong, &program, RunOptions::checking()).expect("runs");
    assert_eq!(out.races.iter().map(|r| r.kind).collect::<Vec<_>>(), [HazardKind::Stale]);
    let message = out.races[0].to_string();
    assert!(
        message.contains("(launch 'neg') reads buffer") && message.contains("(launch 'cos') has put"),
        "{message}"
    );
}

#[test]
fn unwritten_bytes_are_reported_and_read_as_poison() {
    let program = two_values();
    let mut wrong = plan(&program, &Wish::default());
    // The value of cos is never computed.
    let launch = |c: &Command| matches!(c.action, Action::Launch { kernel } if kernel.0 == 1);
    let at = wrong.entries[0].commands.iter().position(launch).expect("launched");
    wrong.entries[0].commands.remove(at);
    let out = run(&wrong, &program, RunOptions::checking()).expect("runs");
    assert_eq!(out.races.iter().map(|r| r.kind).collect::<Vec<_>>(), [HazardKind::Unwritten]);
    assert!(out.output("s").and_then(|t| t.get_f64(0)).is_some_and(f64::is_nan));
}

#[test]
fn scratch_memory_must_be_free() {
    let program = two_values();
    let right = plan(&program, &Wish::default());
    for (buffer, fine) in
        [(None, true), (Some("value 2"), false), (Some("value 1"), false), (Some("value 3"), false)]
    {
        let mut p = right.clone();
        let view = match buffer {
            Some(name) => {
                let b = p.buffers.iter().position(|b| b.name == name).expect("there");
                View { buffer: djinn_plan::BufferId(b as u32), offset: 0, bytes: 16 }
            }
            None => {
                let mut b = p.buffers[0].clone();
                b.name = "scratch".to_owned();
                b.offset = p.arenas[b.arena.index()].bytes;
                p.arenas[b.arena.index()].bytes += 16;
                p.buffers.push(b);
                View { buffer: djinn_plan::BufferId(p.buffers.len() as u32 - 1), offset: 0, bytes: 16 }
            }
        };
        // Kernel 1 is cos: it reads value 1 and writes value 3, and value 2 (tanh) is alive.
        p.entries[0].kernels[1].workspace = Some(view);
        let out = run(&p, &program, RunOptions::checking()).expect("runs");
        let expected = djinn_interp::run(&program, "main", &given()).expect("runs");
        assert_eq!((out.races.is_empty(), out.outputs == expected.outputs), (fine, fine), "{buffer:?}");
    }
}

#[test]
fn events_out_of_order_are_refused_instead_of_waited_for() {
    let program = random_program(&mut Rng(4), 12);
    let wish = Wish { streams_per_device: 2, stream_of: Box::new(|op| op % 2), ..Wish::default() };
    let right = plan(&program, &wish);
    let message = |change: &dyn Fn(&mut Entry)| {
        let mut wrong = right.clone();
        change(&mut wrong.entries[0]);
        let e = run(&wrong, &program, RunOptions::default()).expect_err("refused");
        assert_eq!(e.code, "runtime.plan");
        e.message
    };
    let first_wait = |e: &Entry| {
        e.commands.iter().position(|c| matches!(c.action, Action::Wait { .. })).expect("there is a wait")
    };
    let record_of = |e: &Entry, event: EventId| {
        e.commands.iter().position(|c| c.action == Action::Record { event }).expect("recorded")
    };
    let later = message(&|e| {
        let at = first_wait(e);
        let wait = e.commands.remove(at);
        e.commands.insert(0, wait);
    });
    assert!(later.contains("is recorded later or never"), "{later}");
    let never = message(&|e| {
        let at = first_wait(e);
        let Action::Wait { event } = e.commands[at].action else { panic!("a wait") };
        let at = record_of(e, event);
        e.commands.remove(at);
    });
    assert!(never.contains("is recorded later or never"), "{never}");
    let twice = message(&|e| {
        let at = record_of(e, EventId(0));
        let record = e.commands[at];
        e.commands.push(record);
    });
    assert!(twice.contains("is recorded twice"), "{twice}");
    assert!(message(&|e| e.events = 1).contains("does not exist"));
    assert!(message(&|e| e.events = u32::MAX).contains("more than there are commands"));
}

#[test]
fn two_streams_that_wait_for_each_other_are_refused() {
    let program = two_values();
    let mut p = plan(&program, &Wish { streams_per_device: 2, ..Wish::default() });
    let e = &mut p.entries[0];
    let (x, y) = (EventId(e.events), EventId(e.events + 1));
    e.events += 2;
    let command = |stream, action| Command { stream: StreamId(stream), action };
    e.commands.insert(0, command(0, Action::Wait { event: x }));
    e.commands.insert(1, command(1, Action::Wait { event: y }));
    e.commands.push(command(0, Action::Record { event: y }));
    e.commands.push(command(1, Action::Record { event: x }));
    assert!(run(&p, &program, RunOptions::default()).is_err());
}

/// `g = gather(a, index)` on one stream, a chain on another, and their sum.
fn failing() -> Module {
    let mut g = Graph::new();
    let a = g.add_argument(ty(&["2", "2"]));
    let b = g.add_argument(ty(&["4"]));
    let index = op(&mut g, K::Cast, &[b], attrs! { to: djinn_ir::DType::I64 });
    let picked = op(&mut g, K::Gather, &[a, index], attrs! { axis: 0i64 });
    let mut chain = b;
    for _ in 0..20 {
        chain = op(&mut g, K::Neg, &[chain], Attrs::new());
    }
    let column = op(&mut g, K::Reshape, &[chain], attrs! { shape: vec![Dim::from(4i64), Dim::ONE] });
    let sum = op(&mut g, K::Add, &[picked, column], Attrs::new());
    g.results = vec![sum];
    let arguments = [("a", ArgumentKind::Input), ("b", ArgumentKind::Input)];
    module(function(g, &arguments, &[("y", ResultKind::Output)]))
}

#[test]
fn a_failing_kernel_stops_every_stream_and_is_named() {
    let program = failing();
    let wish = Wish { streams_per_device: 3, stream_of: Box::new(|op| op % 3), ..Wish::default() };
    let p = plan(&program, &wish);
    let mut messages = BTreeSet::new();
    for _ in 0..20 {
        let e = run(&p, &program, RunOptions::checking()).expect_err("index 4 is out of range");
        messages.insert(e.to_string());
    }
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message = messages.pop_first().expect("one");
    assert!(
        message.contains("entry 0 'main', command") && message.contains("operation 1 'gather'"),
        "{message}"
    );
}

/// Numbers of a plan become 0, larger by one, or huge; lists lose an element.
fn mutate(value: &mut serde_json::Value, target: &mut usize, how: usize) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(_, v)| mutate(v, target, how)),
        Value::Array(list) => {
            if *target == 0 && !list.is_empty() {
                list.remove(how % list.len());
            }
            *target = target.wrapping_sub(1);
            list.iter_mut().for_each(|v| mutate(v, target, how));
        }
        Value::Number(n) if n.is_u64() => {
            if *target == 0 {
                let old = n.as_u64().unwrap_or(0);
                *value = [0, old + 1, u64::from(u32::MAX), u64::MAX, old / 2, old ^ 8][how % 6].into();
            }
            *target = target.wrapping_sub(1);
        }
        _ => {}
    }
}

fn count(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Number(n) => usize::from(n.is_u64()),
        _ => 0,
    }
}

#[test]
fn damaged_plans_give_diagnostics_or_run_to_their_end() {
    let mut rng = Rng(5);
    let program = random_program(&mut rng, 8);
    let wish =
        Wish { devices: 2, streams_per_device: 2, stream_of: Box::new(|op| op % 4), ..Wish::default() };
    let text = serde_json::to_value(plan(&program, &wish)).expect("plain data");
    let options = RunOptions { memory_limit: 1 << 20, ..RunOptions::checking() };
    let (mut read, mut refused) = (0, 0);
    for target in 0..count(&text) {
        for how in [rng.below(6), rng.below(6)] {
            let mut damaged = text.clone();
            mutate(&mut damaged, &mut { target }, how);
            let Ok(p) = serde_json::from_value::<Plan>(damaged) else { continue };
            read += 1;
            refused += usize::from(run(&p, &program, options).is_err());
        }
    }
    assert!(read > 500 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn limits_and_missing_things_are_named() {
    let program = two_values();
    let right = plan(&program, &Wish::default());
    let code = |change: &dyn Fn(&mut Plan), options| {
        let mut wrong = right.clone();
        change(&mut wrong);
        let e = run(&wrong, &program, options).expect_err("refused");
        (e.code.clone(), e.to_string())
    };
    let small = RunOptions { memory_limit: 100, ..RunOptions::default() };
    assert_eq!(code(&|_| {}, small).0, "runtime.memory");
    let huge = RunOptions { memory_limit: u64::MAX, ..RunOptions::default() };
    assert_eq!(code(&|p| p.arenas[2].bytes = 1 << 60, huge).0, "runtime.memory");
    let plain = RunOptions::default();
    for (change, text) in [
        (&(|p: &mut Plan| p.version += 1) as &dyn Fn(&mut Plan), "format version"),
        (&|p| p.entries[0].function = "other".to_owned(), "no function 'other'"),
        (&|p| p.entries[0].kernels[0].ops = vec![99], "no operation 99"),
        (&|p| p.entries[0].kernels[0].reads.clear(), "neither makes nor reads"),
        (
            &|p| p.entries[0].kernels[0].writes[0].value = p.entries[0].kernels[1].writes[0].value,
            "none of its operations",
        ),
        (&|p| p.entries[0].kernels.truncate(1), "no kernel 1"),
        (&|p| p.entries[0].inputs.truncate(1), "is no input"),
        (&|p| p.buffers[0].offset = u64::MAX, "leave its arena"),
        (&|p| p.buffers[0].content = Content::Run { entry: 7 }, "belongs to another entry"),
        (
            &|p| {
                p.entries[0]
                    .commands
                    .retain(|c| !matches!(c.action, Action::Copy { to: Place::Output(0), .. }))
            },
            "no command copies 'n'",
        ),
    ] {
        let (code, message) = code(change, plain);
        assert_eq!(code, "runtime.plan", "{message}");
        assert!(message.contains(text), "{message}");
    }
}
