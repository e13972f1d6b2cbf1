//! Caches that grow take one buffer, and are handed on in it: from run to run, from prefill to decode, and from one range
//! of sizes to the next. Every output is compared with runs that are given the caches.

use djinn::PlanRequest;
use djinn::device::{Profile, Target};
use djinn::ir::{DType, Module, TensorData, Weight, text};
use djinn::plan_data::{Action, ArenaKind, Content, Granularity, Plan, View};
use djinn::runtime::{RunOptions, Runtime};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

type Inputs = BTreeMap<String, TensorData>;

/// Layers of the small program.
const LAYERS: usize = 2;
/// Bytes of one row of the length of one of its caches: 2 heads, 4 channels.
const ROW: u64 = 2 * 4 * 4;

/// A prompt and a step of a small transformer: the caches of `LAYERS` layers, and one token more. What stands in `before`
/// and `behind` is put around the step's operations, and makes a further result `%80`.
fn small_with(before: &str, behind: &str) -> Module {
    let body = |function: &str, length: &str, symbol: &str| {
        let shape = |sizes: &[&str]| {
            let shown: Vec<&str> =
                sizes.iter().map(|s| if s.parse::<u8>().is_ok() { *s } else { "?" }).collect();
            let open: Vec<String> =
                sizes.iter().filter(|s| s.parse::<u8>().is_err()).map(|s| format!("\"{s}\"")).collect();
            let open = if open.is_empty() { String::new() } else { format!(", [{}]", open.join(", ")) };
            format!("tensor<{}xf32{open}>", shown.join("x"))
        };
        let step = function == "decode";
        let total = if step { "s + 1".to_owned() } else { length.to_owned() };
        let (x, heads) = (shape(&["1", length, "8"]), shape(&["1", "2", length, "4"]));
        let (split, cache, past) = (
            shape(&["1", length, "2", "4"]),
            shape(&["1", "2", &total, "4"]),
            shape(&["1", "2", symbol, "4"]),
        );
        let ids =
            if step { "tensor<1x1xi64>".to_owned() } else { format!("tensor<1x?xi64, [\"{length}\"]>") };
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "    {text}").expect("a string");
        let mut next = 100;
        let mut fresh = || {
            next += 1;
            format!("%{next}")
        };
        let weight = |name: &str, ty: &str| {
            format!("\"djinn.weight\"() {{name = \"{name}\", types = [{ty}]}} : () -> {ty}")
        };
        if step {
            line(before.to_owned());
        }
        line(format!("%90 = {}", weight("embed", "tensor<16x8xf32>")));
        line(format!(
            "%91 = \"djinn.gather\"(%90, %0) {{axis = 0 : i64}} : (tensor<16x8xf32>, {ids}) -> {x}"
        ));
        let (mut at, mut results) = ("%91".to_owned(), Vec::new());
        for layer in 0..LAYERS {
            let mut parts = Vec::new();
            for part in ["q", "k", "v"] {
                let [w, product, rows, turned] = [fresh(), fresh(), fresh(), fresh()];
                line(format!("{w} = {}", weight(&format!("{part}{layer}"), "tensor<8x8xf32>")));
                line(format!("{product} = \"djinn.matmul\"({at}, {w}) : ({x}, tensor<8x8xf32>) -> {x}"));
                line(format!(
                    "{rows} = \"djinn.reshape\"({product}) {{shape = [\"1\", \"{length}\", \"2\", \"4\"]}} : ({x}) -> {split}"
                ));
                line(format!(
                    "{turned} = \"djinn.transpose\"({rows}) {{perm = array<i64: 0, 2, 1, 3>}} : ({split}) -> {heads}"
                ));
                let number = 1 + 2 * layer + usize::from(part == "v");
                parts.push(if step && part != "q" {
                    let all = fresh();
                    line(format!(
                        "{all} = \"djinn.concat\"(%{number}, {turned}) {{axis = 2 : i64}} : ({past}, {heads}) -> {cache}"
                    ));
                    all
                } else {
                    turned
                });
            }
            let [q, k, v] = &parts[..] else { unreachable!("three parts") };
            let [read, turned, rows, sum] = [fresh(), fresh(), fresh(), fresh()];
            let causal = !step;
            line(format!(
                "{read} = \"djinn.sdpa\"({q}, {k}, {v}) {{causal = {causal}, causal_offset = \"0\", kv_heads = 0 : i64, query_heads = 0 : i64, scale = 0.5 : f64}} : ({heads}, {cache}, {cache}) -> {heads}"
            ));
            line(format!(
                "{turned} = \"djinn.transpose\"({read}) {{perm = array<i64: 0, 2, 1, 3>}} : ({heads}) -> {split}"
            ));
            line(format!(
                "{rows} = \"djinn.reshape\"({turned}) {{shape = [\"1\", \"{length}\", \"8\"]}} : ({split}) -> {x}"
            ));
            line(format!("{sum} = \"djinn.add\"({at}, {rows}) : ({x}, {x}) -> {x}"));
            at = sum;
            results.extend([k.clone(), v.clone()]);
        }
        if step {
            line(behind.to_owned());
        }
        let extra = step && !(before.is_empty() && behind.is_empty());
        let mut all = vec![at.clone()];
        all.extend(results.clone());
        let mut types = vec![x.clone()];
        types.extend(results.iter().map(|_| cache.clone()));
        if extra {
            all.push("%80".into());
            types.push(past.clone());
        }
        let caches = |word: &str| -> Vec<String> {
            (0..LAYERS).flat_map(|l| [format!("{word}.k{l}"), format!("{word}.v{l}")]).collect()
        };
        let given = if step { caches("past") } else { Vec::new() };
        let mut arguments = vec!["{kind = \"input\", name = \"ids\"}".to_owned()];
        arguments.extend(given.iter().map(|name| format!("{{kind = \"input\", name = \"{name}\"}}")));
        let mut named = vec!["logits".to_owned()];
        named.extend(caches("present"));
        named.extend(extra.then(|| "extra".to_owned()));
        let named: Vec<String> =
            named.iter().map(|name| format!("{{kind = \"output\", name = \"{name}\"}}")).collect();
        let mut header = vec![format!("%0: {ids}")];
        header.extend((1..=given.len()).map(|n| format!("%{n}: {past}")));
        format!(
            "  \"djinn.func\"() ({{\n  ^bb0({}):\n{out}    \"djinn.return\"({}) : ({}) -> ()\n  }}) {{arguments = [{}], results = [{}], sym_name = \"{function}\"}} : () -> ()\n",
            header.join(", "),
            all.join(", "),
            types.join(", "),
            arguments.join(", "),
            named.join(", ")
        )
    };
    let mut declared = String::new();
    let mut weights = vec![("embed".to_owned(), 16)];
    for layer in 0..LAYERS {
        weights.extend(["q", "k", "v"].map(|part| (format!("{part}{layer}"), 8)));
    }
    let mut values = Vec::new();
    for (i, (name, rows)) in weights.iter().enumerate() {
        let bytes: Vec<u8> = (0..rows * 8)
            .flat_map(|n| (((n * 37 + i * 101) % 19) as f32 / 19.0 - 0.5).to_le_bytes())
            .collect();
        let data = TensorData::new(DType::F32, vec![*rows, 8], bytes).expect("a weight");
        let hash = data.content_hash();
        writeln!(
            declared,
            "  \"djinn.weight_decl\"() {{hash = \"{hash}\", sym_name = \"{name}\", type = tensor<{rows}x8xf32>}} : () -> ()"
        )
        .expect("a string");
        values.push((name.clone(), data));
    }
    let mut source = format!(
        "\"builtin.module\"() ({{\n{declared}{}{}}}) {{djinn.metadata = {{}}, djinn.symbols = {{n = {{divisor = 1 : i64, max = 16 : i64, min = 1 : i64}}, s = {{divisor = 1 : i64, max = 15 : i64, min = 1 : i64}}}}}} : () -> ()\n",
        body("prefill", "n", "n"),
        body("decode", "1", "s"),
    );
    for (name, data) in &values {
        let hash = data.content_hash();
        let named = format!("name = \"{name}\", types");
        source = source.replace(&format!("{{{named}"), &format!("{{hash = \"{hash}\", {named}"));
    }
    let mut module = text::parse_module(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    for (name, data) in values {
        module.weights.insert(name.into(), Weight::with_data(data));
    }
    module
}

