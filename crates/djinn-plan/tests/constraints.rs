//! Every constraint of the checker: a plan that satisfies it and changes that do not.

use djinn_plan::sample::{self, Builder, at, kernel, port, result, view};
use djinn_plan::*;

/// The labels of the constraints that a plan violates, each once, in order.
fn labels(plan: &Plan) -> Vec<&'static str> {
    let mut labels: Vec<_> = match check(plan) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.iter().map(|v| v.constraint).collect(),
    };
    labels.sort();
    labels.dedup();
    labels.into_iter().map(Constraint::label).collect()
}

/// Changes the sample and demands that this constraint is violated.
fn refuses(label: &str, change: impl FnOnce(&mut Plan)) {
    let mut plan = sample::two_devices();
    change(&mut plan);
    let labels = labels(&plan);
    assert!(labels.contains(&label), "expected {label}, found {labels:?}: {:#?}", check(&plan));
}

fn command(plan: &Plan, matches: impl Fn(&Action) -> bool) -> usize {
    plan.entries[0].commands.iter().position(|c| matches(&c.action)).expect("the sample has one")
}

fn copy_for(plan: &Plan, wanted: CopyReason) -> usize {
    command(plan, |a| matches!(a, Action::Copy { reason, .. } if *reason == wanted))
}

#[test]
fn the_sample_passes() {
    let plan = sample::two_devices();
    let proof = check(&plan).unwrap_or_else(|v| panic!("{v:#?}"));
    assert_eq!((proof.entries, proof.commands), (1, plan.entries[0].commands.len()));
    assert!(proof.reads == 17 && proof.writes == 13 && proof.ordered == 15, "{proof:?}");
    assert_eq!(labels(&sample::empty()), [""; 0]);
}

#[test]
fn labels_are_unique_and_codes_carry_them() {
    for (i, c) in Constraint::ALL.iter().enumerate() {
        assert_eq!(c.label(), format!("C{}", i + 1));
        assert_eq!(c.code(), format!("plan.C{}", i + 1));
        assert!(c.meaning().ends_with('.'));
    }
}

#[test]
fn c1_version() {
    refuses("C1", |p| p.version = FORMAT_VERSION + 1);
}

#[test]
fn c2_ids() {
    refuses("C2", |p| p.program = "xyz".into());
    refuses("C2", |p| p.arenas[0].device = DeviceId(9));
    refuses("C2", |p| p.buffers[0].arena = ArenaId(9));
    refuses("C2", |p| p.buffers[5].content = Content::Run { entry: 1 });
    refuses("C2", |p| p.links[0].to = DeviceId(7));
    refuses("C2", |p| p.entries[0].streams[0].device = DeviceId(7));
    refuses("C2", |p| p.entries[0].commands[0].stream = StreamId(99));
    refuses("C2", |p| p.entries[0].commands[0].action = Action::Launch { kernel: KernelId(99) });
    refuses("C2", |p| p.entries[0].commands[0].action = Action::Wait { event: EventId(99) });
    refuses("C2", |p| p.entries[0].kernels[0].reads[0].view.buffer = BufferId(99));
    refuses("C2", |p| p.entries[0].budgets[0].device = DeviceId(99));
    refuses("C2", |p| {
        let number = copy_for(p, CopyReason::Output);
        if let Action::Copy { to, .. } = &mut p.entries[0].commands[number].action {
            *to = Place::Output(9);
        }
    });
}

#[test]
fn c3_figures() {
    refuses("C3", |p| p.entries[0].seconds = f64::NAN);
    refuses("C3", |p| p.entries[0].kernels[0].seconds = -1.0);
    refuses("C3", |p| p.entries[0].kernels[0].flops = f64::INFINITY);
    refuses("C3", |p| p.entries[0].kernels[0].traffic = -0.5);
    refuses("C3", |p| p.entries[0].kernels[0].share = 0.0);
    refuses("C3", |p| p.entries[0].kernels[0].share = 1.5);
    refuses("C3", |p| p.links[0].bandwidth = 0.0);
    refuses("C3", |p| p.links[0].latency = f64::NAN);
}

