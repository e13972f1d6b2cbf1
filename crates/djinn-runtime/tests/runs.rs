//! Plans of a naive planner give what the reference evaluator gives, in every mode.

mod support;

use djinn_interp::{Tolerance, compare};
use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Graph, Module, OpKind as K, ResultKind, TensorData, Weight, attrs,
    weight_attrs,
};
use djinn_plan::Plan;
use djinn_runtime::{Kernels, LinkSpeed, RunOptions, RunOutput, Runtime};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::*;

fn runtime(plan: &Plan, program: &Module, options: RunOptions) -> Runtime {
    Runtime::host(Arc::new(plan.clone()), Arc::new(program.clone()), options)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Runs a plan in every mode and compares with the evaluator.
fn agrees(plan: &Plan, program: &Module, given: &BTreeMap<String, TensorData>) -> RunOutput {
    let expected = djinn_interp::run(program, "main", given).unwrap_or_else(|e| panic!("{e}"));
    let shared = RunOptions { share_constants: true, links: LinkSpeed::Planned, ..RunOptions::default() };
    let mut last = None;
    for options in [RunOptions::default(), shared, RunOptions::checking()] {
        let mut runtime = runtime(plan, program, options);
        for _ in 0..2 {
            runtime.reset_states().unwrap_or_else(|e| panic!("{e}"));
            let out = runtime.run("main", given).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(out.outputs, expected.outputs);
            for (name, value) in &expected.updates {
                let new = out.update(name).cloned().map_or_else(|| runtime.state(name), Ok);
                assert_eq!(new.unwrap_or_else(|e| panic!("{e}")), *value, "{name}");
            }
            assert_eq!(out.races, []);
            assert_eq!(out.trace.len(), plan.entries[out.entry].commands.len());
            last = Some(out);
        }
    }
    agrees_compiled(plan, program, given, &expected);
    last.expect("ran")
}

/// Runs a plan by compiled code and library calls and compares with the evaluator, up to the order of sums.
fn agrees_compiled(
    plan: &Plan,
    program: &Module,
    given: &BTreeMap<String, TensorData>,
    expected: &djinn_interp::Outputs,
) {
    if djinn_plan::check(plan).is_err() {
        let options = RunOptions { kernels: Kernels::Compiled, ..RunOptions::default() };
        let refused = Runtime::host(Arc::new(plan.clone()), Arc::new(program.clone()), options).err();
        assert_eq!(refused.expect("the checker refuses the plan").code, "runtime.plan");
        return;
    }
    let near = Tolerance::Approx { rtol: 1e-5, atol: 1e-6 };
    for options in [RunOptions::default(), RunOptions::checking()] {
        let options = RunOptions { kernels: Kernels::Compiled, ..options };
        let mut runtime = runtime(plan, program, options);
        if let Some(problem) = runtime.kernels().problems.first() {
            println!("compiled code: skipped: {problem}");
        }
        for _ in 0..2 {
            runtime.reset_states().unwrap_or_else(|e| panic!("{e}"));
            let out = runtime.run("main", given).unwrap_or_else(|e| panic!("{e}"));
            for ((_, made), (name, value)) in out.outputs.iter().zip(&expected.outputs) {
                compare(value, made, near).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            for (name, value) in &expected.updates {
                let new = out.update(name).cloned().map_or_else(|| runtime.state(name), Ok);
                let new = new.unwrap_or_else(|e| panic!("{e}"));
                compare(value, &new, near).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            assert_eq!(out.races, []);
            assert_eq!(out.outputs.len(), expected.outputs.len());
        }
    }
}

/// Two branches that meet: y = (x·w + x) · relu(x), and a constant of its own.
fn diamond() -> Module {
    let mut g = Graph::new();
    let x = g.add_argument(ty(&["2", "2"]));
    let weight = Weight::with_data(f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
    let w = op(&mut g, K::Weight, &[], weight_attrs("w", &weight));
    let double = op(&mut g, K::Add, &[w, w], Attrs::new());
    let a = op(&mut g, K::MatMul, &[x, double], Attrs::new());
    let b = op(&mut g, K::Relu, &[x], Attrs::new());
    let c = op(&mut g, K::Add, &[a, x], Attrs::new());
    let d = op(&mut g, K::Mul, &[c, b], Attrs::new());
    let flat = op(&mut g, K::Reshape, &[d], attrs! { shape: vec![Dim::from(4i64)] });
    let y = op(&mut g, K::Neg, &[flat], Attrs::new());
    g.results = vec![y, d, double, x];
    let arguments = [("x", ArgumentKind::Input)];
    let results = ["y", "d", "double", "same"].map(|n| (n, ResultKind::Output));
    let mut m = module(function(g, &arguments, &results));
    m.weights.insert(Arc::from("w"), weight);
    m
}

fn x22() -> BTreeMap<String, TensorData> {
    inputs(&[("x", f32s(&[2, 2], &[-1.0, 2.0, 0.5, -3.0]))])
}

#[test]
fn one_stream_and_a_buffer_for_every_value() {
    let m = diamond();
    let out = agrees(&plan(&m, &Wish::default()), &m, &x22());
    assert!(out.trace.windows(2).all(|w| w[0].end_ns <= w[1].start_ns));
    let spans = out.spans(&plan(&m, &Wish::default()));
    let names: Vec<&str> = spans.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names[1..5], ["matmul", "relu", "add", "mul"]);
    assert!(names[0].starts_with("input ") && names.len() == 9, "{names:?}");
}

#[test]
fn streams_devices_aliases_groups_and_reuse() {
    let m = diamond();
    for devices in [1usize, 2, 3] {
        for streams_per_device in [1usize, 2] {
            for (aliases, reuse, group, resident) in [
                (false, false, 1, false),
                (true, false, 2, true),
                (false, true, 3, true),
                (true, true, 1, false),
            ] {
                let n = devices * streams_per_device;
                let stream_of = Box::new(move |op: usize| (op * 5 + 1) % n);
                let wish = Wish {
                    devices,
                    streams_per_device,
                    stream_of,
                    aliases,
                    reuse,
                    group,
                    resident,
                    ranges: vec![],
                };
                agrees(&plan(&m, &wish), &m, &x22());
            }
        }
    }
}

/// `y = x + total`, and `total` becomes the sum of y.
fn accumulator() -> Module {
    let mut g = Graph::new();
    let x = g.add_argument(ty(&["s", "2"]));
    let total = g.add_argument(ty(&["1", "2"]));
    let y = op(&mut g, K::Add, &[x, total], Attrs::new());
    let sum = op(&mut g, K::ReduceSum, &[y], attrs! { axes: vec![0i64], keepdims: true });
    g.results = vec![y, sum];
    let state = ArgumentKind::State { initial: Some(Arc::from("zero")) };
    let mut m = module(function(
        g,
        &[("x", ArgumentKind::Input), ("total", state)],
        &[("y", ResultKind::Output), ("new_total", ResultKind::Update(1))],
    ));
    m.weights.insert(Arc::from("zero"), Weight::with_data(f32s(&[1, 2], &[0.5, 0.0])));
    m
}

#[test]
fn states_live_from_run_to_run() {
    let m = accumulator();
    let wish = Wish { ranges: vec![("s", 1, 4)], ..Wish::default() };
    let p = plan(&m, &wish);
    let x = inputs(&[("x", f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]))]);
    agrees(&p, &m, &x);
    let mut r = runtime(&p, &m, RunOptions::checking());
    assert_eq!(r.run("main", &x).expect("runs").output("y"), Some(&f32s(&[2, 2], &[1.5, 2.0, 3.5, 4.0])));
    assert_eq!(r.state("total").expect("there"), f32s(&[1, 2], &[5.0, 6.0]));
    assert_eq!(r.run("main", &x).expect("runs").output("y"), Some(&f32s(&[2, 2], &[6.0, 8.0, 8.0, 10.0])));
    r.set_state("total", &f32s(&[1, 2], &[0.0, 1.0])).expect("fits");
    assert_eq!(r.run("main", &x).expect("runs").output("y"), Some(&f32s(&[2, 2], &[1.0, 3.0, 3.0, 5.0])));
    r.reset_states().expect("weight");
    assert_eq!(r.state("total").expect("there"), f32s(&[1, 2], &[0.5, 0.0]));
    let mut given = x.clone();
    given.insert("total".to_owned(), f32s(&[1, 2], &[1.0, 1.0]));
    assert_eq!(r.run("main", &given).expect("runs").output("y"), Some(&f32s(&[2, 2], &[2.0, 3.0, 4.0, 5.0])));
    assert_eq!(r.states(), ["total"]);
    assert_eq!(r.state("other").expect_err("unknown").code, "runtime.state");
    assert!(r.set_state("total", &f32s(&[2], &[1.0, 1.0])).is_err());
}

#[test]
fn the_entry_whose_ranges_hold_the_sizes_runs() {
    let m = accumulator();
    let mut p = plan_functions(&m, &["main"], &Wish { ranges: vec![("s", 1, 2)], ..Wish::default() });
    let wide = plan_functions(&m, &["main", "main"], &Wish { ranges: vec![("s", 3, 8)], ..Wish::default() });
    // The second entry of the wider plan becomes the second entry of this one, with its buffers after those here.
    p = merge_second(p, wide);
    let mut r = runtime(&p, &m, RunOptions::checking());
    let x = |n: usize| inputs(&[("x", TensorData::splat(DType::F32, &[n, 2], 1.0).expect("fits"))]);
    assert_eq!(r.run("main", &x(2)).expect("runs").entry, 0);
    assert_eq!(r.run("main", &x(5)).expect("runs").entry, 1);
    let e = r.run("main", &x(9)).expect_err("too large");
    assert_eq!(e.code, "runtime.sizes");
    assert!(e.message.contains("s = 9"), "{e}");
    assert!(e.help.as_deref().is_some_and(|h| h.contains("s in 1..=2; or s in 3..=8")), "{e}");
    assert_eq!(r.state("total").expect("there").shape(), [1, 2]);
}

/// `first` with the second entry of `second`, whose buffers of a run come after those of `first`.
fn merge_second(mut first: Plan, second: Plan) -> Plan {
    use djinn_plan::Content;
    let arenas: Vec<u64> = first.arenas.iter().map(|a| a.bytes).collect();
    let state = |p: &Plan| p.buffers.iter().position(|b| matches!(b.content, Content::State { .. }));
    let (mine, theirs) = (state(&first).expect("state"), state(&second).expect("state"));
    let base = first.buffers.len();
    let mut map = BTreeMap::from([(theirs as u32, mine as u32)]);
    for (i, b) in second.buffers.iter().enumerate().filter(|(_, b)| b.content == Content::Run { entry: 1 }) {
        let mut b = b.clone();
        b.offset += arenas[b.arena.index()];
        map.insert(i as u32, (base + map.len() - 1) as u32);
        let end = (b.offset + b.bytes).next_multiple_of(256);
        let arena = &mut first.arenas[b.arena.index()];
        arena.bytes = arena.bytes.max(end);
        first.buffers.push(b);
    }
    let text = serde_json::to_value(&second.entries[1]).expect("plain data");
    let text = renumber(text, &map);
    first.entries.push(serde_json::from_value(text).expect("same form"));
    first
}

fn renumber(value: serde_json::Value, map: &BTreeMap<u32, u32>) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(k, v)| match v.as_u64() {
                Some(n) if k == "buffer" => (k, Value::from(map[&(n as u32)])),
                _ => (k, renumber(v, map)),
            })
            .collect(),
        Value::Array(list) => list.into_iter().map(|v| renumber(v, map)).collect(),
        other => other,
    }
}