fn small() -> Module {
    small_with("", "")
}

fn planned(module: &Module, request: &PlanRequest) -> (Arc<Plan>, Arc<Module>, Vec<String>) {
    let mut program = module.clone();
    let planned = djinn::plan(&mut program, request, None).unwrap_or_else(|e| panic!("{e}"));
    djinn::plan_data::check(&planned.plan).unwrap_or_else(|v| panic!("{v:#?}"));
    djinn::conforms(&planned.plan, &program).unwrap_or_else(|e| panic!("{e}"));
    let remarks = planned.outcome.remarks.iter().filter(|r| r.pass == "planner").map(ToString::to_string);
    (Arc::new(planned.plan), Arc::new(program), remarks.collect())
}

fn request(device: &str) -> PlanRequest {
    PlanRequest::new(Target::single(Profile::builtin(device).expect("built in")))
}

fn runtime(plan: &Arc<Plan>, program: &Arc<Module>) -> Runtime {
    Runtime::host(plan.clone(), program.clone(), RunOptions::checking()).unwrap_or_else(|e| panic!("{e}"))
}

fn state_bytes(plan: &Plan) -> u64 {
    plan.arenas.iter().filter(|a| a.kind == ArenaKind::State).map(|a| a.bytes).sum()
}

fn tokens(shape: Vec<usize>, of: impl Fn(usize) -> i64) -> TensorData {
    let count = shape.iter().product();
    let bytes: Vec<u8> = (0..count).flat_map(|i| of(i).to_le_bytes()).collect();
    TensorData::new(DType::I64, shape, bytes).expect("tokens")
}

