//! `djinn-harness engines-growth`: engines of a 256-wide Llama of 2 to 16 layers, distinct regions built once beside one
//! engine of the whole graph, in the same run.
//!
//! The model is put together here, layer by layer with weights of their own, as an exporter would write it.

use crate::table::Table;
use djinn::PlanRequest;
use djinn::device::{Profile, Target};
use djinn::diag::Result;
use djinn::ir::{Attrs, DType, Module, OpKind, TensorData, TensorType, Weight, attrs};
use djinn::plan_data::{Engine, Entry, KernelId, Plan};
use djinn::srg::{Origin, SrgBuilder, SrgValue};
use djinn_tensorrt::{BuildOptions, Library, Region, build};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

const WIDTH: i64 = 256;
const HEADS: i64 = 4;
const KV_HEADS: i64 = 2;
const HEAD_WIDTH: i64 = 64;
const FEED_FORWARD: i64 = 688;
const VOCABULARY: i64 = 512;
const LENGTH: i64 = 64;
const EPSILON: f64 = 1e-5;

/// Build time and bytes of all numbers of layers must lie within this of each other.
const FLAT: f64 = 0.2;

/// At the most layers, one engine of everything takes this many times as long and as many bytes.
const FACTOR: f64 = 4.0;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of layers
    #[arg(long, value_delimiter = ',', default_value = "2,4,8,16")]
    layers: Vec<usize>,
    /// Builds of each kind, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// One row.
#[derive(Debug, Clone, Copy)]
struct Row {
    layers: usize,
    regions: usize,
    distinct: usize,
    seconds: f64,
    bytes: usize,
    whole_seconds: f64,
    whole_bytes: usize,
}

/// Builds and compares; gives false if growth or factor miss their marks.
pub(crate) fn main(args: &Args) -> std::result::Result<bool, String> {
    let library = match Library::load() {
        Ok(library) => library,
        Err(missing) => {
            println!("engines-growth: skipped: {missing}");
            return Ok(true);
        }
    };
    let rows: Result<Vec<Row>> = args.layers.iter().map(|n| row(&library, *n, args.rounds)).collect();
    let rows = rows.map_err(|e| e.to_string())?;
    let mut t = Table::new(&[
        ">layers",
        ">regions",
        ">distinct",
        ">build s",
        ">bytes",
        ">one engine, s",
        ">one engine, bytes",
        ">times faster",
        ">times smaller",
    ]);
    for r in &rows {
        t.row(vec![
            r.layers.to_string(),
            r.regions.to_string(),
            r.distinct.to_string(),
            format!("{:.3}", r.seconds),
            r.bytes.to_string(),
            format!("{:.3}", r.whole_seconds),
            r.whole_bytes.to_string(),
            format!("{:.2}", r.whole_seconds / r.seconds),
            format!("{:.2}", r.whole_bytes as f64 / r.bytes as f64),
        ]);
    }
    let (ok, verdict) = judge(&rows);
    println!("{}{verdict}", t.render());
    if let Some(path) = &args.table {
        let text = format!("{}{verdict}\n", t.render());
        djinn::write_atomically(path, &mut |out| out.write_all(text.as_bytes()))
            .map_err(|e| e.to_string())?;
    }
    Ok(ok)
}

fn judge(rows: &[Row]) -> (bool, String) {
    let spread = |of: fn(&Row) -> f64| {
        let all = rows.iter().map(of);
        let (least, most) = all.fold((f64::MAX, 0f64), |(a, b), v| (a.min(v), b.max(v)));
        if least > 0.0 { most / least - 1.0 } else { 0.0 }
    };
    let (seconds, bytes) = (spread(|r| r.seconds), spread(|r| r.bytes as f64));
    let Some(last) = rows.last() else { return (true, "no layers".into()) };
    let faster = last.whole_seconds / last.seconds;
    let smaller = last.whole_bytes as f64 / last.bytes as f64;
    let ok = seconds <= FLAT && bytes <= FLAT && faster >= FACTOR && smaller >= FACTOR;
    let text = format!(
        "engines-growth: build time within {:.0} %, bytes within {:.0} %; at {} layers {faster:.1} times faster and {smaller:.1} \
         times smaller than one engine",
        seconds * 100.0,
        bytes * 100.0,
        last.layers
    );
    (ok, text)
}