#[test]
fn wrong_inputs_are_the_callers_fault() {
    let m = accumulator();
    let mut r =
        runtime(&plan(&m, &Wish { ranges: vec![("s", 1, 4)], ..Wish::default() }), &m, RunOptions::default());
    let x = || f32s(&[1, 2], &[0.0; 2]);
    for (given, message) in [
        (inputs(&[]), "input 'x' is missing"),
        (inputs(&[("x", x()), ("z", x())]), "there is no input 'z'"),
        (
            inputs(&[("x", TensorData::from_i64(&[1, 2], &[0, 0]).expect("fits"))]),
            "element type of input 'x' is i64, not f32",
        ),
        (
            inputs(&[("x", f32s(&[1, 3], &[0.0; 3]))]),
            "shape of input 'x' is [1, 3], but its type says [s, 2] where s = 1",
        ),
    ] {
        assert_eq!(r.run("main", &given).expect_err("refused").message, message);
    }
    assert_eq!(r.run("other", &inputs(&[])).expect_err("refused").code, "runtime.input");
}

#[test]
fn data_dependent_sizes_and_regions_run() {
    let mut g = Graph::new();
    let scalar = djinn_ir::TensorType::scalar(DType::I64);
    let args: Vec<_> = (0..3).map(|_| g.add_argument(scalar.clone())).collect();
    let r = op(&mut g, K::Range, &args, attrs! { result_shape: vec![Dim::symbol("n")] });
    let square = op(&mut g, K::Mul, &[r, r], Attrs::new());
    let size =
        op(&mut g, K::DimExpr, &[], attrs! { exprs: vec![&Dim::symbol("n") + &Dim::ONE], scalar: true });
    let both = op(&mut g, K::Add, &[square, size], Attrs::new());
    g.results = vec![both];
    let arguments = ["start", "limit", "delta"].map(|n| (n, ArgumentKind::Input));
    let m = module(function(g, &arguments, &[("y", ResultKind::Output)]));
    let number = |n: i64| TensorData::from_i64(&[], &[n]).expect("fits");
    let given = inputs(&[("start", number(1)), ("limit", number(6)), ("delta", number(2))]);
    let p = plan(&m, &Wish { ranges: vec![("n", 0, 8)], ..Wish::default() });
    agrees(&p, &m, &given);
    let mut r = runtime(&p, &m, RunOptions::default());
    let many = inputs(&[("start", number(0)), ("limit", number(60)), ("delta", number(2))]);
    let e = r.run("main", &many).expect_err("too many");
    assert_eq!(e.code, "runtime.sizes", "{e}");
    // The size is used on a stream that does not wait for the range.
    let wish = Wish {
        streams_per_device: 2,
        stream_of: Box::new(|op| usize::from(op == 2)),
        ranges: vec![("n", 0, 8)],
        ..Wish::default()
    };
    let unordered = runtime(&plan(&m, &wish), &m, RunOptions::checking()).run("main", &given);
    match unordered {
        Ok(out) => assert_eq!(
            out.races.iter().map(|r| r.kind).collect::<Vec<_>>(),
            [djinn_runtime::HazardKind::Symbol]
        ),
        Err(e) => assert_eq!(e.code, "interp.symbol"),
    }
}