/// Names and numbers of the caches of a function: arguments with the results that are their new content.
fn cache_ports(program: &Module, function: &str) -> Vec<(Option<String>, usize)> {
    let numbers = |what: &str| -> Vec<usize> {
        let text = program.metadata.get(format!("cache.{function}.{what}").as_str());
        text.map(|t| t.split_whitespace().filter_map(|n| n.parse().ok()).collect()).unwrap_or_default()
    };
    let f = program.function(function).expect("a function");
    let arguments: Vec<String> = numbers("arguments").iter().map(|n| f.arguments[*n].0.to_string()).collect();
    let name = |i: usize| arguments.get(i).cloned();
    numbers("results").into_iter().enumerate().map(|(i, r)| (name(i), r)).collect()
}

fn assert_close(found: &[(String, TensorData)], expected: &[(String, TensorData)], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for ((name, x), (_, y)) in expected.iter().zip(found) {
        let close = djinn::interp::compare(x, y, djinn::interp::Tolerance::Reassoc);
        assert!(close.is_ok(), "{what}: '{name}': {close:?}");
    }
}

/// Runs a prompt and then steps on the runtime, which is given no cache, and on the evaluator, which is given all of them.
/// Gives the numbers of the entries that ran.
fn generate(
    module: &Module,
    (plan, program): (&Arc<Plan>, &Arc<Module>),
    (prefill, decode): (&str, &str),
    (batch, prompt, steps): (usize, usize, usize),
) -> Vec<usize> {
    let mut runtime = runtime(plan, program);
    let ids = |function: &str| module.function(function).expect("a function").arguments[0].0.to_string();
    let given: Inputs =
        [(ids(prefill), tokens(vec![batch, prompt], |i| (i * 5 + 3) as i64 % 16))].into_iter().collect();
    let mut expected = djinn::evaluate(module, prefill, &given).unwrap_or_else(|e| panic!("{e}"));
    let found = runtime.run(prefill, &given).unwrap_or_else(|e| panic!("{e}"));
    assert_close(&found.outputs, &expected.outputs, "prefill");
    let (made, kept) = (cache_ports(program, prefill), cache_ports(program, decode));
    assert_eq!(made.len(), kept.len(), "as many caches");
    let mut caches: Vec<TensorData> = made.iter().map(|(_, r)| expected.outputs[*r].1.clone()).collect();
    let mut entries = vec![found.entry];
    for step in 0..steps {
        let ids: Inputs =
            [(ids(decode), tokens(vec![batch, 1], |i| (i * 3 + step) as i64 % 16))].into_iter().collect();
        let mut all = ids.clone();
        all.extend(
            kept.iter().zip(&caches).map(|((name, _), c)| (name.clone().expect("an input"), c.clone())),
        );
        expected = djinn::evaluate(module, decode, &all).unwrap_or_else(|e| panic!("{e}"));
        let found = runtime.run(decode, &ids).unwrap_or_else(|e| panic!("step {step}: {e}"));
        assert_close(&found.outputs, &expected.outputs, &format!("step {step}"));
        assert!(found.races.is_empty(), "step {step}: {:?}", found.races);
        caches = kept.iter().map(|(_, r)| expected.outputs[*r].1.clone()).collect();
        entries.push(found.entry);
    }
    entries
}

