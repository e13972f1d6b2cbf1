//! Random functions for the property tests.

use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, Module, OpKind, ResultKind, TensorData, TensorType,
    ValueId, Visibility, attrs,
};
use std::collections::BTreeMap;

/// A linear congruential generator, good enough for test graphs.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as usize
    }
}

/// Values of shape `[rows, 64]`: a row has 256 bytes.
const WIDTH: i64 = 64;

/// A random function of about `ops` operations on rows of 64 floats. `views` also makes reshapes, slices,
/// concatenations along the outer axis and a state.
pub(crate) fn random_function(random: &mut Random, ops: usize, views: bool) -> Function {
    let mut g = Graph::new();
    let mut arguments: Vec<(std::sync::Arc<str>, ArgumentKind)> = Vec::new();
    let mut values: Vec<ValueId> = Vec::new();
    for i in 0..1 + random.below(2) {
        arguments.push((format!("x{i}").into(), ArgumentKind::Input));
        let rows = 1 + random.below(4) as i64;
        values.push(g.add_argument(TensorType::of(DType::F32, &[rows, WIDTH])));
    }
    let state = views.then(|| {
        arguments.push(("s".into(), ArgumentKind::State { initial: None }));
        g.add_argument(TensorType::of(DType::F32, &[4, WIDTH]))
    });
    values.extend(state);
    for _ in 0..ops {
        let v = grow(&mut g, random, &values, views);
        values.push(v);
    }
    let mut f = Function {
        name: "main".into(),
        visibility: Visibility::Entry,
        graph: Graph::new(),
        arguments,
        results: Vec::new(),
    };
    let counts = g.use_counts();
    let made: Vec<ValueId> = values.iter().copied().filter(|v| g.definition(*v).is_some()).collect();
    let like_state = |v: &&ValueId| state.is_some_and(|s| g.ty(**v) == g.ty(s));
    if let Some(new) = made.iter().rfind(like_state).copied() {
        f.results.push(("new".into(), ResultKind::Update(f.arguments.len() as u32 - 1)));
        g.results.push(new);
    }
    for v in made {
        if counts[v.0 as usize] == 0 && !g.results.contains(&v) {
            f.results.push((format!("r{}", f.results.len()).into(), ResultKind::Output));
            g.results.push(v);
        }
    }
    f.graph = g;
    f
}

fn rows(g: &Graph, v: ValueId) -> i64 {
    g.ty(v).numel().as_const().unwrap_or(0) / WIDTH
}

fn grow(g: &mut Graph, random: &mut Random, values: &[ValueId], views: bool) -> ValueId {
    // Recent values are used more often, as in real graphs.
    let recent = values.len().saturating_sub(5);
    let from = if random.below(3) == 0 { 0 } else { recent };
    let x = values[from + random.below(values.len() - from)];
    let same: Vec<ValueId> = values.iter().copied().filter(|v| g.ty(*v) == g.ty(x)).collect();
    let other = same[random.below(same.len())];
    let n = rows(g, x);
    let made = match random.below(if views { 9 } else { 5 }) {
        0 => g.build1(OpKind::Neg, &[x], Attrs::new()),
        1 => g.build1(OpKind::Add, &[x, other], Attrs::new()),
        2 => g.build1(OpKind::Reverse, &[x], attrs! { axes: vec![0i64] }),
        // Some grow and some shrink, so that the order matters.
        3 if n <= 4 => {
            let repeats = vec![Dim::from(1 + random.below(3) as i64), Dim::ONE];
            g.build1(OpKind::Tile, &[x], attrs! { repeats: repeats })
        }
        3 | 4 => {
            let limit = Dim::from(1 + random.below(n as usize) as i64);
            let part = g.build1(OpKind::Reverse, &[x], attrs! { axes: vec![1i64] }).expect("well typed");
            let start = Dim::ZERO;
            g.build1(OpKind::Slice, &[part], attrs! { axis: 0i64, start: start, limit: limit, stride: 1i64 })
        }
        5 => {
            let shape: Vec<Dim> = vec![Dim::from(n), Dim::from(WIDTH)];
            g.build1(OpKind::Reshape, &[x], attrs! { shape: shape })
        }
        6 => {
            let start = random.below(n as usize) as i64;
            let limit = start + 1 + random.below((n - start) as usize) as i64;
            let (start, limit) = (Dim::from(start), Dim::from(limit));
            g.build1(OpKind::Slice, &[x], attrs! { axis: 0i64, start: start, limit: limit, stride: 1i64 })
        }
        7 if n <= 4 => {
            let y = values[random.below(values.len())];
            g.build1(OpKind::Concat, &[x, y], attrs! { axis: 0i64 })
        }
        _ => g.build1(OpKind::Relu, &[x], Attrs::new()),
    };
    made.expect("well typed")
}

/// The module of one function.
#[allow(dead_code, reason = "not every test runs what it makes")]
pub(crate) fn module(f: Function) -> Module {
    Module { functions: vec![f], ..Module::default() }
}

/// An input for every argument, all elements different.
#[allow(dead_code, reason = "not every test runs what it makes")]
pub(crate) fn inputs(f: &Function) -> BTreeMap<String, TensorData> {
    let mut next = 0.0f32;
    let mut all = BTreeMap::new();
    for (v, (name, _)) in f.graph.arguments.iter().zip(&f.arguments) {
        let shape = f.graph.ty(*v).const_shape().expect("constant sizes");
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| next + i as f32 * 0.5 - 40.0).collect();
        next += 17.0;
        all.insert(name.to_string(), TensorData::from_f32(&shape, &values).expect("fits"));
    }
    all
}