/// An input that stays on its device is given once, and then again only to change it; what it was counts for the sizes.
#[test]
fn an_input_that_stays_is_given_once() {
    let mut g = Graph::new();
    let (a, b) = (g.add_argument(ty(&["n"])), g.add_argument(ty(&["n"])));
    let sum = op(&mut g, K::Add, &[a, b], Attrs::new());
    g.results = vec![sum];
    let arguments = ["a", "b"].map(|n| (n, ArgumentKind::Input));
    let m = module(function(g, &arguments, &[("sum", ResultKind::Output)]));
    let p = plan(&m, &Wish { resident: true, ranges: vec![("n", 1, 4)], ..Wish::default() });
    let mut runtime = runtime(&p, &m, RunOptions::checking());
    let two = |x: f32, y: f32| f32s(&[2], &[x, y]);
    let error = runtime.run("main", &inputs(&[("a", two(1.0, 2.0))])).expect_err("b is nowhere");
    assert!(error.to_string().contains("input 'b' is missing"), "{error}");
    assert_eq!(runtime.kept("main", "a").expect("a plan"), None, "a refused run takes no input");
    let both = inputs(&[("a", two(1.0, 2.0)), ("b", two(10.0, 20.0))]);
    let sum = |out: djinn_runtime::RunOutput| {
        assert_eq!(out.races, []);
        out.outputs[0].1.clone()
    };
    assert_eq!(sum(runtime.run("main", &both).expect("runs")), two(11.0, 22.0));
    assert_eq!(sum(runtime.run("main", &inputs(&[])).expect("both are there")), two(11.0, 22.0));
    let other = inputs(&[("a", two(3.0, 4.0))]);
    assert_eq!(sum(runtime.run("main", &other).expect("b is there")), two(13.0, 24.0));
    let longer = inputs(&[("a", f32s(&[3], &[1.0; 3]))]);
    runtime.run("main", &longer).expect_err("b has another size");
    assert_eq!(runtime.kept("main", "a").expect("a plan"), Some(two(3.0, 4.0)));
    runtime.forget_kept();
    runtime.run("main", &inputs(&[])).expect_err("nothing is there");
}