#[test]
fn c4_capacity_shows_the_arithmetic() {
    let mut plan = sample::two_devices();
    plan.devices[0].memory_bytes -= 1;
    let violations = check(&plan).expect_err("one byte is missing");
    let message = &violations.iter().find(|v| v.constraint.label() == "C4").expect("capacity").message;
    let sizes: Vec<u64> = plan.arenas[..3].iter().map(|a| a.bytes).collect();
    let sum: u64 = sizes.iter().sum();
    let expected = format!(
        "the arenas of 'gpu:0' take {} (Weights) + {} (State) + {} (Activations) = {sum} bytes, but it has {}",
        sizes[0],
        sizes[1],
        sizes[2],
        sum - 1
    );
    assert_eq!(*message, expected);
    refuses("C4", |p| p.arenas[3].bytes = u64::MAX);
}

#[test]
fn c5_buffers() {
    refuses("C5", |p| p.buffers[3].offset += 1);
    refuses("C5", |p| p.buffers[0].bytes += 1);
    refuses("C5", |p| p.buffers[0].offset = u64::MAX - 255);
}

#[test]
fn c6_views() {
    refuses("C6", |p| p.entries[0].kernels[0].reads[0].view.bytes += 1);
    refuses("C6", |p| p.entries[0].kernels[0].writes[0].view.offset = u64::MAX);
    refuses("C6", |p| p.entries[0].aliases[0].of[0].view.offset = 1);
}

#[test]
fn c7_contents() {
    refuses("C7", |p| p.arenas[0].kind = ArenaKind::Activations);
    refuses("C7", |p| p.buffers[2].offset = p.buffers[1].offset);
    refuses("C7", |p| p.buffers[2].content = Content::State { name: "kv".into() });
    refuses("C7", |p| p.buffers[1].content = Content::Run { entry: 0 });
}

#[test]
fn c8_devices() {
    refuses("C8", |p| p.devices[1].name = p.devices[0].name.clone());
    refuses("C8", |p| p.links[0].to = p.links[0].from);
    refuses("C8", |p| p.links.push(p.links[0].clone()));
}

#[test]
fn c9_events() {
    let record = |p: &Plan| command(p, |a| matches!(a, Action::Record { .. }));
    refuses("C9", |p| {
        let number = record(p);
        p.entries[0].commands.remove(number);
    });
    refuses("C9", |p| {
        let again = p.entries[0].commands[record(p)];
        p.entries[0].commands.push(again);
    });
    refuses("C9", |p| {
        let number = record(p);
        p.entries[0].commands.swap(number, number + 1);
    });
    refuses("C9", |p| p.entries[0].events += 1);
    refuses("C9", |p| p.entries[0].events = u32::MAX);
}

#[test]
fn c10_order() {
    // Every wait of the sample is needed.
    let plan = sample::two_devices();
    for (number, c) in plan.entries[0].commands.iter().enumerate() {
        if matches!(c.action, Action::Wait { .. }) {
            refuses("C10", |p| {
                p.entries[0].commands.remove(number);
            });
        }
    }
}

#[test]
fn c10_agreeing_values_do_not_excuse_a_race() {
    let mut plan = sample::two_devices();
    // The spill is made twice, from two streams that nothing orders.
    let number = copy_for(&plan, CopyReason::Spill);
    let mut again = plan.entries[0].commands[number];
    again.stream = StreamId(4);
    plan.entries[0].commands.insert(number, again);
    assert!(labels(&plan).contains(&"C10"));
}

#[test]
fn c11_values() {
    // Another buffer than the one that was fetched to; wrong value at the right place; half of a value.
    refuses("C11", |p| p.entries[0].kernels[3].reads[0].view.buffer = BufferId(3));
    refuses("C11", |p| p.entries[0].kernels[0].reads[0].value = result(5));
    refuses("C11", |p| p.entries[0].kernels[0].reads[0].view.bytes = 512);
    refuses("C11", |p| {
        let number = copy_for(p, CopyReason::Fetch);
        p.entries[0].commands.remove(number);
    });
    // The spill reads what the kernel before it in the same stream made; the other way round it reads what was there.
    refuses("C11", |p| {
        let number = copy_for(p, CopyReason::Spill);
        p.entries[0].commands.swap(number, number + 1);
    });
}

#[test]
fn c11_bytes_are_read_through_the_buffer_that_they_were_written_through() {
    refuses("C11", |p| {
        let twin = Buffer { name: "twin".into(), ..p.buffers[3].clone() };
        p.buffers.push(twin);
        p.entries[0].kernels[0].reads[0].view.buffer = BufferId(p.buffers.len() as u32 - 1);
    });
}

