//! Engines that are built while the plan runs without them: runs are counted, and what pays is built in the background.

use super::EngineRequest;
use super::how::How;
use super::stored;
use djinn_diag::{Diagnostic, Remark, RemarkKind, Result};
use djinn_engines::{
    Background, BuildContext, BuildError, CacheOptions, Decision, EngineCache, KeyDigest, Predicted, Status,
};
use djinn_ir::Module;
use djinn_ir::data::Bytes;
use djinn_plan::Plan;
use djinn_tensorrt::{Engine, Library, Region};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Threads that build: TensorRT builds of one process run one after the other.
const THREADS: usize = 1;
/// What building an engine takes, of which nothing is known.
const USUAL_BUILD: Duration = super::USUAL_BUILD;

type Build = dyn Fn(&How, &Region, &BuildContext) -> std::result::Result<Engine, BuildError> + Send + Sync;

/// The engine regions of a plan that runs without their engines.
///
/// Whoever runs the plan says so after each run; the runs of every distinct region are counted in the profile of the
/// cache of engines, which outlives the process, and when the policy finds that building pays, a thread builds the engine.
/// Results of runs do not depend on any of this. Dropping it gives up what is not built yet, and does not wait;
/// [`Lazy::finish`] waits.
///
/// Whole regions are built only. What TensorRT refuses is remembered; the next compilation finds the smaller regions.
pub struct Lazy {
    cache: Arc<EngineCache>,
    background: Option<Background>,
    build: Arc<Build>,
    policy: djinn_engines::Policy,
    /// Distinct regions of every entry.
    entries: Vec<Vec<KeyDigest>>,
    /// The key of every engine region, by entry and number.
    places: BTreeMap<(usize, u32), KeyDigest>,
    regions: BTreeMap<KeyDigest, Distinct>,
    warnings: Vec<Diagnostic>,
}

/// A region that may stand in several places.
struct Distinct {
    region: Arc<Region>,
    how: How,
    /// Share of the run time of each entry, and in how many places.
    shares: BTreeMap<usize, (f64, u64)>,
    /// Runs counted here.
    seen: u64,
    /// Runs after which the policy is asked again.
    ask_after: u64,
    state: State,
}

enum State {
    /// The cache was not asked.
    Unknown,
    Missing,
    Building,
    Ready(Bytes),
    Failed(Box<Diagnostic>),
}

impl Lazy {
    /// The regions of a plan, with engines of the TensorRT that is here.
    ///
    /// # Errors
    /// `tensorrt.*` if it is not here, and those of starting a thread.
    pub fn new(program: &Module, plan: &Plan, request: &EngineRequest) -> Result<Lazy> {
        let library = Library::load()?;
        let name = library.name();
        let build = move |how: &How, region: &Region, _: &BuildContext| {
            djinn_tensorrt::build(&library, region, &how.options).map_err(BuildError::from)
        };
        Lazy::with(program, plan, request, &name, Arc::new(build))
    }