/// The cache and the new row become one tensor by standing next to each other: no command makes the concatenation.
#[test]
fn a_concatenation_in_place_is_an_alias_of_its_parts() {
    use djinn_plan::*;
    let mut g = Graph::new();
    let cache = g.add_argument(ty(&["1", "3", "2"]));
    let x = g.add_argument(ty(&["1", "1", "2"]));
    let row = op(&mut g, K::Neg, &[x], Attrs::new());
    let all = op(&mut g, K::Concat, &[cache, row], attrs! { axis: 1i64 });
    let y = op(&mut g, K::Relu, &[all], Attrs::new());
    g.results = vec![y, all];
    let arguments = ["cache", "x"].map(|n| (n, ArgumentKind::Input));
    let results = [("y", ResultKind::Output), ("new_cache", ResultKind::Update(0))];
    let m = module(function(g, &arguments, &results));
    let mut p = plan(&m, &Wish { resident: true, ..Wish::default() });
    let (cache, row, all) = (0usize, 2, 3);
    for (i, name) in [(cache, "value 0"), (row, "value 2"), (all, "value 3")] {
        assert_eq!(p.buffers[i].name, name);
    }
    // The buffer of the concatenation takes the cache at its start and the row at its end.
    let mut map = BTreeMap::new();
    map.insert(View { buffer: BufferId(cache as u32), offset: 0, bytes: 24 }, (all, 0));
    map.insert(View { buffer: BufferId(row as u32), offset: 0, bytes: 8 }, (all, 24));
    let moved = |v: &mut View| {
        if let Some((buffer, offset)) = map.get(v) {
            (v.buffer, v.offset) = (BufferId(*buffer as u32), *offset);
        }
    };
    let e = &mut p.entries[0];
    e.kernels
        .iter_mut()
        .flat_map(|k| k.reads.iter_mut().chain(&mut k.writes))
        .for_each(|o| moved(&mut o.view));
    e.inputs.iter_mut().flat_map(|p| &mut p.view).for_each(moved);
    let concat = e.kernels[1].clone();
    assert_eq!(concat.name, "concat");
    e.aliases.push(Alias { value: concat.writes[0], of: concat.reads });
    e.commands.retain(|c| c.action != Action::Launch { kernel: KernelId(1) });
    let given = inputs(&[
        ("cache", f32s(&[1, 3, 2], &[1.0, -2.0, 3.0, 4.0, -5.0, 6.0])),
        ("x", f32s(&[1, 1, 2], &[-7.0, 8.0])),
    ]);
    let out = agrees(&p, &m, &given);
    assert_eq!(out.update("cache").map(TensorData::shape), Some(&[1, 4, 2][..]));
    // Without the alias, the bytes are those of other values.
    p.entries[0].aliases.clear();
    let out = runtime(&p, &m, RunOptions::checking()).run("main", &given).expect("runs");
    assert!(out.races.iter().all(|r| r.kind == djinn_runtime::HazardKind::Stale) && !out.races.is_empty());
}

