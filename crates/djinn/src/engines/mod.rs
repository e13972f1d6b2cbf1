//! TensorRT engines for the engine regions of a plan: found in the cache of engines or built, listed for a bundle.

mod accuracy;
mod how;
mod index;
mod layers;
mod lazy;
mod stored;

pub use index::{EngineBinding, EngineIndex, EngineRefusal, EngineSource, EngineUse};
pub use layers::built_engines;
pub use lazy::Lazy;

use accuracy::{Accuracies, Accuracy};
use djinn_device::{Profile, Target};
use djinn_diag::{Diagnostic, Remark, RemarkKind, Result};
use djinn_engines::{CacheOptions, Decision, EngineCache, Policy, Predicted, Why};
use djinn_ir::data::Bytes;
use djinn_ir::{Module, TensorData};
use djinn_plan::{Device, Entry, Granularity, Plan};
use djinn_tensorrt::{ArgumentSource, Engine, Outcome, Precision, Region};
use how::{How, LazyLibrary};
use index::{INDEX, VERSION};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What building an engine takes, of which nothing is known: regions of one transformer layer take 0.1 to 1 s.
const USUAL_BUILD: Duration = Duration::from_secs(1);
/// The folder of engines in a bundle.
const FOLDER: &str = "engines";

/// What engines are made, and where they are kept.
#[derive(Debug, Clone)]
pub struct EngineRequest {
    /// When building pays.
    pub policy: Policy,
    /// Folder of the cache of engines; without one, engines are built anew.
    pub cache: Option<PathBuf>,
    /// Element types inside engines.
    pub precision: Precision,
    /// Regions whose results would be further off than this, relative to the largest value of each result, keep the
    /// program's element types, as do those that cannot be measured.
    pub max_error: Option<f64>,
    /// Inputs by name that errors are measured on; random ones if there are none.
    pub samples: BTreeMap<String, TensorData>,
    /// CUDA compute capability by name of device profile; devices of other profiles get no engines.
    pub capabilities: BTreeMap<String, u32>,
}

impl EngineRequest {
    /// Engines for the devices of a target, built at once, as precise as the program, without a cache.
    pub fn new(target: &Target) -> EngineRequest {
        let profiles = target.topology.devices().iter().map(|d| &*d.profile);
        EngineRequest::with(profiles.filter_map(capability).collect())
    }

    /// The same for the devices of a plan, as far as their profiles are built in.
    pub fn of_plan(plan: &Plan) -> EngineRequest {
        let profiles = plan.devices.iter().filter_map(|d| Profile::named(&d.profile).ok());
        EngineRequest::with(profiles.filter_map(capability).collect())
    }

    fn with(capabilities: BTreeMap<String, u32>) -> EngineRequest {
        EngineRequest {
            policy: Policy::Eager,
            cache: None,
            precision: Precision::keep(),
            max_error: None,
            samples: BTreeMap::new(),
            capabilities,
        }
    }

    fn capability(&self, device: &Device) -> Option<u32> {
        self.capabilities.get(&device.profile).copied().filter(|_| !device.host)
    }
}

fn capability(profile: &Profile) -> Option<(String, u32)> {
    profile.compute_capability.map(|capability| (profile.name.clone(), capability))
}

/// The engines of a plan.
#[derive(Debug, Clone, Default)]
pub struct Engines {
    /// What there is and where it belongs.
    pub index: EngineIndex,
    /// Bytes by name of file, see [`EngineUse::file`].
    pub files: BTreeMap<String, Bytes>,
    /// Lists of layers by name of file, see [`EngineUse::layer_file`].
    pub layers: BTreeMap<String, Bytes>,
    /// Engines that were built now.
    pub built: usize,
    /// Engines that were found in the cache.
    pub found: usize,
    /// What was refused and why, what was found out.
    pub remarks: Vec<Remark>,
    /// What went wrong without harm.
    pub warnings: Vec<Diagnostic>,
}

impl Engines {
    /// The files of a bundle: the engines and their list; none if there is nothing to list.
    pub fn parts(&self) -> BTreeMap<String, Bytes> {
        let mut parts = self.files.clone();
        parts.extend(self.layers.clone());
        if self.index != EngineIndex::default() {
            let text = serde_json::to_string_pretty(&self.index).unwrap_or_default() + "\n";
            parts.insert(INDEX.to_owned(), text.into_bytes().into());
        }
        parts
    }
}

