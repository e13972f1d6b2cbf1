//! Entries whose launches are whole engine regions: what the checker demands of them beside everything else.

use djinn_plan::mutate::{Edit, mutations};
use djinn_plan::sample::{self, Builder, at, kernel, port, result, view};
use djinn_plan::*;

/// Scales `x` outside of engines, then runs an engine of three operations, two of them with results that leave it.
fn whole_engine() -> Plan {
    let mut b = Builder::new();
    let device = b.device("gpu:0", false);
    let weights = b.arena(device, ArenaKind::Weights);
    let activations = b.arena(device, ArenaKind::Activations);
    let [x, w] = [0, 1].map(ValueRef::Argument);
    let constant = Content::Constant { function: "forward".into(), value: w };
    let w_at = view(b.buffer("w", weights, 4096, constant), 0, 4096);
    let [x_at, scaled, sum, product] =
        ["x", "scaled", "sum", "product"].map(|name| view(b.scratch(name, activations, 1024), 0, 1024));
    b.entry.granularity = Granularity::Engines;
    b.entry.inputs = vec![port("x", x, x_at)];
    b.entry.outputs = vec![port("sum", result(2), sum), port("product", result(4), product)];
    b.entry.constants = vec![at(w, w_at)];
    let stream = b.stream(device, StreamKind::Compute);
    b.copy(stream, [x, x], Place::Input(0), Place::Buffer(x_at), CopyReason::Input);
    b.launch(stream, kernel("scale", 1, &[at(x, x_at)], &[at(result(1), scaled)]));
    let reads = [at(result(1), scaled), at(w, w_at)];
    let writes = [at(result(2), sum), at(result(4), product)];
    let mut whole = kernel("engine 5: add+exp+mul", 2, &reads, &writes);
    whole.ops = vec![2, 3, 4];
    whole.engine = Some(5);
    let (seconds, flops) = (whole.seconds, whole.flops);
    b.launch(stream, whole);
    for (number, (value, from)) in (0..).zip([(result(2), sum), (result(4), product)]) {
        b.copy(stream, [value; 2], Place::Buffer(from), Place::Output(number), CopyReason::Output);
    }
    b.entry.engines = vec![Engine {
        kernels: vec![KernelId(1)],
        ops: vec![2, 3, 4],
        inputs: vec![result(1)],
        outputs: vec![result(2), result(4)],
        bytes_in: 1024,
        bytes_out: 2048,
        weight_bytes: 4096,
        seconds,
        flops,
        ..Engine::empty(5, device)
    }];
    b.finish()
}

/// The plan is refused for this and nothing else.
fn refuses(words: &str, change: impl FnOnce(&mut Plan)) {
    let mut plan = whole_engine();
    change(&mut plan);
    let violations = check(&plan).expect_err(words);
    let all = violations.iter().all(|v| v.constraint == Constraint::Granularity);
    assert!(all && violations.iter().any(|v| v.message.contains(words)), "{violations:#?}");
}

#[test]
fn an_engine_is_one_kernel_of_all_its_operations() {
    let plan = whole_engine();
    check(&plan).unwrap_or_else(|v| panic!("{v:#?}"));
    assert_eq!(Constraint::Granularity.label(), "C25");
    // Kernels may do all that an engine may.
    let mut apart = plan.clone();
    apart.entries[0].granularity = Granularity::Kernels;
    check(&apart).unwrap_or_else(|v| panic!("{v:#?}"));
    refuses("engine 5 has 2 kernels", |p| {
        let entry = &mut p.entries[0];
        entry.kernels[0].engine = Some(5);
        let engine = &mut entry.engines[0];
        engine.kernels = vec![KernelId(0), KernelId(1)];
        engine.ops = vec![1, 2, 3, 4];
        engine.inputs = vec![ValueRef::Argument(0)];
        engine.seconds += entry.kernels[0].seconds;
        engine.flops += entry.kernels[0].flops;
    });
    // The sample's engine has two kernels.
    let mut plan = sample::two_devices();
    plan.entries[0].granularity = Granularity::Engines;
    assert!(check(&plan).is_err_and(|v| v.iter().all(|v| v.constraint == Constraint::Granularity)));
}

/// A view of a result is one of the engine's operations where kernels are launched, and is no view where engines are.
#[test]
fn views_of_an_engine_are_run_by_its_kernel() {
    refuses("does not run all operations of engine 5", |p| {
        let entry = &mut p.entries[0];
        entry.kernels[1].ops = vec![2, 4];
        entry.kernels[1].writes.pop();
        entry.kernels[1].writes.push(at(result(4), entry.outputs[1].view.expect("kept")));
        let part = at(result(2), entry.outputs[0].view.expect("kept"));
        entry.aliases = vec![Alias { value: at(result(3), part.view), of: vec![part] }];
    });
}

#[test]
fn an_engine_has_no_workspace_and_writes_what_leaves_it_elsewhere() {
    refuses("has a workspace", |p| {
        let x = p.entries[0].inputs[0].view;
        p.entries[0].kernels[1].workspace = x;
        p.entries[0].budgets[0].workspace = 1024;
    });
    // What nobody uses would be an output of the engine that is built for it, or none.
    refuses("does not write exactly what leaves engine 5", |p| {
        let x = p.entries[0].inputs[0].view.expect("kept");
        p.entries[0].kernels[1].writes.push(at(result(3), x));
    });
    refuses("writes %2 over %1, which it reads", |p| {
        let entry = &mut p.entries[0];
        let scaled = entry.kernels[1].reads[0].view;
        entry.kernels[1].writes[0].view = scaled;
        entry.outputs[0].view = Some(scaled);
        for command in &mut entry.commands {
            if let Action::Copy { from: Place::Buffer(from), to: Place::Output(0), .. } = &mut command.action
            {
                *from = scaled;
            }
        }
    });
}

#[test]
fn mutations_of_engines_are_refused() {
    let plan = whole_engine();
    let of_engines = |edit: &Edit| matches!(edit, Edit::RemoveOperation(..) | Edit::Workspace(..));
    let all = mutations(&plan);
    let found: Vec<_> = all.iter().filter(|m| of_engines(&m.edit)).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    for mutation in found {
        let refused = check(&mutation.apply(&plan)).expect_err("it is no engine any more");
        assert!(refused.iter().any(|v| v.constraint == Constraint::Granularity), "{mutation}: {refused:#?}");
    }
}

#[test]
fn the_granularity_is_read_as_it_was_written_and_told() {
    let plan = whole_engine();
    assert!(text(&plan).contains("\nentry e0 @forward engines 0e0 s\n"), "{}", text(&plan));
    let json = to_json(&plan).expect("writes");
    assert!(json.contains("\"granularity\": \"engines\"") || json.contains("\"granularity\":\"engines\""));
    assert_eq!(from_json(&json).expect("reads"), plan);
    assert_eq!(from_binary(&to_binary(&plan).expect("writes")).expect("reads"), plan);
    let timeline = simulate(&plan, 0).expect("runs");
    assert!(timeline.seconds >= 2e-6, "{}", timeline.seconds);
}