/// The first half of a value dies before the second: its bytes hold another value when the second is read.
#[test]
fn dead_halves_of_a_buffer_may_hold_other_values() {
    use djinn_plan::*;
    let mut g = Graph::new();
    let (a, b) = (g.add_argument(ty(&["4"])), g.add_argument(ty(&["2"])));
    let x = op(&mut g, K::Tanh, &[a], Attrs::new());
    let half =
        |from: i64| attrs! { axis: 0i64, start: Dim::from(from), limit: Dim::from(from + 2), stride: 1i64 };
    let s0 = op(&mut g, K::Slice, &[x], half(0));
    let n0 = op(&mut g, K::Neg, &[s0], Attrs::new());
    let c = op(&mut g, K::Cos, &[b], Attrs::new());
    let s1 = op(&mut g, K::Slice, &[x], half(2));
    let n1 = op(&mut g, K::Neg, &[s1], Attrs::new());
    let n2 = op(&mut g, K::Sin, &[c], Attrs::new());
    g.results = vec![n0, n1, n2];
    let results = ["n0", "n1", "n2"].map(|n| (n, ResultKind::Output));
    let m = module(function(g, &["a", "b"].map(|n| (n, ArgumentKind::Input)), &results));
    let mut p = plan(&m, &Wish::default());
    let place = |p: &Plan, v: djinn_ir::ValueId| {
        let name = format!("value {}", v.0);
        p.buffers.iter().position(|b| b.name == name).expect("there")
    };
    let whole = place(&p, x);
    // The slices are where they are; the cosine takes the place of the first.
    let at = place(&p, c);
    p.buffers[at].offset = p.buffers[whole].offset;
    for (slice, offset) in [(s0, 0), (s1, 8)] {
        let old = place(&p, slice);
        let e = &mut p.entries[0];
        let operands = e.kernels.iter_mut().flat_map(|k| k.reads.iter_mut().chain(&mut k.writes));
        for operand in operands.filter(|o| o.view.buffer.index() == old) {
            (operand.view.buffer, operand.view.offset) = (BufferId(whole as u32), offset);
        }
        let number = e.kernels.iter().position(|k| {
            k.name == "slice" && k.writes[0].view.buffer.index() == whole && k.writes[0].view.offset == offset
        });
        let number = number.expect("the slice has a kernel");
        let kernel = &e.kernels[number];
        e.aliases.push(Alias { value: kernel.writes[0], of: kernel.reads.clone() });
        e.commands.retain(|c| c.action != Action::Launch { kernel: KernelId(number as u32) });
    }
    let given = inputs(&[("a", f32s(&[4], &[0.5, -1.0, 2.0, -0.25])), ("b", f32s(&[2], &[0.125, 3.0]))]);
    agrees(&p, &m, &given);
    // Had the cosine the place of the second half, that would be read too late, and end the cosine too early.
    p.buffers[at].offset = p.buffers[whole].offset + 8;
    let out = runtime(&p, &m, RunOptions::checking()).run("main", &given).expect("runs");
    assert!(!out.races.is_empty());
    assert!(out.output("n2").and_then(|t| t.get_f64(0)).is_some_and(f64::is_nan));
}