/// Finds or builds the engines of a plan. Regions for which there is none stay kernels, with a remark.
///
/// # Errors
/// `tensorrt.*` if TensorRT is needed and is not there.
pub fn compile_engines(program: &Module, plan: &Plan, request: &EngineRequest) -> Result<Engines> {
    let mut work = Work::new(program, plan, request);
    if request.policy == Policy::Never {
        return Ok(work.out);
    }
    for (number, entry) in plan.entries.iter().enumerate().filter(|(_, e)| !has_sibling(plan, e)) {
        for engine in &entry.engines {
            let device = plan.devices.get(engine.device.index());
            if let Some(capability) = device.and_then(|d| request.capability(d)) {
                work.engine(number, engine, capability)?;
            }
        }
    }
    Ok(work.finish())
}

/// Is there another entry for the same sizes whose launches are whole regions? Then engines are launched there.
pub(crate) fn has_sibling(plan: &Plan, entry: &Entry) -> bool {
    entry.granularity == Granularity::Kernels
        && plan
            .entries
            .iter()
            .any(|other| other.granularity == Granularity::Engines && other.is_for_same(entry))
}

/// The compilation of the engines of one plan.
struct Work<'a> {
    program: &'a Module,
    plan: &'a Plan,
    request: &'a EngineRequest,
    cache: EngineCache,
    library: LazyLibrary,
    accuracies: Accuracies<'a>,
    out: Engines,
}

