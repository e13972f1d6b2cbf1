//! Calibration of the `host` profile: times the reference evaluator's operations on this machine and fits the cost
//! model to the times.
//!
//! Every kind of operation is timed at sizes drawn from a fixed seed. All cases are timed in turn, several rounds over,
//! so that a disturbance of the machine spreads over cases instead of spoiling one; the time of a case is the median
//! of its rounds. What is fitted, and what is held out to judge the fit, is `djinn_cost::calibrate`'s business.

use crate::random::SplitMix;
use djinn_cost::CostModel;
use djinn_cost::calibrate::{ClassReport, Fit, Measurement, Report, fit, judge, to_csv};
use djinn_cost::profile::{ProfileFit, RunProfile};
use djinn_device::Profile;
use djinn_diag::{Context, Result, internal};
use djinn_interp::{Env, Weights, eval_op};
use djinn_ir::{Attrs, DType, Dim, OpKind, SymbolTable, TensorData, TensorType, attrs};
use std::time::{Duration, Instant};

/// How long to measure, and what to draw.
#[derive(Debug, Clone)]
pub struct CalibrateOptions {
    /// Seconds of measuring, about; at least one round is made however long it takes.
    pub seconds: f64,
    /// Rounds over all cases, at most.
    pub rounds: usize,
    /// Cases of each kind of operation, at most.
    pub samples: usize,
    /// Seed of sizes and values.
    pub seed: u64,
    /// The profile whose figures stay where calibration has none of its own.
    pub base: Profile,
    /// What the profile names as the source of the fitted figures: file of the measurements, day and machine.
    pub source: String,
}

impl Default for CalibrateOptions {
    /// About 35 seconds for the built-in `host` profile.
    fn default() -> Self {
        let host = Profile::builtin("host").unwrap_or(Profile::generic());
        CalibrateOptions {
            seconds: 35.0,
            rounds: 15,
            samples: usize::MAX,
            seed: 1,
            base: host.clone(),
            source: "measured on this machine".to_owned(),
        }
    }
}

/// Measurements and what was fitted to them.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// One for every case.
    pub measurements: Vec<Measurement>,
    /// The fitted profile and how good it is.
    pub fit: Fit,
    /// How well the base profile predicts the same held-out measurements: whether calibration was due.
    pub base: Report,
    /// Rounds that were made.
    pub rounds: usize,
}

/// What stands at the top of a profile file that calibration wrote.
const REMARK: &str = "\
host: the reference evaluator, one thread a stream, fitted to measurements by calibration.
Stale once the evaluator's loops change. It fuses nothing: a kernel of several operations runs one after the other.";

impl Calibration {
    /// The fitted profile as a profile file.
    pub fn profile_toml(&self) -> String {
        self.fit.profile.to_toml(REMARK)
    }

    /// The measurements as comma-separated values, one a line; fitting to them gives the same profile.
    pub fn measurements_csv(&self) -> String {
        to_csv(&self.measurements)
    }

    /// How well the fitted profile predicts each class of operations.
    pub fn table(&self) -> &[ClassReport] {
        &self.fit.report.classes
    }
}

/// Fits the profile of a device to what runs of plans took on it: see [`djinn_cost::profile::fit()`]. `mode` names the way
/// of running kernels that counts, if there are several; `source` is what the profile names as the source of its figures.
///
/// # Errors
/// Those of [`djinn_cost::profile::fit()`].
pub fn calibrate_from(
    measured: &RunProfile,
    base: &Profile,
    mode: Option<&str>,
    source: &str,
) -> Result<ProfileFit> {
    djinn_cost::profile::fit(base, measured, mode, source)
}

/// A profile that was fitted to runs of plans, as a profile file.
pub fn fitted_toml(fit: &ProfileFit) -> String {
    let Profile { name, .. } = &fit.profile;
    let how = fit.mode.chars().filter(|c| !c.is_control()).take(80).collect::<String>();
    let remark = format!(
        "{name}: fitted by calibration to what {} kernels took in plans that were run (kernels by: {how}).\n\
         Stale once these run otherwise.",
        fit.fitted
    );
    fit.profile.to_toml(&remark)
}

/// A round of one case repeats the operation until this much time has passed.
const SLICE_OF_A_CASE: Duration = Duration::from_micros(400);

