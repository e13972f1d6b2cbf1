use super::*;
use crate::{OptionInfo, PassInfo, PassOptions};
use djinn_diag::RemarkKind;
use djinn_ir::{ArgumentKind, Attrs, DType, Fuel, Function, Graph, OpKind, ResultKind, TensorType, cleanup};

/// Removes dead code of all functions, or fails as its option says.
struct Sweep(String);

static SWEEP: PassInfo = PassInfo {
    name: "sweep",
    summary: "Removes dead code.",
    requires: "nothing",
    ensures: "every operation is used",
    preserves: "everything else",
    options: &[OptionInfo { name: "fail", default: "no", summary: "How to fail." }],
};

impl Pass for Sweep {
    fn info(&self) -> &'static PassInfo {
        &SWEEP
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<()> {
        match self.0.as_str() {
            "error" => return Err(internal("sweep.broken", "on purpose")),
            "panic" => panic!("on purpose"),
            "break" => module.functions[0].name = "".into(),
            _ => {}
        }
        context.count("functions", module.functions.len() as u64);
        for f in &mut module.functions {
            let report = cleanup::eliminate_dead_code(&mut f.graph, &mut context.fuel)?;
            context.count_patch(&report);
            if report.changed() {
                context.remark(RemarkKind::Applied, &report.name, &f.name, "removed");
            }
        }
        Ok(())
    }
}

fn make(options: &PassOptions) -> Result<Box<dyn Pass>> {
    Ok(Box::new(Sweep(options.get("fail")?.to_string())))
}

fn registry() -> PassRegistry {
    let mut r = PassRegistry::new();
    r.register(&SWEEP, make).expect("a fresh name");
    r
}

fn module() -> Module {
    let mut m = Module::default();
    for name in ["f", "g"] {
        let mut graph = Graph::new();
        let x = graph.add_argument(TensorType::of(DType::F32, &[2]));
        graph.build1(OpKind::Exp, &[x], Attrs::new()).expect("exp");
        graph.results = vec![x];
        m.functions.push(Function {
            name: name.into(),
            visibility: djinn_ir::Visibility::Entry,
            graph,
            arguments: vec![("x".into(), ArgumentKind::Input)],
            results: vec![("y".into(), ResultKind::Output)],
        });
    }
    m
}

fn pipeline(text: &str) -> Pipeline {
    Pipeline::parse(text).expect("parses")
}

#[test]
fn passes_run_in_order_with_times_and_counters() {
    let mut m = module();
    let mut context = PassContext::new();
    let mut ticks = 0;
    let mut events = Vec::new();
    let report = PassManager::new(&registry(), &pipeline("sweep,func(sweep)"))
        .expect("known passes")
        .clock(|| {
            ticks += 10;
            ticks
        })
        .on_event(|e| match e {
            Event::Before { index, module, .. } => events.push(format!("<{index}:{}", module.op_count())),
            Event::After { index, module, .. } => events.push(format!(">{index}:{}", module.op_count())),
            Event::Failed { .. } => events.push("failed".into()),
        })
        .run(&mut m, &mut context)
        .expect("runs");
    assert_eq!(events, ["<0:2", ">0:0", "<1:0", ">1:0", "<2:0", ">2:0"]);
    let runs: Vec<_> = report.passes.iter().map(|p| (p.pass.as_str(), p.time, p.fuel, p.remarks)).collect();
    assert_eq!(runs, [("sweep", 10, 2, 2), ("sweep", 10, 0, 0), ("sweep", 10, 0, 0)]);
    assert_eq!(context.statistics.get("sweep", "functions"), 4);
    assert_eq!(context.statistics.get("sweep", "dead-code"), 2);
    assert_eq!(m.functions.iter().map(|f| &*f.name).collect::<Vec<_>>(), ["f", "g"]);
    assert_eq!(context.pass, "");
}

#[test]
fn fuel_stops_the_passes() {
    let mut m = module();
    let mut context = PassContext { fuel: Fuel::limited(1), ..PassContext::new() };
    let mut manager = PassManager::new(&registry(), &pipeline("sweep")).expect("known passes");
    manager.run(&mut m, &mut context).expect("runs");
    assert_eq!(m.op_count(), 1);
}

#[test]
fn failures_name_the_pass_and_leave_a_reproducer() {
    for (how, code) in [("error", "sweep.broken"), ("panic", "pass.panic"), ("break", "function.C1")] {
        let mut m = module();
        let mut seen = None;
        let error = PassManager::new(&registry(), &pipeline(&format!("sweep,sweep{{fail={how}}}")))
            .expect("known passes")
            .on_event(|e| {
                if let Event::Failed { reproducer, .. } = e {
                    seen = reproducer.cloned();
                }
            })
            .run(&mut m, &mut PassContext::new())
            .expect_err(how);
        assert_eq!(error.code, code);
        assert_eq!(error.place[0], "pass 'sweep' (number 2)");
        let again = Reproducer::parse(&seen.expect("a reproducer").to_text()).expect("parses");
        let mut m = djinn_ir::text::parse_module(&again.module).expect("parses");
        let mut manager = PassManager::new(&registry(), &again.pipeline).expect("known passes");
        let second = manager.run(&mut m, &mut again.context()).expect_err("fails again");
        assert_eq!(second.code, code);
    }
}

#[test]
fn a_failure_on_one_function_keeps_the_others() {
    let mut m = module();
    let mut manager = PassManager::new(&registry(), &pipeline("func(sweep{fail=error})")).expect("known");
    assert!(manager.run(&mut m, &mut PassContext::new()).is_err());
    assert_eq!(m.functions.len(), 2);
}

#[test]
fn unknown_passes_and_double_names_are_refused() {
    let error = PassManager::new(&registry(), &pipeline("sweeep")).map(drop).expect_err("unknown");
    assert_eq!(
        (error.code.as_str(), error.help.as_deref()),
        ("pipeline.pass", Some("did you mean 'sweep'?"))
    );
    let error = registry().register(&SWEEP, make).expect_err("taken");
    assert_eq!(error.code, "pass.name");
    assert_eq!(registry().infos().map(|i| i.name).collect::<Vec<_>>(), ["sweep"]);
    let broken = Module { functions: vec![module().functions[0].clone(); 2], ..Module::default() };
    let mut manager = PassManager::new(&registry(), &Pipeline::default()).expect("empty");
    let error = manager.run(&mut broken.clone(), &mut PassContext::new()).expect_err("two named f");
    assert_eq!(error.place[0], "before the first pass");
}