#[test]
fn a_cache_is_handed_on_from_prefill_to_decode() {
    let module = small();
    let (plan, program, remarks) = planned(&module, &request("host"));
    assert_eq!(remarks, [""; 0]);
    assert_eq!(
        state_bytes(&plan),
        2 * LAYERS as u64 * 16 * ROW,
        "each cache is there once, for all 16 tokens"
    );
    for entry in &plan.entries {
        let budget = &entry.budgets[0];
        assert_eq!(budget.kv_per_token, 2 * LAYERS as u64 * ROW);
        assert_eq!(budget.kv_per_session, 2 * LAYERS as u64 * 16 * ROW);
    }
    let entries = generate(&module, (&plan, &program), ("prefill", "decode"), (1, 5, 11));
    assert_eq!(entries, [vec![0], vec![1; 11]].concat());
}

/// A prompt by kernels, then steps by whole engines: caches stand in the same bytes.
#[test]
fn a_cache_is_handed_on_from_kernels_to_engines() {
    let module = small();
    let request = PlanRequest { engine_entries: true, ..request("h100-80") };
    let (plan, program, remarks) = planned(&module, &request);
    assert_eq!(remarks, [""; 0]);
    assert_eq!(state_bytes(&plan), 2 * LAYERS as u64 * 16 * ROW, "each cache is there once");
    let kinds: Vec<_> = plan.entries.iter().map(|e| (e.function.as_str(), e.granularity)).collect();
    let (kernels, engines) = (Granularity::Kernels, Granularity::Engines);
    let functions = ["prefill", "decode"];
    assert_eq!(kinds, [kernels, engines].map(|g| functions.map(|f| (f, g))).concat());
    for chosen in [[0, 3], [2, 1], [2, 3]] {
        let plan = Arc::new(only(&plan, &chosen));
        djinn::plan_data::check(&plan).unwrap_or_else(|v| panic!("{v:#?}"));
        let entries = generate(&module, (&plan, &program), ("prefill", "decode"), (1, 5, 6));
        assert_eq!(entries, [vec![0], vec![1; 6]].concat());
    }
}

/// The plan with these entries alone. What the others had in memory is nothing any more.
fn only(plan: &Plan, chosen: &[usize]) -> Plan {
    let mut plan = plan.clone();
    plan.entries = chosen.iter().map(|n| plan.entries[*n].clone()).collect();
    for buffer in &mut plan.buffers {
        if let Content::Run { entry } = &mut buffer.content {
            let place = chosen.iter().position(|n| *n == *entry as usize);
            *entry = place.unwrap_or(0) as u32;
            if place.is_none() {
                (buffer.offset, buffer.bytes) = (0, 0);
            }
        }
    }
    plan
}

