//! Plans on GPUs, by the emulated CUDA driver of `djinn-cuda-emulator`: kernels as PTX, products of cuBLASLt, engines in
//! their places, graphs, several GPUs. Every output is compared with the reference evaluator.
//!
//! The driver is found by the loader's path, which is read when a process starts: each test runs itself again, once for
//! every seed of the emulator's scheduler.

use djinn::cuda::{Device, Driver};
use djinn::device::{Profile, Target, Topology};
use djinn::diag::{Result, unsupported};
use djinn::interp;
use djinn::ir::{Module, TensorData};
use djinn::plan_data::{Engine, Entry, Granularity, Plan, ValueRef};
use djinn::runtime::{CudaOptions, EngineExecution, EngineUnit, EngineValue, RunOptions, RunOutput, Runtime};
use djinn::tensorrt::{ArgumentSource, Binding, Region};
use djinn::{OptimizeOptions, PlanRequest};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

type Inputs = BTreeMap<String, TensorData>;

/// Set in processes that run under the emulator.
const EMULATED: &str = "DJINN_TEST_EMULATED";
/// Seeds of the emulator's scheduler.
const SEEDS: [&str; 3] = ["0", "1", "2"];

/// Runs `body` in processes of their own, where CUDA is the emulator with so many GPUs, once for every seed.
fn emulated(test: &str, gpus: usize, body: impl FnOnce()) {
    if std::env::var_os(EMULATED).is_some() {
        return body();
    }
    if let Err(missing) = djinn::mlir::Compiler::load() {
        return println!("{test}: skipped: kernels cannot be compiled: {missing}");
    }
    let library = djinn_cuda_emulator::library().expect("cargo has built the emulator");
    let folder = tempfile::tempdir().expect("a folder");
    djinn_cuda_emulator::install(&library, folder.path()).expect("links");
    for seed in SEEDS {
        let run = Command::new(std::env::current_exe().expect("a program"))
            .args(["--exact", test, "--nocapture", "--test-threads", "1"])
            .env("LD_LIBRARY_PATH", folder.path())
            .env("DJINN_EMULATOR_SEED", seed)
            .env("DJINN_EMULATOR_DEVICES", gpus.to_string())
            .env(EMULATED, "1")
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "seed {seed}:\n{said}");
        assert!(said.contains("1 passed"), "seed {seed}: nothing ran:\n{said}");
    }
}

fn read(name: &str) -> Module {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name).join("model.pt2");
    djinn::read(&path).expect("reads").module
}

/// A plan for GPUs, and the program that it runs.
fn planned(name: &str, gpus: usize, engine_entries: bool) -> (Arc<Plan>, Arc<Module>) {
    let mut module = read(name);
    let target = match gpus {
        1 => Target::single(Profile::named("h200").expect("known")),
        _ => {
            // Together they have twice what the small models need, alone less.
            let text = format!("[[device]]\nprofile = \"h200\"\ncount = {gpus}\n");
            Target::new(Topology::parse(&text, "test").expect("a topology"))
        }
    };
    let mut request = PlanRequest::new(target);
    request.engine_entries = engine_entries;
    if gpus > 1 {
        djinn::optimize(&mut module, &OptimizeOptions::default(), None).expect("optimises");
        request.optimize.pipeline = "builtin.module()".into();
        spread(&mut module, gpus);
    }
    let planned = djinn::plan(&mut module, &request, None).expect("plans");
    (Arc::new(planned.plan), Arc::new(module))
}

/// Pins the operations to devices, as many to each.
fn spread(module: &mut Module, gpus: usize) {
    for function in &mut module.functions {
        let ahead = djinn::ir::walk::known_before_runs(function);
        let known = |op: &djinn::ir::Op| op.results.iter().all(|v| ahead[v.0 as usize]);
        let ids: Vec<_> = function.graph.ops().filter(|(_, op)| !known(op)).map(|(id, _)| id).collect();
        for (i, id) in ids.iter().enumerate() {
            function.graph.annotate(*id, "device", format!("h200:{}", i * gpus / ids.len()).as_str());
        }
    }
}

fn start((plan, module): &(Arc<Plan>, Arc<Module>), gpus: usize, engines: Vec<EngineUnit>) -> Runtime {
    let cuda = CudaOptions { gpus: (0..gpus).collect(), graphs: true, engines, ..CudaOptions::default() };
    let options = RunOptions { poison: true, ..RunOptions::default() };
    Runtime::cuda(Arc::clone(plan), Arc::clone(module), options, cuda).expect("it starts")
}

/// Runs the first function, whose states go on, and compares it with the evaluator.
fn run(runtime: &mut Runtime, inputs: &Inputs) -> RunOutput {
    let function = runtime.program().entries().next().expect("a function").name.to_string();
    let checked = djinn::execute_and_check(runtime, &function, inputs).expect("it runs");
    assert!(checked.2.passed(), "{:?}", checked.2.results);
    checked.0
}