/// Times the evaluator on this machine and fits the `host` profile to it. Give it the machine for itself: what else
/// runs is measured too. The times are those of this build: use a release build.
///
/// # Errors
/// `calibrate.samples` if there is too little to fit; what the evaluator says if a case fails, which is a bug here.
pub fn calibrate(options: &CalibrateOptions) -> Result<Calibration> {
    let cases = cases(options.seed, options.samples);
    let start = Instant::now();
    let mut times = vec![Vec::new(); cases.len()];
    for case in &cases {
        case.run(Duration::ZERO)?;
    }
    let mut rounds = 0;
    while rounds < options.rounds.max(1) && (rounds == 0 || start.elapsed().as_secs_f64() < options.seconds) {
        for (case, times) in cases.iter().zip(&mut times) {
            times.push(case.run(SLICE_OF_A_CASE)?);
        }
        rounds += 1;
    }
    let symbols = SymbolTable::default();
    let model = CostModel::new(&options.base, &symbols);
    let measured = cases.iter().zip(&mut times).map(|(case, times)| case.measurement(&model, median(times)));
    let measurements: Vec<Measurement> = measured.collect::<Result<_>>()?;
    let fit = fit(&options.base, &measurements, &options.source)?;
    let base = judge(&options.base, &measurements);
    Ok(Calibration { measurements, fit, base, rounds })
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// One operation on concrete operands.
struct Case {
    kind: OpKind,
    attrs: Attrs,
    /// Operands of equal types and different values, taken in turn: on small operands that stay the same, the branch
    /// predictor would learn the values by heart.
    operands: Vec<Vec<TensorData>>,
}

/// Elements in all variants of a case together, about: more than a branch predictor remembers.
const VARIED: usize = 1 << 17;

/// Variants of a case, at most.
const VARIANTS: usize = 64;

impl Case {
    /// Seconds of one evaluation: the mean of as many as fill the time, at least one.
    fn run(&self, time: Duration) -> Result<f64> {
        let mut env = Env::default();
        let weights: &Weights = &|_: &str| None;
        let start = Instant::now();
        let mut count = 0u32;
        for operands in self.operands.iter().cycle() {
            let results = eval_op(self.kind, &self.attrs, operands, &[], &mut env, weights)
                .at(|| format!("calibration case '{}'", self.kind.name()))?;
            count += 1;
            // The results die inside the time: whoever runs a plan frees them too.
            drop(std::hint::black_box(results));
            let passed = start.elapsed();
            if passed >= time {
                return Ok(passed.as_secs_f64() / f64::from(count));
            }
        }
        Err(internal("calibrate.case", format!("the case '{}' has no operands", self.kind.name())))
    }

    fn measurement(&self, model: &CostModel<'_>, seconds: f64) -> Result<Measurement> {
        let types: Vec<TensorType> = self.operands[0].iter().map(TensorData::ty).collect();
        let operands: Vec<&TensorType> = types.iter().collect();
        let results = djinn_ir::infer::infer(self.kind, &operands, &self.attrs, &[])?;
        Ok(Measurement {
            kind: self.kind,
            dtype: operands.first().map_or(DType::I64, |t| t.dtype),
            work: model.work(self.kind, &self.attrs, &operands, &results),
            operands: types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(" "),
            seconds,
        })
    }
}

/// Draws sizes and values.
struct Draw(SplitMix);

impl Draw {
    /// A whole number from `low` to `high`, evenly over the logarithm.
    fn size(&mut self, low: usize, high: usize) -> usize {
        let (low, high) = (low as f64, high as f64 + 1.0);
        let share = (self.0.unit() + 1.0) / 2.0;
        (low * (high / low).powf(share)).floor().min(high - 1.0) as usize
    }

    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0.next() % n
    }

    fn floats(&mut self, dtype: DType, shape: &[usize]) -> TensorData {
        let count: usize = shape.iter().product();
        let mut bytes = Vec::with_capacity(count * dtype.size());
        (0..count).for_each(|_| bytes.extend(djinn_ir::data::encode_f64(dtype, 2.0 * self.0.unit())));
        tensor(dtype, shape, bytes)
    }

    fn f32(&mut self, shape: &[usize]) -> TensorData {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|_| (2.0 * self.0.unit() as f32).to_le_bytes()).collect();
        tensor(DType::F32, shape, bytes)
    }

    /// Indices below `limit`.
    fn indices(&mut self, shape: &[usize], limit: usize) -> TensorData {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|_| self.below(limit as u64).to_le_bytes()).collect();
        tensor(DType::I64, shape, bytes)
    }

    fn bools(&mut self, shape: &[usize]) -> TensorData {
        let count: usize = shape.iter().product();
        let bytes = (0..count).map(|_| self.below(2) as u8).collect();
        tensor(DType::Bool, shape, bytes)
    }

    /// Rows and columns of up to `most` elements together.
    fn rows(&mut self, most: usize) -> [usize; 2] {
        let all = self.size(16, most);
        let columns = self.size(4, all.min(2048));
        [(all / columns).max(1), columns]
    }

    /// Three axes of up to `most` elements together.
    fn blocks(&mut self, most: usize) -> [usize; 3] {
        let [rows, columns] = self.rows(most);
        let outer = self.size(1, rows.min(16));
        [outer, (rows / outer).max(1), columns]
    }
}

