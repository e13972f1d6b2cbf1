//! Plans that are sound as plans, but run another program than theirs: all are refused.

use djinn::device::{Profile, Target};
use djinn::ir::Module;
use djinn::plan_data::{Content, Plan, check};
use djinn::{PlanRequest, conforms};
use std::path::Path;

fn planned(name: &str, sizes: &[(&str, i64)]) -> (Plan, Module) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name);
    let mut module = djinn::read(&path).expect("the model is read").module;
    let mut request = PlanRequest::new(Target::single(Profile::builtin("host").expect("built in")));
    request.sizes = sizes.iter().map(|(s, n)| ((*s).to_owned(), vec![(2, *n)])).collect();
    let plan = djinn::plan(&mut module, &request, None).expect("planned").plan;
    (plan, module)
}

/// The checker of plans or the comparison with the program refuses the changed plan.
fn refuses(what: &str, plan: &Plan, module: &Module, change: impl FnOnce(&mut Plan)) {
    let mut changed = plan.clone();
    change(&mut changed);
    assert_ne!(&changed, plan, "{what} changes something");
    assert!(check(&changed).is_err() || conforms(&changed, module).is_err(), "{what} is accepted");
}

#[test]
fn ports_states_and_constants_are_those_of_the_program() {
    let (plan, module) = planned("llama_staticcache/model.pt2", &[]);
    conforms(&plan, &module).expect("the plan itself is right");
    refuses("another name of an output", &plan, &module, |p| p.entries[0].outputs[0].name = "x".into());
    refuses("another type of an input", &plan, &module, |p| {
        p.entries[0].inputs[0].ty = "tensor<1xf32>".into()
    });
    refuses("a lost output", &plan, &module, |p| p.entries[0].outputs.clear());
    refuses("a lost update", &plan, &module, |p| p.entries[0].updates.truncate(1));
    refuses("updates of each other's states", &plan, &module, |p| {
        let updates = &mut p.entries[0].updates;
        let (a, b) = (updates[0].argument, updates[1].argument);
        (updates[0].argument, updates[1].argument) = (b, a);
    });
    refuses("states in each other's buffers", &plan, &module, |p| {
        let like = |b: &djinn::plan_data::Buffer| matches!(b.content, Content::State { .. });
        let states: Vec<usize> = (0..p.buffers.len()).filter(|i| like(&p.buffers[*i])).collect();
        let (a, b) = (p.buffers[states[0]].content.clone(), p.buffers[states[1]].content.clone());
        (p.buffers[states[0]].content, p.buffers[states[1]].content) = (b, a);
    });
    refuses("a constant that begins late", &plan, &module, |p| p.entries[0].constants[0].view.offset = 64);
    refuses("constants in each other's buffers", &plan, &module, |p| {
        let constant = |i: usize| p.entries[0].constants[i].view.buffer.0 as usize;
        let all = 0..p.entries[0].constants.len();
        let of = |i: &usize| p.buffers[constant(*i)].bytes;
        let pair = all
            .clone()
            .flat_map(|a| all.clone().map(move |b| (a, b)))
            .find(|(a, b)| a < b && constant(*a) != constant(*b) && of(a) == of(b));
        let (a, b) = pair.expect("two constants of one size");
        let (a, b) = (constant(a), constant(b));
        let (x, y) = (p.buffers[a].content.clone(), p.buffers[b].content.clone());
        (p.buffers[a].content, p.buffers[b].content) = (y, x);
    });
}

#[test]
fn views_are_as_large_as_their_values() {
    let (plan, module) = planned("llama_decode/model.pt2", &[("s0", 16), ("s17", 2)]);
    conforms(&plan, &module).expect("the plan itself is right");
    refuses("views of nothing", &plan, &module, |p| {
        for kernel in &mut p.entries[0].kernels {
            kernel.reads.iter_mut().chain(&mut kernel.writes).for_each(|o| o.view.bytes = 0);
        }
    });
    refuses("no range of sizes", &plan, &module, |p| p.entries[0].symbols.clear());
    refuses("a wider range of sizes", &plan, &module, |p| p.entries[0].symbols[0].max = 1_000_000);
    refuses("a kernel over its own operand", &plan, &module, |p| {
        let (read, write) = {
            let k = p.entries[0].kernels.iter().find(|k| {
                let matmul = k.name.starts_with("matmul");
                let run = |o: &djinn::plan_data::Operand| {
                    matches!(p.buffers[o.view.buffer.0 as usize].content, Content::Run { .. })
                };
                matmul && k.reads.iter().any(run) && k.writes.iter().any(run)
            });
            let k = k.expect("a product");
            let run = |o: &&djinn::plan_data::Operand| {
                matches!(p.buffers[o.view.buffer.0 as usize].content, Content::Run { .. })
            };
            (
                k.reads.iter().find(run).expect("read").view.buffer,
                k.writes.iter().find(run).expect("written").view.buffer,
            )
        };
        p.buffers[write.0 as usize].offset = p.buffers[read.0 as usize].offset;
    });
}