#[test]
fn c11_names_command_place_and_finding() {
    let mut plan = sample::two_devices();
    plan.entries[0].kernels[3].reads[0].view.buffer = BufferId(3);
    let violations = check(&plan).expect_err("the wrong buffer");
    let v = violations.iter().find(|v| v.constraint == Constraint::Values).expect("a wrong value");
    let d = v.diagnostic(djinn_diag::Culprit::Internal);
    assert_eq!(d.code, "plan.C11");
    let text = v.to_string();
    for part in ["entry 0 'forward'", "command ", "%3 is read at bytes 0..512 of buffer 3 'x'"] {
        assert!(text.contains(part) || d.to_string().contains(part), "{text}");
    }
}

#[test]
fn c12_production() {
    refuses("C12", |p| p.entries[0].kernels[1].ops = vec![0]);
    refuses("C12", |p| p.entries[0].kernels[1].ops = vec![3, 3]);
    refuses("C12", |p| p.entries[0].kernels[1].ops = vec![]);
    refuses("C12", |p| p.entries[0].kernels[1].writes[0].value = result(0));
    refuses("C12", |p| p.entries[0].kernels.push(kernel("never", 50, &[], &[])));
    refuses("C12", |p| {
        let launch = p.entries[0].commands[command(p, |a| matches!(a, Action::Launch { .. }))];
        p.entries[0].commands.push(launch);
    });
    refuses("C12", |p| p.entries[0].kernels[0].ops.push(1));
    refuses("C12", |p| p.entries[0].states[0].argument = 0);
}

#[test]
fn c13_locality() {
    refuses("C13", |p| p.links.clear());
    refuses("C13", |p| {
        let number = command(p, |a| matches!(a, Action::Launch { .. }));
        p.entries[0].commands[number].stream = StreamId(2);
    });
    refuses("C13", |p| {
        let number = command(p, |a| matches!(a, Action::Launch { .. }));
        p.entries[0].commands[number].stream = StreamId(1);
    });
    refuses("C13", |p| {
        let number = copy_for(p, CopyReason::Spill);
        p.entries[0].commands[number].stream = StreamId(3);
    });
}

#[test]
fn c14_ownership() {
    refuses("C14", |p| {
        p.entries.push(djinn_plan::Entry::empty("other"));
        p.buffers[4].content = Content::Run { entry: 1 };
    });
    refuses("C14", |p| p.entries[0].kernels[6].writes[0].view.buffer = BufferId(0));
    refuses("C14", |p| p.entries[0].constants[0].value = ValueRef::Argument(7));
    refuses("C14", |p| p.entries[0].constants[0].view = view(BufferId(1), 0, 2048));
}

#[test]
fn c15_state_stays() {
    refuses("C15", |p| p.entries[0].updates.clear());
    refuses("C15", |p| p.entries[0].states[0].view = p.entries[0].inputs[0].view.expect("a place"));
    refuses("C15", |p| p.entries[0].updates[0].view.bytes = 50);
    // The cache goes to the other device.
    let moved = |p: &mut Plan, device: usize, reason| {
        let arena = p.arenas.iter().position(|a| a.device.index() == device && a.kind != ArenaKind::State);
        let buffer = BufferId(p.buffers.len() as u32);
        let arena = arena.expect("it has one");
        let offset = p.arenas[arena].bytes.next_multiple_of(ALIGNMENT);
        p.arenas[arena].bytes = offset + 2048;
        p.devices[device].memory_bytes += 4096;
        let content = Content::Run { entry: 0 };
        p.buffers.push(Buffer {
            name: "away".into(),
            arena: ArenaId(arena as u32),
            offset,
            bytes: 2048,
            content,
        });
        let (from, to) = (Place::Buffer(view(BufferId(1), 0, 1536)), Place::Buffer(view(buffer, 0, 1536)));
        let value = ValueRef::Argument(2);
        let action = Action::Copy { value, result: value, from, to, reason, seconds: 0.0 };
        p.entries[0].commands.insert(0, Command { stream: StreamId(0), action });
        p.entries[0].budgets[device].activations = offset + 2048;
    };
    refuses("C15", |p| moved(p, 1, CopyReason::Transfer));
    let mut plan = sample::two_devices();
    moved(&mut plan, 2, CopyReason::Spill);
    plan.entries[0].budgets[2].activations = 0;
    assert_eq!(labels(&plan), [""; 0], "a spill to the host is allowed: {:?}", check(&plan));
}