fn tensor(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> TensorData {
    TensorData::new(dtype, shape.to_vec(), bytes)
        .unwrap_or_else(|| unreachable!("as many bytes as the shape says"))
}

/// Elements of one operand, at most.
const MOST: usize = 1 << 20;

/// Attributes and operands of a case.
type Drawn = (Attrs, Vec<TensorData>);
/// How the operands of a kind are drawn.
type Drawing = fn(&mut Draw) -> Drawn;

/// Every kind that is timed, how often, and how its operands are drawn.
const DRAWINGS: &[(&[OpKind], usize, Drawing)] = &[
    (
        &[
            OpKind::Abs,
            OpKind::Neg,
            OpKind::Exp,
            OpKind::Sqrt,
            OpKind::Rsqrt,
            OpKind::Reciprocal,
            OpKind::Sin,
            OpKind::Cos,
            OpKind::Tanh,
            OpKind::Erf,
            OpKind::Sigmoid,
            OpKind::Relu,
            OpKind::Silu,
            OpKind::HardSwish,
        ],
        20,
        |d| (Attrs::new(), vec![floats(d, MOST)]),
    ),
    (&[OpKind::Gelu], 20, |d| {
        let word = ["none", "tanh"][d.below(2) as usize];
        (attrs! { approximate: word }, vec![floats(d, MOST)])
    }),
    (&[OpKind::LeakyRelu], 20, |d| (attrs! { alpha: 0.1 }, vec![floats(d, MOST)])),
    (&[OpKind::Cast], 20, |d| {
        let x = floats(d, MOST);
        let narrow = [DType::F16, DType::I64, DType::Bool][d.below(3) as usize];
        let to = if x.dtype() == DType::F32 { narrow } else { DType::F32 };
        (attrs! { to: to }, vec![x])
    }),
    (&[OpKind::Add, OpKind::Sub, OpKind::Mul, OpKind::Div, OpKind::Max, OpKind::Min, OpKind::Pow], 20, |d| {
        (Attrs::new(), pair(d))
    }),
    (&[OpKind::Compare], 20, |d| (attrs! { predicate: "lt" }, pair(d))),
    (&[OpKind::Select], 20, |d| {
        let shape = d.rows(MOST);
        let other = if d.below(2) == 0 { d.f32(&shape) } else { d.f32(&[]) };
        (Attrs::new(), vec![d.bools(&shape), d.f32(&shape), other])
    }),
    (&[OpKind::Clamp], 20, |d| {
        (Attrs::new(), vec![floats(d, MOST), d.f32(&[]), d.f32(&[])].into_iter().map(as_f32).collect())
    }),
    (&[OpKind::ReduceSum, OpKind::ReduceMean, OpKind::ReduceMax], 20, |d| {
        let shape = d.blocks(MOST);
        let axes: Vec<i64> = [vec![2], vec![1], vec![1, 2]][d.below(3) as usize].clone();
        (attrs! { axes: axes, keepdims: true }, vec![d.f32(&shape)])
    }),
    (&[OpKind::ArgMax], 20, |d| {
        let shape = d.rows(MOST);
        (attrs! { axis: 1i64, keepdims: false, select_last: false }, vec![d.f32(&shape)])
    }),
    (&[OpKind::CumSum], 20, |d| {
        let shape = d.rows(MOST);
        (attrs! { axis: 1i64, exclusive: false, reverse: false }, vec![d.f32(&shape)])
    }),
    (&[OpKind::TopK], 20, |d| {
        let shape = d.rows(1 << 16);
        let k = d.size(1, shape[1].min(50));
        (attrs! { axis: 1i64, k: Dim::from(k), largest: true, sorted: true }, vec![d.f32(&shape)])
    }),
    (&[OpKind::MaxPool], 20, |d| (pool(d), vec![image(d)])),
    (&[OpKind::AvgPool], 20, |d| (pool(d).with("count_include_pad", true), vec![image(d)])),
    (&[OpKind::Softmax, OpKind::LogSoftmax], 20, |d| {
        let shape = d.blocks(MOST);
        (attrs! { axis: 2i64 }, vec![d.f32(&shape)])
    }),
    (&[OpKind::LayerNorm], 20, |d| {
        let shape = d.blocks(MOST);
        let operands = vec![d.f32(&shape), d.f32(&shape[2..]), d.f32(&shape[2..])];
        (attrs! { axis: 2i64, epsilon: 1e-5 }, operands)
    }),
    (&[OpKind::RmsNorm], 20, |d| {
        let shape = d.blocks(MOST);
        (attrs! { axis: 2i64, epsilon: 1e-5 }, vec![d.f32(&shape), d.f32(&shape[2..])])
    }),
    (&[OpKind::GroupNorm], 20, |d| {
        let (x, channels) = channels(d);
        (attrs! { groups: 4i64, epsilon: 1e-5 }, vec![x, d.f32(&[channels]), d.f32(&[channels])])
    }),
    (&[OpKind::BatchNorm], 20, |d| {
        let (x, channels) = channels(d);
        let mut operands = vec![x];
        operands.extend((0..3).map(|_| d.f32(&[channels])));
        operands.push(tensor(DType::F32, &[channels], 1f32.to_le_bytes().repeat(channels)));
        (attrs! { epsilon: 1e-5 }, operands)
    }),
    (&[OpKind::Transpose], 20, |d| {
        let [a, b, c] = d.blocks(MOST);
        let perm: Vec<i64> = [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0]][d.below(4) as usize].to_vec();
        (attrs! { perm: perm }, vec![d.f32(&[a, b, c])])
    }),
    (&[OpKind::Broadcast], 20, |d| {
        let [a, b, c] = d.blocks(MOST);
        let from = [[1, 1, c], [a, b, 1], [a, 1, c]][d.below(3) as usize];
        let shape: Vec<Dim> = [a, b, c].iter().map(|n| Dim::from(*n)).collect();
        (attrs! { shape: shape }, vec![d.f32(&from)])
    }),
    (&[OpKind::Reshape], 20, |d| {
        let [a, b] = d.rows(MOST);
        (attrs! { shape: vec![Dim::from(a * b)] }, vec![d.f32(&[a, b])])
    }),
    (&[OpKind::Concat], 20, |d| {
        let [a, b, c] = d.blocks(MOST / 2);
        let axis = d.below(3) as i64;
        (attrs! { axis: axis }, (0..2).map(|_| d.f32(&[a, b, c])).collect())
    }),
    (&[OpKind::Slice], 20, |d| {
        let shape = d.blocks(MOST);
        let axis = d.below(3) as usize;
        let start = d.below(shape[axis] as u64) as usize;
        let bounds = (Dim::from(start / 2), Dim::from(shape[axis]));
        (attrs! { axis: axis as i64, start: bounds.0, limit: bounds.1, stride: 1i64 }, vec![d.f32(&shape)])
    }),
    (&[OpKind::Pad], 20, |d| {
        let [n, c, h, w] = image_shape(d);
        let border = || [0i64, 0, 1, 1].map(Dim::from).to_vec();
        let attrs = attrs! { low: border(), high: border(), mode: "constant" };
        (attrs, vec![d.f32(&[n, c, h, w]), d.f32(&[])])
    }),
    (&[OpKind::Gather], 20, |d| {
        let [rows, columns] = d.rows(MOST);
        let [a, b] = d.rows(1 << 10);
        let picked = [(a * b / columns).max(1)];
        let axis = d.below(2);
        let limit = if axis == 0 { rows } else { columns };
        let shape = if axis == 0 { picked } else { [limit.min(64)] };
        (attrs! { axis: axis as i64 }, vec![d.f32(&[rows, columns]), d.indices(&shape, limit)])
    }),
    (&[OpKind::GatherElements], 20, |d| {
        let shape = d.rows(MOST);
        (attrs! { axis: 1i64 }, vec![d.f32(&shape), d.indices(&shape, shape[1])])
    }),
    (&[OpKind::IndexCopy], 20, |d| {
        let [a, b, c] = d.blocks(MOST);
        let count = d.size(1, b);
        let source = d.f32(&[a, count, c]);
        (attrs! { axis: 1i64 }, vec![d.f32(&[a, b, c]), d.indices(&[count], b), source])
    }),
    (&[OpKind::Trilu], 20, |d| {
        let shape = d.rows(MOST);
        (attrs! { upper: false, k: 0i64 }, vec![d.f32(&shape)])
    }),
    (&[OpKind::Iota], 20, |d| {
        let shape: Vec<Dim> = d.rows(1 << 16).iter().map(|n| Dim::from(*n)).collect();
        (attrs! { shape: shape, axis: 1i64, dtype: DType::I64 }, vec![])
    }),
    (&[OpKind::MatMul], 60, matmul),
    (&[OpKind::Conv], 48, conv),
    (&[OpKind::Sdpa], 40, sdpa),
    (&[OpKind::Rope], 20, |d| {
        let (heads, length, half) = (d.size(1, 16), d.size(1, 256), d.size(8, 64));
        let angles = || [1, length, half];
        let operands = vec![d.f32(&[1, heads, length, 2 * half]), d.f32(&angles()), d.f32(&angles())];
        (attrs! { interleaved: false, heads: 0i64 }, operands)
    }),
    (&[OpKind::Lstm], 20, |d| {
        let (t, b, i, h) = (d.size(1, 16), d.size(1, 4), d.size(8, 128), d.size(8, 128));
        let operands = vec![
            d.f32(&[t, b, i]),
            d.f32(&[1, 4 * h, i]),
            d.f32(&[1, 4 * h, h]),
            d.f32(&[1, 8 * h]),
            d.f32(&[1, b, h]),
            d.f32(&[1, b, h]),
        ];
        (attrs! { direction: "forward", hidden: h as i64 }, operands)
    }),
];