fn row(library: &Library, layers: usize, rounds: usize) -> Result<Row> {
    let mut module = llama(layers)?;
    let profile = Profile::builtin("h200");
    let profile = profile.ok_or_else(|| djinn::diag::internal("bench", "there is no profile of h200"))?;
    let plan = djinn::plan(&mut module, &PlanRequest::new(Target::single(profile)), None)?.plan;
    let parts = parts(&module, &plan)?;
    let mut distinct: BTreeMap<_, &Region> = BTreeMap::new();
    parts.iter().for_each(|r| {
        distinct.entry(r.key()).or_insert(r);
    });
    let whole = whole(&module, &plan)?;
    let options = BuildOptions::default();
    let mut row = Row {
        layers,
        regions: parts.len(),
        distinct: distinct.len(),
        seconds: f64::MAX,
        bytes: 0,
        whole_seconds: f64::MAX,
        whole_bytes: 0,
    };
    for _ in 0..rounds.max(1) {
        let begin = Instant::now();
        row.bytes = built(library, distinct.values().copied(), &options)?;
        row.seconds = row.seconds.min(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        row.whole_bytes = built(library, &whole, &options)?;
        row.bytes =
            distinct.values().map(|r| Ok(build(library, r, &options)?.bytes.len())).sum::<Result<_>>()?;
        row.whole_bytes =
            whole.iter().map(|r| Ok(build(library, r, &options)?.bytes.len())).sum::<Result<_>>()?;
        row.whole_seconds = row.whole_seconds.min(begin.elapsed().as_secs_f64());
    }
    Ok(row)
}

/// Builds engines; gives their bytes.
fn built<'a>(
    library: &Library,
    regions: impl IntoIterator<Item = &'a Region>,
    options: &BuildOptions,
) -> Result<usize> {
    let mut bytes = 0;
    for region in regions {
        bytes += build(library, region, options)?.bytes.len();
    }
    Ok(bytes)
}

/// The engine regions of the plan, cut where layers begin if the plan does not do so itself.
fn parts(module: &Module, plan: &Plan) -> Result<Vec<Region>> {
    let mut regions = Vec::new();
    for entry in &plan.entries {
        for engine in &entry.engines {
            for kernels in cut(module, entry, engine) {
                regions.push(Region::of_kernels(module, entry, engine, &kernels)?);
            }
        }
    }
    Ok(regions)
}

fn cut(module: &Module, entry: &Entry, engine: &Engine) -> Vec<Vec<KernelId>> {
    let Some(function) = module.function(&entry.function) else { return Vec::new() };
    let ops: Vec<_> = function.graph.ops().map(|(_, op)| op).collect();
    let layer = |k: &KernelId| {
        let scopes =
            entry.kernels[k.index()].ops.iter().filter_map(|op| ops[*op as usize].location.scope.as_deref());
        scopes.map(|s| s.split('.').take(2).collect::<Vec<_>>().join(".")).next_back()
    };
    let mut parts: Vec<(Option<String>, Vec<KernelId>)> = Vec::new();
    for kernel in &engine.kernels {
        let layer = layer(kernel);
        match parts.last_mut() {
            Some((last, kernels)) if layer.is_none() || *last == layer => kernels.push(*kernel),
            _ => parts.push((layer, vec![*kernel])),
        }
    }
    parts.into_iter().map(|(_, kernels)| kernels).collect()
}

/// One region for everything that engines hold.
fn whole(module: &Module, plan: &Plan) -> Result<Vec<Region>> {
    let mut regions = Vec::new();
    for entry in &plan.entries {
        let mut all = Engine { kernels: Vec::new(), ops: Vec::new(), outputs: Vec::new(), ..blank(entry) };
        for engine in &entry.engines {
            all.kernels.extend(&engine.kernels);
            all.ops.extend(&engine.ops);
        }
        all.kernels.sort();
        all.ops.sort_unstable();
        all.outputs = entry.outputs.iter().map(|p| p.value).collect();
        regions.push(Region::of_engine(module, entry, &all)?);
    }
    Ok(regions)
}

fn blank(entry: &Entry) -> Engine {
    let first = entry.engines.first().cloned();
    first.unwrap_or_else(|| Engine::empty(0, djinn::plan_data::DeviceId(0)))
}

/// Makes the model.
struct Llama {
    b: SrgBuilder,
    scope: String,
    seed: u32,
}