#[test]
fn c16_ports() {
    for reason in [CopyReason::Input, CopyReason::Output] {
        refuses("C16", |p| {
            let number = copy_for(p, reason);
            p.entries[0].commands.remove(number);
        });
        refuses("C16", |p| {
            let again = p.entries[0].commands[copy_for(p, reason)];
            p.entries[0].commands.push(again);
        });
    }
    refuses("C16", |p| p.entries[0].inputs[0].resident = true);
    refuses("C16", |p| p.entries[0].inputs[1].resident = false);
    refuses("C16", |p| p.entries[0].outputs[0].value = result(9));
    refuses("C16", |p| p.entries[0].outputs[0].view = None);
    refuses("C16", |p| p.entries[0].outputs[1].update_of = Some(9));
    refuses("C16", |p| p.entries[0].inputs[0].value = result(0));
    refuses("C16", |p| {
        p.entries[0].outputs.push(Port { view: None, ..port("z", result(5), view(BufferId(0), 0, 1)) });
    });
}

#[test]
fn c17_end() {
    refuses("C17", |p| p.entries[0].updates[0].value = result(11));
    refuses("C17", |p| p.entries[0].outputs[1].value = result(7));
    refuses("C17", |p| {
        let number = command(p, |a| *a == Action::Launch { kernel: KernelId(4) });
        p.entries[0].commands.remove(number);
    });
}

#[test]
fn c18_aliases() {
    refuses("C18", |p| {
        p.entries[0].aliases[2].of.pop();
    });
    refuses("C18", |p| p.entries[0].aliases[2].of[1].view.offset = 500);
    refuses("C18", |p| {
        let again = p.entries[0].aliases[0].clone();
        p.entries[0].aliases.push(again);
    });
    refuses("C18", |p| {
        let twin = Buffer { name: "twin".into(), ..p.buffers[4].clone() };
        p.buffers.push(twin);
        p.entries[0].aliases[0].of[0].view.buffer = BufferId(p.buffers.len() as u32 - 1);
    });
    refuses("C18", |p| {
        let own = p.entries[0].aliases[0].value;
        p.entries[0].aliases[0].of = vec![own];
    });
}

#[test]
fn c19_in_place() {
    // The result is written over the second half of the operand only.
    refuses("C19", |p| p.entries[0].kernels[2].writes[0].view.offset = 256);
    refuses("C19", |p| p.entries[0].kernels[0].workspace = p.entries[0].inputs[0].view);
    refuses("C19", |p| {
        let first = p.entries[0].kernels[1].writes[0];
        p.entries[0].kernels[1].writes.push(first);
    });
    refuses("C19", |p| {
        let number = copy_for(p, CopyReason::Fetch);
        if let Action::Copy { from, to, .. } = &mut p.entries[0].commands[number].action {
            *to = *from;
        }
    });
}

#[test]
fn c19_append() {
    let append = |p: &mut Plan| p.entries[0].kernels.iter().position(|k| k.name == "append").expect("there");
    // An engine writes while it reads.
    refuses("C19", |p| {
        let kernel = append(p);
        p.entries[0].kernels[kernel].engine = Some(0);
    });
    // What is not the new content of a resident input is longer than what it stands over.
    refuses("C19", |p| p.entries[0].outputs[1].resident = false);
    refuses("C19", |p| p.entries[0].inputs[1].resident = false);
    // The old content is read twice, or the new one is written beside another value.
    refuses("C19", |p| {
        let kernel = append(p);
        let read = p.entries[0].kernels[kernel].reads[0];
        p.entries[0].kernels[kernel].reads.push(read);
    });
    refuses("C19", |p| {
        let kernel = append(p);
        let Operand { value, view } = p.entries[0].kernels[kernel].reads[0];
        p.entries[0].kernels[kernel].reads[0] = at(value, View { offset: 512, bytes: 1024, ..view });
    });
    // A cache does not become shorter.
    refuses("C19", |p| {
        let kernel = append(p);
        let short = View { bytes: 1024, ..p.entries[0].kernels[kernel].writes[0].view };
        p.entries[0].kernels[kernel].writes[0].view = short;
        p.entries[0].outputs[1].view = Some(short);
    });
}

#[test]
fn c11_what_was_appended_to_is_gone() {
    refuses("C11", |p| {
        let old = p.entries[0].kernels.iter().find(|k| k.name == "append").expect("there").reads[0];
        let sum = p.entries[0].kernels.iter_mut().find(|k| k.name == "sum").expect("there");
        sum.reads.push(old);
    });
}