fn cases(seed: u64, most: usize) -> Vec<Case> {
    let mut draw = Draw(SplitMix(seed));
    let mut out = Vec::new();
    for (kinds, samples, drawing) in DRAWINGS {
        for kind in *kinds {
            for _ in 0..most.min(*samples) {
                let (attrs, operands) = drawing(&mut draw);
                let operands = varied(&mut draw, operands);
                out.push(Case { kind: *kind, attrs, operands });
            }
        }
    }
    out
}

/// The operands, and as many more of equal types as keep a branch predictor from learning them. Only floats vary.
fn varied(d: &mut Draw, first: Vec<TensorData>) -> Vec<Vec<TensorData>> {
    let largest = first.iter().map(TensorData::numel).max().unwrap_or(0);
    let more = (VARIED / largest.max(1)).clamp(1, VARIANTS) - 1;
    let vary = |d: &mut Draw, t: &TensorData| match t.dtype() {
        DType::F32 => d.f32(t.shape()),
        dtype if dtype.is_float() => d.floats(dtype, t.shape()),
        _ => t.clone(),
    };
    let others: Vec<_> = (0..more).map(|_| first.iter().map(|t| vary(d, t)).collect()).collect();
    std::iter::once(first).chain(others).collect()
}

fn as_f32(t: TensorData) -> TensorData {
    let values: Vec<f32> = (0..t.numel()).map(|i| t.get_f64(i).unwrap_or(0.0) as f32).collect();
    TensorData::from_f32(t.shape(), &values).unwrap_or(t)
}