#[test]
fn a_cache_is_handed_on_across_ranges_of_sizes() {
    let module = small();
    let mut request = request("host");
    request.sizes.insert("s".into(), vec![(1, 4), (5, 8), (9, 15)]);
    request.sizes.insert("n".into(), vec![(1, 4), (5, 16)]);
    let (plan, program, remarks) = planned(&module, &request);
    assert_eq!(remarks, [""; 0]);
    assert_eq!(plan.entries.len(), 5);
    assert_eq!(state_bytes(&plan), 2 * LAYERS as u64 * 16 * ROW, "the largest range decides");
    let entries = generate(&module, (&plan, &program), ("prefill", "decode"), (1, 3, 12));
    assert_eq!(entries, [vec![0], vec![2; 2], vec![3; 4], vec![4; 6]].concat());
    let entries = generate(&module, (&plan, &program), ("prefill", "decode"), (1, 6, 4));
    assert_eq!(entries, [1, 3, 3, 3, 4]);
}

#[test]
fn caches_of_real_models_are_handed_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    if !folder.is_dir() {
        eprintln!("skipped: ../shared/models is not present");
        return;
    }
    let read = |name: String| {
        djinn::read(&folder.join(name).join("model.pt2")).unwrap_or_else(|e| panic!("{e}")).module
    };
    for model in ["llama", "gpt2", "qwen3", "mixtral"] {
        let parts = ["prefill", "decode"].map(|p| (read(format!("{model}_{p}_dyn")), p.to_owned()));
        let module = djinn::merge_programs(parts.into(), model).unwrap_or_else(|e| panic!("{e}"));
        let (plan, program, remarks) = planned(&module, &request("h100-80"));
        assert_eq!(remarks, [""; 0], "{model}");
        let caches = plan.entries[1].inputs.iter().filter(|p| p.resident);
        let bytes: u64 = plan.entries[1].outputs.iter().filter(|p| p.resident).map(largest).sum();
        assert_eq!(caches.count(), plan.entries[1].outputs.iter().filter(|p| p.resident).count());
        assert_eq!(state_bytes(&plan), bytes, "{model}: each cache is there once");
        generate(&module, (&plan, &program), ("prefill", "decode"), (2, 4, 5));
        // The same with the layers on two devices.
        let topology = "[[device]]\nprofile = \"h100-80\"\ncount = 2\n";
        let topology = djinn::device::Topology::parse(topology, "test").expect("a topology");
        let mut request = PlanRequest::new(Target::new(topology));
        let layers = if model == "gpt2" { "lm.transformer.h" } else { "lm.model.layers" };
        let pin = |n: usize| (format!("{layers}.{n}"), format!("h100-80:{n}"));
        request.pins = vec![pin(0), pin(1)];
        let (plan, program, remarks) = planned(&module, &request);
        assert_eq!(remarks, [""; 0], "{model}");
        assert_eq!(state_bytes(&plan), bytes, "{model}: each cache is there once");
        assert_eq!(plan.arenas.iter().filter(|a| a.kind == ArenaKind::State).count(), 2);
        generate(&module, (&plan, &program), ("prefill", "decode"), (2, 4, 5));
    }
}

/// What an encoder has said is given to the first step and stays; the rest is handed on from the prompt.
#[test]
fn caches_of_a_decoder_with_an_encoder_are_handed_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    if !folder.is_dir() {
        eprintln!("skipped: ../shared/models is not present");
        return;
    }
    let read = |name: &str| {
        djinn::read(&folder.join(name).join("model.pt2")).unwrap_or_else(|e| panic!("{e}")).module
    };
    let parts = [("t5_decoder_prefill_dyn", "prompt"), ("t5_decoder_step_dyn", "step")];
    let parts = parts.map(|(file, label)| (read(file), label.to_owned()));
    let module = djinn::merge_programs(parts.into(), "t5").unwrap_or_else(|e| panic!("{e}"));
    let (plan, program, _) = planned(&module, &request("host"));
    let mut runtime = runtime(&plan, &program);
    let given = djinn::random::inputs_within(&module, "prompt", 1, &|_| Some((3, 3)));
    let mut expected = djinn::evaluate(&module, "prompt", &given).expect("evaluates");
    let found = runtime.run("prompt", &given).unwrap_or_else(|e| panic!("{e}"));
    assert_close(&found.outputs, &expected.outputs, "prompt");
    let names: Vec<String> =
        module.function("step").expect("there").arguments.iter().map(|(n, _)| n.to_string()).collect();
    let mut all: Inputs = djinn::random::inputs_within(&module, "step", 2, &|_| Some((3, 3)));
    all.insert(names[1].clone(), given["encoder_hidden_states"].clone());
    for (name, (_, value)) in names[2..].iter().zip(&expected.outputs[1..]) {
        all.insert(name.clone(), value.clone());
    }
    for step in 0..4 {
        let mut few = all.clone();
        few.retain(|name, _| !name.starts_with("self_") && (step == 0 || !name.starts_with("cross_")));
        expected = djinn::evaluate(&module, "step", &all).expect("evaluates");
        let found = runtime.run("step", &few).unwrap_or_else(|e| panic!("step {step}: {e}"));
        assert_close(&found.outputs, &expected.outputs, &format!("step {step}"));
        let selves = names.iter().filter(|n| n.starts_with("self_"));
        all.extend(selves.cloned().zip(expected.outputs[1..].iter().map(|(_, v)| v.clone())));
    }
}