#[test]
fn c20_symbols() {
    let symbol = |min, max| SymbolRange { name: "batch".into(), min, max };
    refuses("C20", |p| p.entries[0].symbols = vec![symbol(3, 2)]);
    refuses("C20", |p| p.entries[0].symbols = vec![symbol(-1, 2)]);
    refuses("C20", |p| p.entries[0].symbols = vec![symbol(1, 2), symbol(1, 2)]);
    let mut plan = sample::two_devices();
    plan.entries[0].symbols = vec![symbol(0, i64::MAX)];
    assert_eq!(labels(&plan), [""; 0]);
}

#[test]
fn c21_budgets() {
    refuses("C21", |p| p.entries[0].budgets[0].weights = 100);
    refuses("C21", |p| p.entries[0].budgets[0].weights = 1 << 40);
    refuses("C21", |p| p.entries[0].budgets[0].state -= 500);
    refuses("C21", |p| p.entries[0].budgets[0].activations -= 1);
    refuses("C21", |p| p.entries[0].budgets[0].activations += 256);
    refuses("C21", |p| p.entries[0].budgets[0].activations_bound = u64::MAX);
    refuses("C21", |p| p.entries[0].budgets[0].workspace = 699);
    refuses("C21", |p| p.entries[0].budgets[0].kv_per_token = 1);
    refuses("C21", |p| p.entries[0].budgets[0].sessions = Some(0));
    refuses("C21", |p| p.entries[0].budgets.truncate(1));
    refuses("C21", |p| p.entries[0].budgets[2].device = DeviceId(0));
    refuses("C21", |p| {
        let budget = &mut p.entries[0].budgets[0];
        (budget.kv_per_session, budget.sessions) = (2048, Some(u64::MAX));
    });
    let mut plan = sample::two_devices();
    let budget = &mut plan.entries[0].budgets[0];
    (budget.kv_per_token, budget.kv_per_session, budget.sessions) = (16, 2048, Some(1));
    assert_eq!(labels(&plan), [""; 0]);
}

#[test]
fn c22_copies() {
    refuses("C22", |p| {
        let number = copy_for(p, CopyReason::Spill);
        if let Action::Copy { result: r, .. } = &mut p.entries[0].commands[number].action {
            *r = result(77);
        }
    });
    refuses("C22", |p| {
        let number = copy_for(p, CopyReason::Spill);
        if let Action::Copy { from: Place::Buffer(view), .. } = &mut p.entries[0].commands[number].action {
            view.bytes = 256;
        }
    });
    refuses("C22", |p| {
        let number = copy_for(p, CopyReason::Input);
        if let Action::Copy { reason, .. } = &mut p.entries[0].commands[number].action {
            *reason = CopyReason::Fetch;
        }
    });
    refuses("C22", |p| {
        let number = copy_for(p, CopyReason::Input);
        if let Action::Copy { to, .. } = &mut p.entries[0].commands[number].action {
            *to = Place::Output(0);
        }
    });
}

#[test]
fn c23_limits_and_hostile_plans_end_soon() {
    // Very many streams.
    let mut b = Builder::new();
    let device = b.device("gpu:0", false);
    for _ in 0..6000 {
        let stream = b.stream(device, StreamKind::Compute);
        b.sync(stream, stream);
    }
    assert_eq!(labels(&b.finish()), ["C23"]);
    // Many values in many pieces.
    let mut b = Builder::new();
    let device = b.device("gpu:0", false);
    let arena = b.arena(device, ArenaKind::Activations);
    let stream = b.stream(device, StreamKind::Compute);
    let buffer = b.scratch("pieces", arena, 40_000);
    let pieces: Vec<Operand> =
        (0..40_000).map(|i| at(result(i + 1), view(buffer, u64::from(i), 1))).collect();
    let mut first = kernel("pieces", 1, &[], &pieces);
    first.ops = (1..=40_000).collect();
    b.launch(stream, first);
    let whole = result(100_000);
    b.entry.aliases = vec![Alias { value: at(whole, view(buffer, 0, 40_000)), of: pieces }];
    for i in 0..20_000 {
        b.launch(stream, kernel("whole", 200_000 + i, &[at(whole, view(buffer, 0, 40_000))], &[]));
    }
    assert_eq!(labels(&b.finish()), ["C23"]);
}