/// Positive floats, mostly `f32`.
fn floats(d: &mut Draw, most: usize) -> TensorData {
    let shape = d.rows(most);
    match d.below(8) {
        0 => d.floats(DType::F16, &shape),
        1 => d.floats(DType::BF16, &shape),
        _ => d.f32(&shape),
    }
}

/// Two operands of one shape, or one that broadcasts.
fn pair(d: &mut Draw) -> Vec<TensorData> {
    let [a, b] = d.rows(MOST);
    let other = match d.below(5) {
        0 => vec![b],
        1 => vec![a, 1],
        2 => vec![],
        _ => vec![a, b],
    };
    vec![d.f32(&[a, b]), d.f32(&other)]
}

fn image_shape(d: &mut Draw) -> [usize; 4] {
    let side = d.size(4, 64);
    [1, d.size(1, (1 << 18) / side / side).min(64), side, side]
}

fn image(d: &mut Draw) -> TensorData {
    let shape = image_shape(d);
    d.f32(&shape)
}

fn channels(d: &mut Draw) -> (TensorData, usize) {
    let (groups, side) = (d.size(1, 16), d.size(2, 32));
    (d.f32(&[1, 4 * groups, side, side]), 4 * groups)
}

fn pool(d: &mut Draw) -> Attrs {
    let (kernel, stride) = (2 + d.below(2) as i64, 1 + d.below(2) as i64);
    attrs! {
        kernel: vec![kernel; 2], strides: vec![stride; 2], pads: vec![0i64; 4], dilations: vec![1i64; 2],
        ceil_mode: false,
    }
}