fn largest(port: &djinn::plan_data::Port) -> u64 {
    port.view.map_or(0, |v| v.bytes)
}

#[test]
fn a_run_without_a_cache_says_what_to_do() {
    let module = small();
    let (plan, program, _) = planned(&module, &request("host"));
    let mut runtime = runtime(&plan, &program);
    let ids = |id: i64| -> Inputs { [("ids".to_owned(), tokens(vec![1, 1], |_| id))].into_iter().collect() };
    let missing = |runtime: &mut Runtime| {
        let error = runtime.run("decode", &ids(3)).expect_err("no cache").to_string();
        assert!(error.contains("input 'past.k0' is missing") && error.contains("give it"), "{error}");
    };
    missing(&mut runtime);
    runtime.run("prefill", &ids(3)).expect("a prompt of one token");
    runtime.run("decode", &ids(3)).expect("the caches are there");
    let k0 = runtime.kept("decode", "past.k0").expect("a value").expect("kept");
    assert_eq!(k0.shape(), [1, 2, 2, 4]);
    // A token that there is not makes the run fail; nothing says by then what stands in the caches.
    runtime.run("decode", &ids(99)).expect_err("no such token");
    missing(&mut runtime);
    runtime.run("prefill", &ids(3)).expect("a new prompt");
    for _ in 0..15 {
        runtime.run("decode", &ids(3)).expect("there is room for 16 tokens");
    }
    let full = runtime.run("decode", &ids(3)).expect_err("the caches are full").to_string();
    assert!(full.contains("size 's' is 16"), "{full}");
    runtime.forget_kept();
    missing(&mut runtime);
}

#[test]
fn a_cache_that_is_given_takes_the_place_of_the_old_one() {
    let module = small();
    let (plan, program, _) = planned(&module, &request("host"));
    let mut runtime = runtime(&plan, &program);
    let given = djinn::random::inputs_within(&module, "decode", 7, &|_| Some((3, 3)));
    let prompt: Inputs = [("ids".to_owned(), tokens(vec![1, 6], |i| i as i64))].into_iter().collect();
    runtime.run("prefill", &prompt).expect("runs");
    let mut all = given.clone();
    for step in 0..3 {
        let expected = djinn::evaluate(&module, "decode", &all).expect("evaluates");
        let found = if step == 0 { given.clone() } else { [("ids".into(), all["ids"].clone())].into() };
        let found = runtime.run("decode", &found).unwrap_or_else(|e| panic!("{e}"));
        assert_close(&found.outputs, &expected.outputs, "decode");
        for (name, _) in given.iter().filter(|(n, _)| n.starts_with("past")) {
            let new = found.output(&name.replace("past", "present")).expect("an output");
            all.insert(name.clone(), new.clone());
        }
    }
}

/// What reads the old cache, in the text of [`small`].
const READER: &str = r#"    %80 = "djinn.softmax"(%1) {axis = 3 : i64} : (tensor<1x2x?x4xf32, ["s"]>) -> tensor<1x2x?x4xf32, ["s"]>"#;
/// What gives a value that depends on the old and the new cache.
const LATER: &str = r#"    %79 = "djinn.slice"(%109) {axis = 2 : i64, limit = "s", start = "0", stride = 1 : i64} : (tensor<1x2x?x4xf32, ["s + 1"]>) -> tensor<1x2x?x4xf32, ["s"]>
    %80 = "djinn.sub"(%1, %79) : (tensor<1x2x?x4xf32, ["s"]>, tensor<1x2x?x4xf32, ["s"]>) -> tensor<1x2x?x4xf32, ["s"]>"#;