/// A Llama of so many layers over token numbers [1, 64].
pub(crate) fn llama(layers: usize) -> Result<Module> {
    let mut m = Llama { b: SrgBuilder::new("main"), scope: String::new(), seed: 1 };
    let tokens = m.b.input("tokens", TensorType::of(DType::I64, &[1, LENGTH]));
    let angles = TensorType::of(DType::F32, &[1, LENGTH, HEAD_WIDTH / 2]);
    let (cos, sin) = (m.b.input("cos", angles.clone()), m.b.input("sin", angles));
    m.enter("embed");
    let table = m.weight("table", &[VOCABULARY, WIDTH])?;
    let mut x = m.b.op(OpKind::Gather, &[table, tokens], attrs! { axis: 0i64 })?;
    for layer in 0..layers {
        x = m.layer(layer, x, cos, sin)?;
    }
    m.enter("head");
    let x = m.norm("norm", x)?;
    let logits = m.project("logits", x, WIDTH, VOCABULARY)?;
    m.b.output("logits", logits);
    djinn::srg::lower(&m.b.finish()?)
}

impl Llama {
    fn enter(&mut self, scope: &str) {
        self.scope = scope.into();
        self.b.set_origin(Origin { scope: Some(scope.into()), ..Origin::default() });
    }

    /// Weights that differ from layer to layer: a linear congruential generator (Knuth, TAOCP 2, 3.3.4, table 1).
    fn weight(&mut self, name: &str, shape: &[i64]) -> Result<SrgValue> {
        let count: i64 = shape.iter().product();
        let mut next = || {
            self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.seed >> 8) as f32 / (1u32 << 24) as f32 * 0.1 - 0.05
        };
        let values: Vec<f32> = (0..count).map(|_| next()).collect();
        let sizes: Vec<usize> = shape.iter().map(|d| *d as usize).collect();
        let data = TensorData::from_f32(&sizes, &values);
        let data = data.ok_or_else(|| djinn::diag::internal("bench", "a weight cannot be made"))?;
        self.b.weight(&format!("{}.{name}", self.scope), Weight::with_data(data))
    }

    fn project(&mut self, name: &str, x: SrgValue, from: i64, to: i64) -> Result<SrgValue> {
        let w = self.weight(name, &[from, to])?;
        self.b.op(OpKind::MatMul, &[x, w], Attrs::new())
    }

    fn norm(&mut self, name: &str, x: SrgValue) -> Result<SrgValue> {
        let scale = self.weight(name, &[WIDTH])?;
        self.b.op(OpKind::RmsNorm, &[x, scale], attrs! { axis: 2i64, epsilon: EPSILON })
    }

    fn layer(&mut self, number: usize, x: SrgValue, cos: SrgValue, sin: SrgValue) -> Result<SrgValue> {
        self.enter(&format!("layers.{number}"));
        let n = self.norm("attention_norm", x)?;
        let q = self.project("q", n, WIDTH, HEADS * HEAD_WIDTH)?;
        let k = self.project("k", n, WIDTH, KV_HEADS * HEAD_WIDTH)?;
        let v = self.project("v", n, WIDTH, KV_HEADS * HEAD_WIDTH)?;
        let rope = |heads: i64| attrs! { interleaved: false, heads: heads };
        let q = self.b.op(OpKind::Rope, &[q, cos, sin], rope(HEADS))?;
        let k = self.b.op(OpKind::Rope, &[k, cos, sin], rope(KV_HEADS))?;
        let scale = (HEAD_WIDTH as f64).sqrt().recip();
        let heads = attrs! {
            scale: scale, causal: true, causal_offset: djinn::ir::Dim::ZERO, query_heads: HEADS, kv_heads: KV_HEADS
        };
        let a = self.b.op(OpKind::Sdpa, &[q, k, v], heads)?;
        let a = self.project("o", a, HEADS * HEAD_WIDTH, WIDTH)?;
        let x = self.b.op(OpKind::Add, &[x, a], Attrs::new())?;
        let n = self.norm("feed_forward_norm", x)?;
        let gate = self.project("gate", n, WIDTH, FEED_FORWARD)?;
        let gate = self.b.op(OpKind::Silu, &[gate], Attrs::new())?;
        let up = self.project("up", n, WIDTH, FEED_FORWARD)?;
        let both = self.b.op(OpKind::Mul, &[gate, up], Attrs::new())?;
        let down = self.project("down", both, FEED_FORWARD, WIDTH)?;
        self.b.op(OpKind::Add, &[x, down], Attrs::new())
    }
}