fn inputs(module: &Module, seed: u64) -> Inputs {
    let function = module.entries().next().expect("a function");
    djinn::random::inputs_within(module, &function.name, seed, &|_| Some((5, 5)))
}

#[test]
fn kernels_states_and_graphs_give_what_the_evaluator_gives() {
    emulated("kernels_states_and_graphs_give_what_the_evaluator_gives", 1, || {
        for name in ["bert", "llama_staticcache", "squeezenet"] {
            let planned = planned(name, 1, false);
            let mut runtime = start(&planned, 1, Vec::new());
            let first = inputs(&planned.1, 0);
            let graphs: Vec<bool> = (0..3).map(|_| run(&mut runtime, &first).graph).collect();
            assert_eq!(graphs, [false, true, true], "{name}: a size that comes again is a graph");
            assert!(run(&mut runtime, &inputs(&planned.1, 1)).graph, "{name}: other values, the same graph");
            let report = runtime.kernels();
            assert_eq!(report.evaluated, 0, "{name}: {:?}", report.refused);
            assert!(report.problems.is_empty(), "{name}: {:?}", report.problems);
            assert!(report.library > 0 || name == "squeezenet", "{name}: products are cuBLASLt's");
        }
    });
}

#[test]
fn several_gpus_hand_values_on() {
    emulated("several_gpus_hand_values_on", 2, || {
        for name in ["bert", "whisper_encoder"] {
            let planned = planned(name, 2, false);
            let mut runtime = start(&planned, 2, Vec::new());
            for turn in 0..3 {
                run(&mut runtime, &inputs(&planned.1, turn));
            }
        }
    });
}

#[test]
fn what_no_kernel_does_is_evaluated_and_not_captured() {
    emulated("what_no_kernel_does_is_evaluated_and_not_captured", 1, || {
        let planned = planned("cond_while", 1, false);
        let mut runtime = start(&planned, 1, Vec::new());
        for _ in 0..3 {
            assert!(!run(&mut runtime, &inputs(&planned.1, 0)).graph);
        }
        assert!(runtime.kernels().evaluated > 0);
    });
}

/// Runs of engines.
static ENGINE_RUNS: AtomicUsize = AtomicUsize::new(0);

/// An engine that the evaluator stands for: it waits for its stream, and leaves its results where they belong.
struct Evaluated {
    region: Region,
    device: Device,
}