#[test]
fn what_is_still_read_is_not_overwritten() {
    // The old and the new cache at once.
    let module = small_with("", LATER);
    let (plan, program, remarks) = planned(&module, &request("host"));
    assert!(remarks.iter().any(|r| r.contains("'present.k0' takes two buffers")), "{remarks:?}");
    let decode = plan.entries.iter().find(|e| e.function == "decode").expect("there");
    let at = |ports: &[djinn::plan_data::Port], name: &str| -> View {
        ports.iter().find(|p| p.name == name).and_then(|p| p.view).expect("a place")
    };
    assert_ne!(at(&decode.inputs, "past.k0").buffer, at(&decode.outputs, "present.k0").buffer);
    assert_eq!(at(&decode.inputs, "past.v0").buffer, at(&decode.outputs, "present.v0").buffer);
    let inputs = djinn::random::inputs_within(&module, "decode", 3, &|_| Some((4, 4)));
    let expected = djinn::evaluate(&module, "decode", &inputs).expect("evaluates");
    let mut runtime = runtime(&plan, &program);
    let found = runtime.run("decode", &inputs).unwrap_or_else(|e| panic!("{e}"));
    assert_close(&found.outputs, &expected.outputs, "decode");
    // What is left in the place of the old cache is out of date.
    let ids: Inputs = [("ids".to_owned(), inputs["ids"].clone())].into();
    let error = runtime.run("decode", &ids).expect_err("one cache has to be given").to_string();
    assert!(error.contains("input 'past.k0' is missing") && error.contains("'present.k0'"), "{error}");
}

#[test]
fn a_plan_that_appends_wrongly_is_refused() {
    // The old cache is read by another kernel, which comes first.
    let module = small_with(READER, "");
    let function = module.function("decode").expect("there");
    let names = function.arguments.iter().map(|a| &a.0).chain(function.results.iter().map(|r| &r.0));
    let resident = names.filter(|n| n.contains('.')).map(|n| n.to_string()).collect();
    let spec = djinn_planner::EntrySpec { function: "decode".into(), resident, ..Default::default() };
    let target = request("host").target;
    let plan = djinn_planner::plan(&module, &target, &[spec], &Default::default()).expect("a plan");
    djinn::plan_data::check(&plan).unwrap_or_else(|v| panic!("{v:#?}"));
    djinn::conforms(&plan, &module).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(state_bytes(&plan), 2 * LAYERS as u64 * 16 * ROW, "a reader that comes first does not hinder");
    let number = 0;
    let entry = &plan.entries[number];
    let past = entry.inputs.iter().find(|p| p.name == "past.k0").and_then(|p| p.view).expect("a place");
    let launch = |write: bool| {
        let found = entry.commands.iter().position(|c| match c.action {
            Action::Launch { kernel } => {
                let kernel = &entry.kernels[kernel.index()];
                let of = if write { &kernel.writes } else { &kernel.reads };
                let appends = kernel.writes.iter().any(|w| w.view.buffer == past.buffer);
                appends == write
                    && of.iter().any(|o| o.view.buffer == past.buffer && (write || o.view == past))
            }
            _ => false,
        });
        found.expect("a launch")
    };
    let (reads, appends) = (launch(false), launch(true));
    assert!(reads < appends);
    let refused = |change: &dyn Fn(&mut djinn::plan_data::Entry), label: &str| {
        let mut wrong = plan.clone();
        change(&mut wrong.entries[number]);
        let violations = djinn::plan_data::check(&wrong).expect_err(label);
        assert!(violations.iter().any(|v| v.constraint.label() == label), "{label}: {violations:?}");
    };
    refused(&|e| e.commands.swap(reads, appends), "C11");
    let kernel = match entry.commands[appends].action {
        Action::Launch { kernel } => kernel.index(),
        _ => unreachable!("a launch"),
    };
    refused(&|e| e.kernels[kernel].engine = Some(0), "C19");
    refused(
        &|e| e.outputs.iter_mut().find(|p| p.name == "present.k0").expect("there").resident = false,
        "C19",
    );
    let again = |e: &mut djinn::plan_data::Entry| {
        let read = e.kernels[kernel].reads.iter().find(|r| r.view == past).copied().expect("a read");
        e.kernels[kernel].reads.push(read);
    };
    refused(&again, "C19");
}