#[test]
fn simulated_links_take_their_time_and_share_hops() {
    let m = diamond();
    let wish = Wish { devices: 2, stream_of: Box::new(|op| op % 2), ..Wish::default() };
    let mut p = plan(&m, &wish);
    p.links.iter_mut().for_each(|l| (l.latency, l.bandwidth) = (0.02, 1e12));
    let transfers = |p: &Plan| {
        let between = |c: &&djinn_plan::Command| {
            matches!(c.action, djinn_plan::Action::Copy { reason: djinn_plan::CopyReason::Transfer, .. })
        };
        p.entries[0].commands.iter().filter(between).count() as u64
    };
    let elapsed = |p: &Plan, links| {
        let options = RunOptions { links, ..RunOptions::default() };
        runtime(p, &m, options).run("main", &x22()).expect("runs").elapsed_ns
    };
    assert!(transfers(&p) >= 2);
    assert!(elapsed(&p, LinkSpeed::Planned) >= transfers(&p) * 20_000_000);
    let unthrottled = (0..10).map(|_| elapsed(&p, LinkSpeed::Host)).min();
    assert!(unthrottled.is_some_and(|ns| ns < 20_000_000));
    assert!(elapsed(&p, LinkSpeed::BytesPerSecond(800.0)) >= 20_000_000);
}

