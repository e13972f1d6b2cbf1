//! TensorRT engines for the engine regions of a plan: found in the cache of engines or built, listed for a bundle.

mod index;
mod stored;

pub use index::{EngineBinding, EngineIndex, EngineRefusal, EngineSource, EngineUse};

use djinn_device::{Profile, Target};
use djinn_diag::{Diagnostic, Remark, Result};
use djinn_engines::{
    BuildError, CacheOptions, Capability, Decision, EngineCache, EngineKey, KeyDigest, Policy, Predicted, Why,
};
use djinn_ir::Module;
use djinn_ir::data::Bytes;
use djinn_plan::{Device, Entry, Plan};
use djinn_tensorrt::{ArgumentSource, BuildOptions, Engine, Library, Outcome, Precision, Region};
use index::{INDEX, VERSION};
use std::cell::OnceCell;
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
    /// CUDA compute capability by name of device profile; devices of other profiles get no engines.
    pub capabilities: BTreeMap<String, u32>,
}

impl EngineRequest {
    /// Engines for the devices of a target, built at once, as precise as the program, without a cache.
    pub fn new(target: &Target) -> EngineRequest {
        let profiles = target.topology.devices().iter().map(|d| &*d.profile);
        EngineRequest {
            policy: Policy::Eager,
            cache: None,
            precision: Precision::keep(),
            capabilities: profiles.filter_map(capability).collect(),
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
    for (number, entry) in plan.entries.iter().enumerate() {
        for engine in &entry.engines {
            let device = plan.devices.get(engine.device.index());
            if let Some(capability) = device.and_then(|d| request.capability(d)) {
                work.engine(number, engine, capability)?;
            }
        }
    }
    Ok(work.finish())
}

/// The compilation of the engines of one plan.
struct Work<'a> {
    program: &'a Module,
    plan: &'a Plan,
    request: &'a EngineRequest,
    cache: EngineCache,
    library: LazyLibrary,
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
        Work { program, plan, request, cache, library: LazyLibrary::default(), out }
    }

    fn engine(&mut self, number: usize, engine: &djinn_plan::Engine, capability: u32) -> Result<()> {
        let entry = &self.plan.entries[number];
        let how = How {
            library: self.library.get()?.clone(),
            options: BuildOptions {
                compute_capabilities: Some(capability)
                    .filter(|c| djinn_tensorrt::builds_for(*c))
                    .into_iter()
                    .collect(),
                ..BuildOptions::default()
            },
            precision: self.request.precision.clone(),
        };
        if let Some(why) = self.not_now(entry, engine, &how) {
            self.refuse(number, engine.number, engine.kernels.iter().map(|k| k.0).collect(), why);
            return Ok(());
        }
        let (cache, program) = (&self.cache, self.program);
        let mut build_one = |region: &Region| {
            let made = cache.get_or_build(how.key(region), |_| {
                let built = djinn_tensorrt::build(&how.library, region, &how.options)?;
                stored::pack(&built).map_err(BuildError::from)
            })?;
            stored::unpack(&made, region)
        };
        let outcomes = djinn_tensorrt::build_or_split(program, entry, engine, &how.precision, &mut build_one);
        self.out.index.library = how.library.name();
        for outcome in outcomes {
            self.out.remarks.extend(outcome.remark(&entry.function));
            match outcome {
                Outcome::Refused { kernels, reason, .. } => {
                    let kernels = kernels.iter().map(|k| k.0).collect();
                    self.refuse(number, engine.number, kernels, reason.message);
                }
                Outcome::Built { region, engine: built } => {
                    self.place((number, engine.number), capability, how.key(&region), &region, built);
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

    fn place(&mut self, at: (usize, u32), capability: u32, key: KeyDigest, region: &Region, built: Engine) {
        let file = format!("{FOLDER}/{key}.engine");
        let outputs = built.outputs.iter().zip(&region.results);
        let inputs = built.inputs.iter().filter_map(|port| {
            let argument = region.arguments.iter().find(|a| *a.name == *port.name)?;
            let source = match argument.source {
                ArgumentSource::Input(value) | ArgumentSource::Constant(value) => EngineSource::Value(value),
                ArgumentSource::Size(n) => {
                    EngineSource::Length(region.symbols.get(n as usize)?.symbol.clone())
                }
            };
            Some(EngineBinding { name: port.name.clone(), source })
        });
        self.out.index.uses.push(EngineUse {
            entry: at.0 as u32,
            engine: at.1,
            kernels: region.kernels.iter().map(|k| k.0).collect(),
            file: file.clone(),
            capability,
            inputs: inputs.collect(),
            outputs: outputs
                .map(|(port, v)| EngineBinding { name: port.name.clone(), source: EngineSource::Value(*v) })
                .collect(),
            layers: u32::try_from(built.layers.len()).unwrap_or(u32::MAX),
        });
        self.out.files.entry(file).or_insert_with(|| built.bytes.into());
    }

    fn finish(mut self) -> Engines {
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

/// How the engines of one device are built.
struct How {
    library: Library,
    options: BuildOptions,
    precision: Precision,
}

impl How {
    /// What an engine depends on.
    fn key(&self, region: &Region) -> KeyDigest {
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&region.key().0);
        let capabilities = self.options.compute_capabilities.iter();
        let named = self.library.name();
        let (name, version) = named.split_once(' ').unwrap_or((&named, ""));
        EngineKey {
            region: hash,
            weights: None,
            library: name.to_owned(),
            version: version.to_owned(),
            platform: EngineKey::this_platform(),
            capabilities: capabilities.map(|c| Capability { major: c / 10, minor: c % 10 }).collect(),
            precision: self.precision.name(),
            // The sizes are part of the region.
            profiles: Vec::new(),
            options: BTreeMap::from([
                ("builder".to_owned(), self.options.name()),
                // Another build may make other layers of the same region.
                ("djinn".to_owned(), env!("DJINN_BUILD").to_owned()),
            ]),
        }
        .digest()
    }
}

/// TensorRT, loaded when it is needed.
#[derive(Default)]
struct LazyLibrary(OnceCell<Library>);

impl LazyLibrary {
    fn get(&self) -> Result<&Library> {
        match self.0.get() {
            Some(library) => Ok(library),
            None => Library::load().map(|library| self.0.get_or_init(|| library)),
        }
    }
}