#[test]
fn a_plan_that_hands_on_another_cache_is_refused() {
    let (plan, program, _) = planned(&small(), &request("host"));
    let number = plan.entries.iter().position(|e| e.function == "decode").expect("there");
    let place = |name: &str| {
        let port = plan.entries[number].inputs.iter().find(|p| p.name == name);
        port.and_then(|p| p.view).expect("a place")
    };
    let (past, value) = (place("past.k0"), place("past.v0"));
    // Two caches in each other's buffers in one of the entries only: each entry is right, what is handed on is not.
    let mut wrong = (*plan).clone();
    let swapped = |view: &mut View| {
        if view.buffer == past.buffer {
            view.buffer = value.buffer;
        } else if view.buffer == value.buffer {
            view.buffer = past.buffer;
        }
    };
    each_view(&mut wrong.entries[number], &swapped);
    djinn::plan_data::check(&wrong).unwrap_or_else(|v| panic!("{v:#?}"));
    let refusal = djinn::conforms(&wrong, &program).expect_err("two different caches");
    assert!(refusal.message.contains("two different caches share it"), "{refusal}");
    djinn::conforms(&plan, &program).expect("as it was made");
}

/// Changes every view of kernels, ports and copies.
fn each_view(entry: &mut djinn::plan_data::Entry, change: &dyn Fn(&mut View)) {
    for kernel in &mut entry.kernels {
        kernel.reads.iter_mut().chain(&mut kernel.writes).for_each(|o| change(&mut o.view));
    }
    entry.inputs.iter_mut().chain(&mut entry.outputs).filter_map(|p| p.view.as_mut()).for_each(change);
    for alias in &mut entry.aliases {
        alias.of.iter_mut().chain([&mut alias.value]).for_each(|o| change(&mut o.view));
    }
    for command in &mut entry.commands {
        if let Action::Copy { from, to, .. } = &mut command.action {
            for place in [from, to] {
                if let djinn::plan_data::Place::Buffer(view) = place {
                    change(view);
                }
            }
        }
    }
}

#[test]
fn functions_with_other_weights_share_no_cache() {
    let mut module = small();
    // The prompt's keys of the first layer come from another weight.
    let other = TensorData::new(DType::F32, vec![8, 8], vec![0u8; 256]).expect("a weight");
    let (old, new) = (module.weight_hash("k0").expect("it has values"), other.content_hash());
    module.weights.insert("other".into(), Weight::with_data(other));
    let text = text::print_module(&module);
    let (old, new) =
        (format!("hash = \"{old}\", name = \"k0\""), format!("hash = \"{new}\", name = \"other\""));
    assert_eq!(text.matches(&old).count(), 2);
    let mut changed = text::parse_module(&text.replacen(&old, &new, 1)).unwrap_or_else(|e| panic!("{e}"));
    changed.weights = module.weights.clone();
    let (plan, program, remarks) = planned(&changed, &request("host"));
    assert!(
        remarks.iter().any(|r| r.contains("no cache of another function has the same weights")),
        "{remarks:?}"
    );
    let error = {
        let mut runtime = runtime(&plan, &program);
        let prompt: Inputs = [("ids".to_owned(), tokens(vec![1, 4], |i| i as i64))].into_iter().collect();
        runtime.run("prefill", &prompt).expect("runs");
        let step: Inputs = [("ids".to_owned(), tokens(vec![1, 1], |_| 1))].into_iter().collect();
        runtime.run("decode", &step).expect_err("its caches are its own").to_string()
    };
    assert!(error.contains("is missing"), "{error}");
}