    /// The same with a builder of one's own, of this name and version.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn with_builder(
        program: &Module,
        plan: &Plan,
        request: &EngineRequest,
        name: &str,
        build: impl Fn(&Region, &BuildContext) -> std::result::Result<Engine, BuildError> + Send + Sync + 'static,
    ) -> Result<Lazy> {
        let build = move |_: &How, region: &Region, context: &BuildContext| build(region, context);
        Lazy::with(program, plan, request, name, Arc::new(build))
    }

    fn with(
        program: &Module,
        plan: &Plan,
        request: &EngineRequest,
        name: &str,
        build: Arc<Build>,
    ) -> Result<Lazy> {
        let mut warnings = Vec::new();
        let options = CacheOptions::default();
        let cache = match &request.cache {
            None => EngineCache::without_folder(options),
            Some(folder) => EngineCache::open(folder, options).unwrap_or_else(|problem| {
                warnings.push(*problem);
                EngineCache::without_folder(options)
            }),
        };
        let cache = Arc::new(cache);
        let mut lazy = Lazy {
            background: Some(Background::new(Arc::clone(&cache), THREADS)?),
            cache,
            build,
            policy: request.policy,
            entries: Vec::new(),
            places: BTreeMap::new(),
            regions: BTreeMap::new(),
            warnings,
        };
        for number in 0..plan.entries.len() {
            lazy.add_entry(program, plan, request, number, name);
        }
        Ok(lazy)
    }

    fn add_entry(
        &mut self,
        program: &Module,
        plan: &Plan,
        request: &EngineRequest,
        number: usize,
        name: &str,
    ) {
        let entry = &plan.entries[number];
        let whole: f64 = entry.kernels.iter().map(|k| k.seconds).sum();
        for engine in &entry.engines {
            let device = plan.devices.get(engine.device.index());
            let Some(capability) = device.and_then(|d| request.capability(d)) else { continue };
            let how = How::new(name, capability, &request.precision);
            let region = Region::of_engine(program, entry, engine).and_then(|r| how.precision.apply(&r));
            let Ok(region) = region else { continue };
            let key = how.key(&region);
            self.places.insert((number, engine.number), key);
            let seconds = Duration::try_from_secs_f64(engine.seconds).unwrap_or_default();
            let cache = &self.cache;
            let distinct = self.regions.entry(key).or_insert_with(|| {
                let predicted = Predicted { build: USUAL_BUILD, fallback: seconds, engine: seconds / 2 };
                cache.predict(key, predicted);
                let (region, shares) = (Arc::new(region), BTreeMap::new());
                Distinct { region, how, shares, seen: 0, ask_after: 1, state: State::Unknown }
            });
            let share = if whole > 0.0 { (engine.seconds / whole).clamp(0.0, 1.0) } else { 0.0 };
            let (sum, places) = distinct.shares.entry(number).or_default();
            (*sum, *places) = (*sum + share, *places + 1);
        }
        let here = self.regions.iter().filter(|(_, r)| r.shares.contains_key(&number)).map(|(k, _)| *k);
        self.entries.push(here.collect());
    }

    /// Counts a run of an entry without engines that took so many seconds on the devices of the plan. Where the plan ran
    /// elsewhere, such as on the host, what it is predicted to take there.
    pub fn ran(&mut self, entry: usize, seconds: f64) {
        let Some(keys) = self.entries.get(entry).cloned() else { return };
        for key in keys {
            let Some(distinct) = self.regions.get_mut(&key) else { continue };
            let Some((share, places)) = distinct.shares.get(&entry).copied() else { continue };
            if matches!(distinct.state, State::Ready(_) | State::Failed(_)) {
                continue;
            }
            let time = Duration::try_from_secs_f64(seconds * share).unwrap_or_default();
            self.cache.ran_fallback(key, places, time);
            distinct.seen = distinct.seen.saturating_add(places);
            distinct.ask_after = distinct.ask_after.saturating_sub(places);
            if distinct.ask_after == 0 && !matches!(distinct.state, State::Building) {
                self.decide(key);
            }
        }
    }

    /// Asks the policy, and starts a build if it pays.
    fn decide(&mut self, key: KeyDigest) {
        let Some(distinct) = self.regions.get_mut(&key) else { return };
        if matches!(distinct.state, State::Unknown) {
            distinct.state = find(&self.cache, key, &distinct.region);
        }
        if !matches!(distinct.state, State::Missing) {
            return;
        }
        match self.cache.decide(key, self.policy) {
            Decision::Build => {
                let Some(background) = &self.background else { return };
                let (region, how) = (Arc::clone(&distinct.region), distinct.how.clone());
                let build = Arc::clone(&self.build);
                background.submit(key, move |context| {
                    stored::pack(&build(&how, &region, context)?).map_err(BuildError::from)
                });
                distinct.state = State::Building;
            }
            // What is measured may soon differ from what was predicted: the policy is also asked when runs have doubled.
            Decision::Wait { executions } => distinct.ask_after = executions.min(distinct.seen).max(1),
            Decision::Never(_) => distinct.ask_after = u64::MAX,
        }
    }

    /// The authenticated engine of a region, by the numbers of entry and engine region, if it is there. Never waits.
    pub fn ready(&mut self, entry: usize, engine: u32) -> Option<Bytes> {
        let key = *self.places.get(&(entry, engine))?;
        let distinct = self.regions.get_mut(&key)?;
        match &distinct.state {
            State::Unknown => distinct.state = find(&self.cache, key, &distinct.region),
            State::Building => {
                if let Some(background) = &self.background {
                    settle(distinct, background.poll(key));
                }
            }
            State::Missing | State::Ready(_) | State::Failed(_) => {}
        }
        match &distinct.state {
            State::Ready(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Waits for the builds that were started, and writes the counts. Tells of each build, and of how many runs the others
    /// wait for.
    pub fn finish(mut self) -> (Vec<Remark>, Vec<Diagnostic>) {
        let mut remarks = Vec::new();
        if let Some(background) = &self.background {
            for (key, distinct) in &mut self.regions {
                if matches!(distinct.state, State::Building) {
                    settle(distinct, background.wait(*key));
                    remarks.push(told(*key, distinct));
                }
            }
        }
        self.cache.flush();
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.cache.take_warnings());
        (remarks, warnings)
    }

    /// How many distinct regions there are, and how many engines are still to come before all have theirs.
    pub fn counts(&self) -> (usize, usize) {
        let missing = |d: &&Distinct| !matches!(d.state, State::Ready(_));
        (self.regions.len(), self.regions.values().filter(missing).count())
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        if let Some(background) = self.background.take() {
            background.abandon();
        }
        self.cache.flush();
    }
}

/// What the cache has.
fn find(cache: &EngineCache, key: KeyDigest, region: &Region) -> State {
    let engine = cache.get(key).and_then(|bytes| stored::unpack(&bytes, region).ok());
    engine.map_or(State::Missing, |engine| State::Ready(engine.bytes.into()))
}

fn settle(distinct: &mut Distinct, status: Status) {
    distinct.state = match status {
        Status::Ready(bytes) => match stored::unpack(&bytes, &distinct.region) {
            Ok(engine) => State::Ready(engine.bytes.into()),
            Err(problem) => State::Failed(problem),
        },
        Status::Failed(problem) => State::Failed(problem),
        Status::Unknown => State::Missing,
        Status::Queued | Status::Building | Status::Elsewhere => State::Building,
    };
}

fn told(key: KeyDigest, distinct: &Distinct) -> Remark {
    let places: u64 = distinct.shares.values().map(|(_, places)| places).sum();
    let kernels = distinct.region.kernels.len();
    let (kind, rule, message) = match &distinct.state {
        State::Failed(problem) => {
            (RemarkKind::Missed, "refused", format!("no engine holds it: {}", problem.message))
        }
        _ => (
            RemarkKind::Applied,
            "built",
            format!(
                "an engine was built for {kernels} kernels in {places} places: its runs have paid for it"
            ),
        ),
    };
    Remark {
        kind,
        pass: "engines".into(),
        rule: rule.into(),
        place: format!("engine {}", key.short()),
        message,
    }
}
