//! TensorRT engines for the engine regions of a plan: found in the cache of engines or built, listed for a bundle.

use djinn_device::{Profile, Target};
use djinn_diag::{Diagnostic, Remark, Result};
use djinn_engines::{
    BuildError, CacheOptions, Capability, Decision, EngineCache, EngineKey, KeyDigest, Policy, Predicted, Why,
};
use djinn_ir::Module;
use djinn_ir::data::Bytes;
use djinn_plan::{Device, Entry, Plan, ValueRef};
use djinn_tensorrt::{
    ArgumentSource, BuildOptions, Engine, Layer, Library, Outcome, Port, Precision, Region,
};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Version of [`EngineIndex`].
const VERSION: u32 = 1;
/// What building an engine takes, of which nothing is known: regions of one transformer layer take 0.1 to 1 s.
const USUAL_BUILD: Duration = Duration::from_secs(1);
/// The part of a bundle that lists its engines.
const INDEX: &str = "engines.json";
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

/// The list of engines in a bundle (`engines.json`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineIndex {
    version: u32,
    /// Name and version of the library that built them, empty if nothing was built.
    pub library: String,
    /// Element types inside engines.
    pub precision: String,
    /// Every place where an engine runs, in the order of entries and engine regions.
    pub uses: Vec<EngineUse>,
    /// Engine regions, or parts of them, that stay kernels.
    pub refused: Vec<EngineRefusal>,
}

/// An engine in the place of some kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineUse {
    /// Number of the entry.
    pub entry: u32,
    /// Number of the engine region in the entry.
    pub engine: u32,
    /// Kernels that it stands for, in an order in which they can run.
    pub kernels: Vec<u32>,
    /// The file in the bundle.
    pub file: String,
    /// Compute capability that it is for, 90 for 9.0. Where the builder does not know it by name, the engine holds what
    /// every GPU needs, and is compiled to the end on the GPU that loads it.
    pub capability: u32,
    /// What is bound to its inputs, by name in the engine.
    pub inputs: Vec<EngineBinding>,
    /// What its outputs are.
    pub outputs: Vec<EngineBinding>,
    /// Number of layers of the network that it was built from.
    pub layers: u32,
}

/// An input or output of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineBinding {
    /// Name in the engine.
    pub name: String,
    /// What it is.
    pub source: EngineSource,
}

/// What is bound to an input of an engine, or what an output is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineSource {
    /// A value of the entry function.
    Value(ValueRef),
    /// Any vector as long as this symbol of the entry; its elements are not read.
    Length(String),
}

/// Kernels of an engine region that are in no engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRefusal {
    /// Number of the entry.
    pub entry: u32,
    /// Number of the engine region in the entry.
    pub engine: u32,
    /// The kernels.
    pub kernels: Vec<u32>,
    /// Why.
    pub reason: String,
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

    /// The list of a bundle, if it has one.
    ///
    /// # Errors
    /// `engines.format` if it is malformed, or names files that are not there or things that the plan does not have.
    pub fn index_of(parts: &BTreeMap<String, Bytes>, plan: &Plan) -> Result<Option<EngineIndex>> {
        let Some(bytes) = parts.get(INDEX) else { return Ok(None) };
        let malformed =
            |what: String| djinn_diag::input("engines.format", what).at(INDEX).help("write the bundle again");
        let index: EngineIndex =
            serde_json::from_slice(bytes.as_slice()).map_err(|e| malformed(e.to_string()))?;
        if index.version != VERSION {
            return Err(malformed(format!("version {}, this is {VERSION}", index.version)));
        }
        for place in &index.uses {
            let entry = plan.entries.get(place.entry as usize);
            let region = entry.and_then(|e| e.engines.iter().find(|x| x.number == place.engine));
            let known =
                region.is_some_and(|r| place.kernels.iter().all(|k| r.kernels.iter().any(|x| x.0 == *k)));
            if !known || !parts.contains_key(&place.file) {
                return Err(malformed(format!("'{}' has no place in the plan or is not there", place.file)));
            }
        }
        Ok(Some(index))
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

/// How engines stand in the cache: what is known of them, then their bytes.
mod stored {
    use super::{Deserialize, Engine, Layer, Port, Region, Result, Serialize};
    use djinn_diag::{Diagnostic, internal};

    #[derive(Serialize, Deserialize)]
    struct Head {
        inputs: Vec<String>,
        outputs: Vec<String>,
        /// Name, kind and result of each layer.
        layers: Vec<[String; 3]>,
    }

    fn malformed(what: &str) -> Box<Diagnostic> {
        internal("engines.stored", format!("a stored engine is malformed: {what}"))
    }

    /// The length of the head in 8 bytes (little-endian), the head in JSON, the engine.
    pub(super) fn pack(engine: &Engine) -> Result<Vec<u8>> {
        let names = |ports: &[Port]| ports.iter().map(|p| p.name.clone()).collect();
        let layer = |l: &Layer| [l.name.clone(), l.kind.clone(), l.result.clone()];
        let head = Head {
            inputs: names(&engine.inputs),
            outputs: names(&engine.outputs),
            layers: engine.layers.iter().map(layer).collect(),
        };
        let head = serde_json::to_vec(&head).map_err(|e| malformed(&e.to_string()))?;
        let mut all = (head.len() as u64).to_le_bytes().to_vec();
        all.extend(head);
        all.extend(&engine.bytes);
        Ok(all)
    }

    /// The engine of a region.
    pub(super) fn unpack(bytes: &[u8], region: &Region) -> Result<Engine> {
        let (len, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| malformed("no head"))?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok().filter(|len| *len <= rest.len());
        let (head, engine) = rest.split_at(len.ok_or_else(|| malformed("a head beyond its end"))?);
        let head: Head = serde_json::from_slice(head).map_err(|e| malformed(&e.to_string()))?;
        let graph = region.graph();
        let arguments = region.arguments.iter().zip(&graph.arguments);
        let types = arguments.map(|(a, v)| (a.name.to_string(), graph.ty(*v).clone()));
        let results = graph.results.iter().enumerate().map(|(i, v)| (format!("o{i}"), graph.ty(*v).clone()));
        let types: std::collections::BTreeMap<_, _> = types.chain(results).collect();
        let ports = |names: Vec<String>| -> Result<Vec<Port>> {
            let port = |name: String| {
                let ty = types
                    .get(&name)
                    .cloned()
                    .ok_or_else(|| malformed("a port that the region does not have"))?;
                Ok(Port { name, ty })
            };
            names.into_iter().map(port).collect()
        };
        let layers = head.layers.into_iter().map(|[name, kind, result]| Layer { name, kind, result });
        Ok(Engine {
            bytes: engine.to_vec(),
            inputs: ports(head.inputs)?,
            outputs: ports(head.outputs)?,
            layers: layers.collect(),
            messages: Vec::new(),
        })
    }
}