#[test]
fn c24_engines() {
    fn engine(p: &mut Plan) -> &mut Engine {
        &mut p.entries[0].engines[0]
    }
    refuses("C24", |p| engine(p).number = 1);
    refuses("C24", |p| engine(p).device = DeviceId(1));
    refuses("C24", |p| engine(p).kernels.truncate(1));
    refuses("C24", |p| engine(p).kernels.push(KernelId(99)));
    refuses("C24", |p| p.entries[0].kernels[3].engine = Some(0));
    refuses("C24", |p| p.entries[0].kernels[3].engine = Some(7));
    refuses("C24", |p| engine(p).ops.truncate(3));
    refuses("C24", |p| engine(p).ops.push(8));
    refuses("C24", |p| engine(p).inputs.clear());
    refuses("C24", |p| engine(p).inputs.push(ValueRef::Argument(1)));
    refuses("C24", |p| engine(p).outputs.truncate(1));
    refuses("C24", |p| engine(p).bytes_in += 1);
    refuses("C24", |p| engine(p).bytes_out = u64::MAX);
    refuses("C24", |p| engine(p).weight_bytes = 0);
    refuses("C24", |p| engine(p).seconds *= 2.0);
    refuses("C24", |p| engine(p).flops = f64::NAN);
    refuses("C24", |p| {
        let twice = engine(p).clone();
        p.entries[0].engines.push(twice);
    });
}

/// Messages about engines are for people: words and `%` names.
#[test]
fn c24_says_it_in_words() {
    let says = |change: fn(&mut Plan, &mut Engine), words: &str| {
        let mut plan = sample::two_devices();
        let mut engine = plan.entries[0].engines[0].clone();
        change(&mut plan, &mut engine);
        plan.entries[0].engines[0] = engine;
        let messages: Vec<_> = check(&plan).expect_err(words).into_iter().map(|v| v.message).collect();
        assert!(messages.iter().any(|m| m.contains(words)), "expected '{words}', found {messages:#?}");
        for debug in ["Some(", "None", "Argument(", "Result {"] {
            assert!(messages.iter().all(|m| !m.contains(debug)), "{messages:#?}");
        }
    };
    says(|p, _| p.entries[0].kernels[0].engine = None, "lists kernel 0, which says that it is in no engine");
    says(
        |p, _| p.entries[0].kernels[0].engine = Some(7),
        "says that it is in engine 7, which does not list it",
    );
    says(|_, e| e.kernels.push(KernelId(99)), "lists kernel 99, but there are");
    says(|_, e| e.ops.truncate(3), "does not list operation 3 of its kernel");
    says(|_, e| e.inputs.clear(), "the inputs of engine 0 lack %arg0");
    says(|_, e| e.inputs.push(ValueRef::Argument(1)), "the inputs of engine 0 name %arg1 wrongly");
    says(|_, e| e.inputs = vec![result(1)], "the inputs of engine 0 name %1 wrongly and lack %arg0");
    says(|_, e| e.outputs.reverse(), "the outputs of engine 0 are in another order or named twice");
}

/// `matmul`, a spill of its result and back, `exp` of that: an engine of both kernels waits for the copies and they for it.
#[test]
fn c24_an_engine_cannot_wait_for_itself() {
    let mut plan = sample::two_devices();
    let entry = &mut plan.entries[0];
    let exp = entry.kernels.iter().position(|k| k.name == "exp").expect("there");
    entry.kernels[exp].engine = Some(0);
    let (seconds, flops) = (entry.kernels[exp].seconds, entry.kernels[exp].flops);
    let engine = &mut entry.engines[0];
    engine.kernels.push(KernelId(exp as u32));
    engine.ops.push(8);
    engine.outputs.push(result(8));
    (engine.seconds, engine.flops) = (engine.seconds + seconds, engine.flops + flops);
    engine.bytes_out += 512;
    let violations = check(&plan).expect_err("a cycle");
    assert!(violations.len() == 1 && violations[0].constraint == Constraint::Engines, "{violations:#?}");
    assert!(violations[0].message.contains("waits for something outside"), "{violations:#?}");
}

#[test]
fn violations_are_bounded_in_number_and_length() {
    let mut plan = sample::two_devices();
    plan.buffers[4].name = "n".repeat(1 << 20);
    for _ in 0..1000 {
        let mut kernel = plan.entries[0].kernels[0].clone();
        kernel.seconds = f64::NAN;
        plan.entries[0].kernels.push(kernel);
    }
    let e = require(&plan, djinn_diag::Culprit::Internal).expect_err("many");
    assert!(e.message.ends_with("(99 or more other violations)") && e.code == "plan.C3", "{e}");
    let violations = check(&plan).expect_err("many");
    assert_eq!(violations.len(), check::MAX_VIOLATIONS);
    assert!(violations.iter().all(|v| v.message.len() < 3000));
}