#[test]
fn a_failed_run_leaves_updated_states_without_a_value() {
    let mut g = Graph::new();
    let x = g.add_argument(djinn_ir::TensorType::of(DType::I64, &[1]));
    let s = g.add_argument(ty(&["2"]));
    let picked = op(&mut g, K::Gather, &[s, x], attrs! { axis: 0i64 });
    let new = op(&mut g, K::Add, &[s, picked], Attrs::new());
    g.results = vec![new];
    let arguments = [("x", ArgumentKind::Input), ("s", ArgumentKind::State { initial: None })];
    let m = module(function(g, &arguments, &[("s", ResultKind::Update(1))]));
    let mut r = runtime(&plan(&m, &Wish::default()), &m, RunOptions::checking());
    let x = |n: i64| inputs(&[("x", TensorData::from_i64(&[1], &[n]).expect("fits"))]);
    assert_eq!(r.state("s").expect("zeros"), f32s(&[2], &[0.0, 0.0]));
    r.set_state("s", &f32s(&[2], &[1.0, 2.0])).expect("fits");
    r.run("main", &x(1)).expect("runs");
    assert_eq!(r.state("s").expect("new"), f32s(&[2], &[3.0, 4.0]));
    let e = r.run("main", &x(5)).expect_err("out of range");
    assert!(e.place.iter().any(|p| p.contains("operation 0 'gather'")), "{e}");
    assert_eq!(r.state("s").expect_err("lost").code, "runtime.state");
    assert_eq!(r.run("main", &x(0)).expect_err("lost").code, "runtime.state");
    r.reset_states().expect("zeros");
    r.run("main", &x(0)).expect("runs");
}

#[test]
fn commands_cost_little_beside_their_operations() {
    let mut g = Graph::new();
    let mut v = g.add_argument(ty(&["1"]));
    for _ in 0..1000 {
        v = op(&mut g, K::Neg, &[v], Attrs::new());
    }
    g.results = vec![v];
    let m = module(function(g, &[("x", ArgumentKind::Input)], &[("y", ResultKind::Output)]));
    let given = inputs(&[("x", f32s(&[1], &[1.0]))]);
    for (streams_per_device, stride) in [(1usize, 1usize), (2, 1)] {
        let stream_of = Box::new(move |op: usize| (op / stride) % streams_per_device);
        let p = plan(&m, &Wish { streams_per_device, stream_of, reuse: true, ..Wish::default() });
        let mut r = runtime(&p, &m, RunOptions::default());
        let best = (0..3).map(|_| r.run("main", &given).expect("runs").elapsed_ns).min().expect("some");
        let each = best / p.entries[0].commands.len() as u64;
        println!(
            "{streams_per_device} streams: {each} ns a command, {} commands",
            p.entries[0].commands.len()
        );
        assert!(each < 1_000_000, "{each} ns a command");
    }
}