impl<'a> Work<'a> {
    fn new(program: &'a Module, plan: &'a Plan, request: &'a EngineRequest) -> Work<'a> {
        let options = CacheOptions::default();
        let mut out = Engines::default();
        let cache = match &request.cache {
            None => EngineCache::without_folder(options),
            Some(folder) => EngineCache::open(folder, options).unwrap_or_else(|problem| {
                out.warnings.push(*problem);
                EngineCache::without_folder(options)
            }),
        };
        let accuracies = Accuracies::new(program, request);
        Work { program, plan, request, cache, library: LazyLibrary::default(), accuracies, out }
    }

    fn engine(&mut self, number: usize, engine: &djinn_plan::Engine, capability: u32) -> Result<()> {
        let entry = &self.plan.entries[number];
        let library = self.library.get()?.clone();
        let (precision, error) = self.precision(entry, engine);
        let how = How::new(&library.name(), capability, &precision);
        if let Some(why) = self.not_now(entry, engine, &how) {
            self.refuse(number, engine.number, engine.kernels.iter().map(|k| k.0).collect(), why);
            return Ok(());
        }
        let (cache, program) = (&self.cache, self.program);
        let mut build_one = |region: &Region| {
            let made = cache.get_or_build(how.key(region), |_| how.build(&library, region))?;
            stored::unpack(&made, region)
        };
        let outcomes = djinn_tensorrt::build_or_split(program, entry, engine, &how.precision, &mut build_one);
        self.out.index.library = library.name();
        for outcome in outcomes {
            self.out.remarks.extend(outcome.remark(&entry.function));
            match outcome {
                Outcome::Refused { kernels, reason, .. } => {
                    let kernels = kernels.iter().map(|k| k.0).collect();
                    self.refuse(number, engine.number, kernels, reason.message);
                }
                Outcome::Built { region, engine: built } => {
                    let file = format!("{FOLDER}/{}.engine", how.key(&region));
                    let place = place(
                        (number, engine.number),
                        (capability, &precision, error),
                        file,
                        &region,
                        &built,
                    );
                    self.add(place, built);
                }
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Why a region is not to be built now.
    fn not_now(&self, entry: &Entry, engine: &djinn_plan::Engine, how: &How) -> Option<String> {
        if self.request.policy == Policy::Eager {
            return None;
        }
        let region =
            Region::of_engine(self.program, entry, engine).and_then(|r| how.precision.apply(&r)).ok()?;
        let key = how.key(&region);
        if self.cache.contains(key) {
            return None;
        }
        // An engine of which nothing is known is guessed twice as fast as its kernels.
        let fallback = Duration::try_from_secs_f64(engine.seconds).unwrap_or_default();
        self.cache.predict(key, Predicted { build: USUAL_BUILD, fallback, engine: fallback / 2 });
        match self.cache.decide(key, self.request.policy) {
            // What of it can be built is found by trying smaller regions.
            Decision::Build | Decision::Never(Why::Refused(_)) => None,
            Decision::Wait { executions } => {
                Some(format!("building pays after {executions} further executions"))
            }
            Decision::Never(Why::Slower) => Some("it was not faster than its kernels".into()),
            Decision::Never(Why::Policy) => Some("engines are not wanted".into()),
        }
    }

    fn refuse(&mut self, entry: usize, engine: u32, kernels: Vec<u32>, reason: String) {
        self.out.index.refused.push(EngineRefusal { entry: entry as u32, engine, kernels, reason });
    }

    /// The element types of a region, and the error that they bring if it was measured: those asked for, unless the error
    /// is too large.
    fn precision(&mut self, entry: &Entry, engine: &djinn_plan::Engine) -> (Precision, Option<f64>) {
        let asked = self.request.precision.clone();
        if asked == Precision::keep() {
            return (asked, None);
        }
        let Ok(region) = Region::of_engine(self.program, entry, engine) else { return (asked, None) };
        let (accuracy, most) = (self.accuracies.of(entry, &region, &asked), self.request.max_error);
        let (kept, rule, message) = match (accuracy, most) {
            (Accuracy::Exact, _) => return (asked, None),
            (Accuracy::Error(error), Some(most)) if error > most => {
                let message = format!(
                    "it keeps its element types: with {} its results are off by {error:.1e}, more than {most:.1e}",
                    asked.name()
                );
                (true, "precision", message)
            }
            (Accuracy::Error(error), _) => return (asked, Some(error)),
            (Accuracy::Unknown(why), Some(_)) => {
                (true, "unmeasured", format!("it keeps its element types: its error is not known, {why}"))
            }
            (Accuracy::Unknown(why), None) => {
                (false, "unmeasured", format!("the error of {} is not known: {why}", asked.name()))
            }
        };
        let place = format!("{}, engine region {}", entry.function, engine.number);
        let (kind, pass, rule) = (RemarkKind::Missed, "engines".into(), rule.into());
        self.out.remarks.push(Remark { kind, pass, rule, place, message });
        (if kept { Precision::keep() } else { asked }, None)
    }

    /// Notes an engine in its place, and its files.
    fn add(&mut self, place: EngineUse, built: Engine) {
        self.out.layers.entry(place.layer_file()).or_insert_with(|| layers::to_json(&built.layers));
        self.out.files.entry(place.file.clone()).or_insert_with(|| built.bytes.into());
        self.out.index.uses.push(place);
    }

    fn finish(mut self) -> Engines {
        if self.accuracies.random_instead {
            let message = "errors were measured on random inputs: the evaluator does not run the program on the given ones";
            let (kind, pass, rule) = (RemarkKind::Missed, "engines".into(), "samples".into());
            let place = String::from("the program");
            self.out.remarks.push(Remark { kind, pass, rule, place, message: message.into() });
        }
        let statistics = self.cache.statistics();
        self.out.built = statistics.builds as usize;
        self.out.found = statistics.hits as usize;
        self.out.remarks.extend(self.cache.take_remarks());
        self.out.warnings.extend(self.cache.take_warnings());
        self.out.index.version = VERSION;
        self.out.index.precision = self.request.precision.name();
        self.out
    }
}

/// An engine in the place of a region.
fn place(
    (entry, number): (usize, u32),
    (capability, precision, error): (u32, &Precision, Option<f64>),
    file: String,
    region: &Region,
    built: &Engine,
) -> EngineUse {
    let outputs = built.outputs.iter().zip(&region.results);
    let inputs = built.inputs.iter().filter_map(|port| {
        let argument = region.arguments.iter().find(|a| *a.name == *port.name)?;
        let source = match argument.source {
            ArgumentSource::Input(value) | ArgumentSource::Constant(value) => EngineSource::Value(value),
            ArgumentSource::Size(n) => EngineSource::Length(region.symbols.get(n as usize)?.symbol.clone()),
        };
        Some(EngineBinding { name: port.name.clone(), source })
    });
    EngineUse {
        entry: entry as u32,
        engine: number,
        kernels: region.kernels.iter().map(|k| k.0).collect(),
        file,
        capability,
        inputs: inputs.collect(),
        outputs: outputs
            .map(|(port, v)| EngineBinding { name: port.name.clone(), source: EngineSource::Value(*v) })
            .collect(),
        layers: u32::try_from(built.layers.len()).unwrap_or(u32::MAX),
        operations: (0..region.len()).filter_map(|n| region.origin(n)).collect(),
        precision: precision.name(),
        error,
    }
}