impl EngineExecution for Evaluated {
    #[allow(unsafe_code, reason = "memory of the emulated GPU is read and written")]
    unsafe fn enqueue(
        &mut self,
        inputs: &[Binding<'_>],
        outputs: &[Binding<'_>],
        _: *mut c_void,
    ) -> Result<()> {
        ENGINE_RUNS.fetch_add(1, SeqCst);
        self.device.synchronize()?;
        let mut given = Inputs::new();
        for tensor in inputs {
            assert_eq!(tensor.address % 256, 0, "{} is on no boundary that TensorRT wants", tensor.name);
            let count: usize = tensor.shape.iter().product();
            let mut bytes = vec![0; count * tensor.dtype.size()];
            // Vectors that only carry a size are not read.
            if !tensor.name.starts_with('n') {
                // SAFETY: the runtime vouches for the address, and the stream has been waited for.
                unsafe { self.device.read(tensor.address, &mut bytes)? }
            }
            let value = TensorData::new(tensor.dtype, tensor.shape.to_vec(), bytes);
            given.insert(tensor.name.to_owned(), value.expect("it has these bytes"));
        }
        let made = interp::run(&self.region.module, "region", &given)?;
        assert_eq!(made.outputs.len(), outputs.len());
        for (tensor, (_, value)) in outputs.iter().zip(made.outputs) {
            assert_eq!((tensor.dtype, tensor.shape), (value.dtype(), value.shape()));
            // SAFETY: as above.
            unsafe { self.device.write(tensor.address, value.bytes())? }
        }
        Ok(())
    }
}

/// An engine for every region of the entries that launch engines.
fn engines(plan: &Plan, module: &Module, refused: bool) -> Vec<EngineUnit> {
    let mut units = Vec::new();
    for (number, entry) in plan.entries.iter().enumerate() {
        for engine in entry.engines.iter().filter(|_| entry.granularity == Granularity::Engines) {
            units.push(unit((number, entry), engine, module, refused));
        }
    }
    units
}

fn unit((number, entry): (usize, &Entry), engine: &Engine, module: &Module, refused: bool) -> EngineUnit {
    let region = Region::of_engine(module, entry, engine).expect("a region");
    let value = |v: ValueRef| EngineValue::Value(v);
    let input = |source: &ArgumentSource| match source {
        ArgumentSource::Input(v) | ArgumentSource::Constant(v) => value(*v),
        ArgumentSource::Size(n) => EngineValue::Length(region.symbols[*n as usize].symbol.clone()),
    };
    let inputs = region.arguments.iter().map(|a| (a.name.to_string(), input(&a.source))).collect();
    let outputs = region.results.iter().enumerate().map(|(i, v)| (format!("o{i}"), value(*v))).collect();
    let load = move || -> Result<Box<dyn EngineExecution>> {
        if refused {
            return Err(unsupported("test.engine", "this GPU is refused"));
        }
        let device = Device::open(&Driver::load()?, 0)?;
        Ok(Box::new(Evaluated { region: region.clone(), device }))
    };
    let (kernel, key) = (engine.kernels[0].index(), format!("{number} {}", engine.number));
    EngineUnit { entry: number, kernel, key, inputs, outputs, load: Arc::new(load) }
}

#[test]
fn engines_run_in_the_places_of_their_regions() {
    emulated("engines_run_in_the_places_of_their_regions", 1, || {
        for name in ["bert", "llama_decode", "llama_staticcache"] {
            let planned = planned(name, 1, true);
            let units = engines(&planned.0, &planned.1, false);
            assert!(!units.is_empty(), "{name} has engine regions");
            let count = units.len();
            let mut runtime = start(&planned, 1, units);
            assert_eq!(runtime.kernels().engines, count);
            let before = ENGINE_RUNS.load(SeqCst);
            for turn in 0..3 {
                let output = run(&mut runtime, &inputs(&planned.1, turn));
                assert_eq!(planned.0.entries[output.entry].granularity, Granularity::Engines);
                assert!(!output.graph, "an engine that waits cannot be captured, and runs as it is");
            }
            assert!(ENGINE_RUNS.load(SeqCst) >= before + 3 * count);
        }
    });
}

#[test]
fn engines_that_are_refused_leave_the_kernels() {
    emulated("engines_that_are_refused_leave_the_kernels", 1, || {
        let planned = planned("llama_decode", 1, true);
        let mut runtime = start(&planned, 1, engines(&planned.0, &planned.1, true));
        let output = run(&mut runtime, &inputs(&planned.1, 0));
        assert_eq!(planned.0.entries[output.entry].granularity, Granularity::Kernels);
        assert_eq!(runtime.kernels().engines, 0);
        assert_eq!(runtime.kernels().problems.len(), 1, "one refusal is told once");
    });
}

#[test]
fn a_bundle_brings_its_kernels() {
    emulated("a_bundle_brings_its_kernels", 1, || {
        let (plan, module) = planned("bert", 1, false);
        let kernels = djinn::compile_kernels(&module, &plan, &[80, 90]).expect("compiles");
        assert!(kernels.problems.is_empty() && kernels.index.refused.is_empty(), "{kernels:?}");
        let (mut cuda, missing) = djinn::cuda_options(&kernels.parts(), &plan).expect("reads");
        assert!(missing.is_none(), "there are no engines to be missed");
        assert_eq!(cuda.ptx.iter().map(|(capability, _)| *capability).max(), Some(90));
        cuda.gpus = vec![0];
        // Nothing can be compiled here: all kernels must come from the parts.
        let planned = (plan, module);
        let mut runtime =
            Runtime::cuda(Arc::clone(&planned.0), Arc::clone(&planned.1), RunOptions::default(), cuda)
                .expect("it starts");
        assert_eq!(runtime.kernels().evaluated, 0);
        run(&mut runtime, &inputs(&planned.1, 0));
        let mut broken = kernels.parts();
        broken.remove("kernels/sm_90.0.ptx");
        let refused = djinn::cuda_options(&broken, &planned.0).expect_err("a file is missing");
        assert_eq!(refused.code, "kernels.format");
    });
}

#[test]
fn what_is_not_there_is_said() {
    let planned = planned("llama_decode", 1, false);
    if Driver::load().is_err() {
        let cuda = CudaOptions { gpus: vec![0], ..CudaOptions::default() };
        let (plan, module) = (Arc::clone(&planned.0), Arc::clone(&planned.1));
        let refused = Runtime::cuda(plan, module, RunOptions::default(), cuda).err().expect("no driver");
        assert_eq!(refused.code, "cuda.missing");
    }
    emulated("what_is_not_there_is_said", 1, || {
        let refusal = |gpus: Vec<usize>| {
            let cuda = CudaOptions { gpus, ..CudaOptions::default() };
            let (plan, module) = (Arc::clone(&planned.0), Arc::clone(&planned.1));
            Runtime::cuda(plan, module, RunOptions::default(), cuda).err().map(|e| e.code)
        };
        assert_eq!(refusal(vec![7]).as_deref(), Some("cuda.device"));
        assert_eq!(refusal(vec![]).as_deref(), Some("runtime.devices"));
        assert_eq!(refusal(vec![0, 0]).as_deref(), Some("runtime.devices"));
        assert_eq!(refusal(vec![0]), None);
    });
}