fn matmul(d: &mut Draw) -> Drawn {
    let batch = if d.below(3) == 0 { d.size(2, 12) } else { 1 };
    let (k, n) = (d.size(8, 1024), d.size(8, 1024));
    let most = ((1 << 26) / (k * n * batch)).clamp(1, 512);
    let m = if d.below(4) == 0 { 1 } else { d.size(1, most) };
    let x = d.f32(&[batch, m, k]);
    let w = if batch > 1 && d.below(2) == 0 { d.f32(&[batch, k, n]) } else { d.f32(&[k, n]) };
    (Attrs::new(), vec![x, w])
}

fn conv(d: &mut Draw) -> Drawn {
    let depthwise = d.below(4) == 0;
    let (c, side) = (d.size(3, 64), d.size(4, 48));
    let kernel = [1, 3, 3, 5][d.below(4) as usize].min(side);
    let m = if depthwise { c } else { d.size(4, 64) };
    let (groups, stride) = (if depthwise { c } else { 1 }, 1 + d.below(2) as i64);
    let pad = (kernel / 2) as i64;
    let attrs = attrs! {
        strides: vec![stride; 2], pads: vec![pad; 4], dilations: vec![1i64; 2], groups: groups as i64,
    };
    let operands = vec![d.f32(&[1, c, side, side]), d.f32(&[m, c / groups, kernel, kernel]), d.f32(&[m])];
    (attrs, operands)
}

fn sdpa(d: &mut Draw) -> Drawn {
    let (heads, keys, width) = (d.size(1, 12), d.size(8, 512), d.size(16, 128));
    let queries = if d.below(3) == 0 { 1 } else { d.size(1, keys.min(256)) };
    let causal = d.below(2) == 0;
    let attrs = attrs! {
        scale: 0.125, causal: causal, causal_offset: Dim::from(keys - queries), query_heads: 0i64, kv_heads: 0i64,
    };
    let mut operands = vec![d.f32(&[1, heads, queries, width])];
    operands.extend((0..2).map(|_| d.f32(&[1, heads, keys, width])));
    if d.below(3) == 0 {
        operands.push(d.f32(&[1, 1, queries, keys]));
    }
    (attrs, operands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_can_be_timed() {
        // One case of each kind is too little to fit, which is found out after all have run.
        let options = CalibrateOptions { seconds: 0.0, rounds: 1, samples: 1, ..CalibrateOptions::default() };
        assert_eq!(
            calibrate(&options).map(|c| c.rounds).map_err(|e| e.code),
            Err("calibrate.samples".into())
        );
    }

    #[test]
    fn a_short_calibration_predicts_at_all() {
        let options = CalibrateOptions { seconds: 0.0, rounds: 1, samples: 6, ..CalibrateOptions::default() };
        let c = calibrate(&options).expect("enough samples");
        assert_eq!((c.rounds, c.fit.report.all.count * 3), (1, c.measurements.len()));
        // Disturbed as the machine may be, the middle error is within an order of magnitude.
        assert!(c.fit.report.all.median < 3.0, "{:?}", c.fit.report.all);
        assert!(c.measurements.iter().all(|m| m.seconds > 0.0));
    }
}
