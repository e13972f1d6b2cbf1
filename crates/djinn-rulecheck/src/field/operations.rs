//! Operations over the fields; composite operations through their definitions.

use super::Stop;
use super::element::Element;
use super::tensor::{Tensor, Value, movement};
use djinn_interp::{Env, eval_op};
use djinn_ir::ops::traits;
use djinn_ir::{Graph, Module, Op, OpKind, TensorData, ValueId};

/// Evaluates one body.
pub(crate) struct Evaluator<'a> {
    body: &'a Graph,
    module: &'a Module,
    seed: u64,
    values: Vec<Option<Value>>,
    /// The name of an operation that was left uninterpreted.
    pub(crate) uninterpreted: Option<&'static str>,
}

fn unsupported(what: impl Into<String>) -> Stop {
    Stop::Unsupported(what.into())
}

fn divide(a: Element, b: Element) -> Result<Element, Stop> {
    a.div(b).ok_or(Stop::Undefined)
}

fn exp(x: Element) -> Result<Element, Stop> {
    x.exp().ok_or_else(|| unsupported("nested exponentials"))
}

fn sum(row: &[Element]) -> Element {
    row.iter().fold(Element::int(0), |a, b| a.add(*b))
}

fn mean(row: &[Element]) -> Result<Element, Stop> {
    divide(sum(row), Element::int(row.len() as i64))
}

fn real(value: f64) -> Result<Element, Stop> {
    Element::float(value).ok_or_else(|| unsupported("a constant is not finite"))
}

fn sigmoid(x: Element) -> Result<Element, Stop> {
    let e = exp(Element::int(0).sub(x))?;
    divide(Element::int(1), Element::int(1).add(e))
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(body: &'a Graph, module: &'a Module, seed: u64) -> Self {
        Evaluator { body, module, seed, values: vec![None; body.value_capacity()], uninterpreted: None }
    }

    /// The results on these arguments. Operations that no result needs are left out.
    pub(crate) fn run(&mut self, arguments: &[Value]) -> Result<Vec<Value>, Stop> {
        for (v, value) in self.body.arguments.iter().zip(arguments) {
            self.values[v.0 as usize] = Some(value.clone());
        }
        let mut needed = vec![false; self.body.value_capacity()];
        self.body.results.iter().for_each(|v| needed[v.0 as usize] = true);
        for (_, op) in self.body.ops().rev() {
            if op.results.iter().any(|v| needed[v.0 as usize]) {
                op.operands.iter().for_each(|v| needed[v.0 as usize] = true);
            }
        }
        for (_, op) in self.body.ops() {
            let [result] = op.results.as_slice() else { return Err(unsupported(op.kind.name())) };
            if needed[result.0 as usize] {
                self.values[result.0 as usize] = Some(self.op(op)?);
            }
        }
        self.body.results.iter().map(|v| self.value(*v)).collect()
    }

    fn value(&self, v: ValueId) -> Result<Value, Stop> {
        self.values[v.0 as usize].clone().ok_or_else(|| unsupported("a value is missing"))
    }

    fn operand(&self, op: &Op, i: usize) -> Result<Tensor, Stop> {
        self.value(*op.operands.get(i).ok_or_else(|| unsupported("an operand is missing"))?)?.field()
    }

    fn op(&mut self, op: &Op) -> Result<Value, Stop> {
        match op.kind {
            OpKind::Constant | OpKind::Weight => return self.literal(op),
            OpKind::Cast => {
                let value = self.value(op.operands[0])?;
                let to_float = op.attrs.dtype("to").is_some_and(|d| d.is_float());
                match value {
                    Value::Field(_) if to_float => return Ok(value),
                    Value::Field(_) => return Err(unsupported("cast from float")),
                    Value::Concrete(_) if to_float => return Ok(Value::Field(value.field()?)),
                    Value::Concrete(_) => {}
                }
            }
            _ => {}
        }
        let operands: Vec<Value> = op.operands.iter().map(|v| self.value(*v)).collect::<Result<_, _>>()?;
        let concrete: Option<Vec<TensorData>> = operands
            .iter()
            .map(|v| match v {
                Value::Concrete(d) => Some(d.clone()),
                Value::Field(_) => None,
            })
            .collect();
        if let Some(concrete) = concrete {
            let results = eval_op(op.kind, &op.attrs, &concrete, &[], &mut Env::new(), &|_| None);
            let result = results.ok().and_then(|r| r.into_iter().next());
            return result.map(Value::Concrete).ok_or_else(|| unsupported(op.kind.name()));
        }
        if op.kind == OpKind::Pad && op.attrs.str("mode") != "constant" {
            return Err(unsupported("pad by reflection"));
        }
        if op.kind.def().has(traits::MOVEMENT) {
            return movement(op.kind, &op.attrs, &operands).map(Value::Field);
        }
        self.arithmetic(op).map(Value::Field)
    }

    /// Constants mean the fractions that they stand for; weights are random elements, the same for one name.
    fn literal(&self, op: &Op) -> Result<Value, Stop> {
        let data = self.module.constant_value(op).ok_or_else(|| unsupported("a weight without values"))?;
        if !data.dtype().is_float() {
            return Ok(Value::Concrete(data.clone()));
        }
        if op.kind == OpKind::Weight && data.numel() > 1 {
            let name = Element::opaque(op.attrs.str("name"), self.seed, &[]);
            return Ok(Value::random(data.shape(), name.p));
        }
        Value::Concrete(data.clone()).field().map(Value::Field)
    }

    /// A function without a meaning in the fields.
    fn opaque(&mut self, name: &'static str, arguments: &[Element]) -> Element {
        self.uninterpreted = Some(name);
        Element::opaque(name, self.seed, arguments)
    }

    fn arithmetic(&mut self, op: &Op) -> Result<Tensor, Stop> {
        use OpKind as K;
        let x = self.operand(op, usize::from(op.kind == K::Select))?;
        let y = || self.operand(op, 1);
        match op.kind {
            K::Add => x.zip(&y()?, |a, b| Ok(a.add(b))),
            K::Sub => x.zip(&y()?, |a, b| Ok(a.sub(b))),
            K::Mul => x.zip(&y()?, |a, b| Ok(a.mul(b))),
            K::Div => x.zip(&y()?, divide),
            K::Neg => x.map(|a| Ok(Element::int(0).sub(*a))),
            K::Reciprocal => x.map(|a| divide(Element::int(1), *a)),
            K::Exp => x.map(|a| exp(*a)),
            K::Sigmoid => x.map(|a| sigmoid(*a)),
            K::Silu => x.map(|a| Ok(a.mul(sigmoid(*a)?))),
            K::Rsqrt => x.map(|a| divide(Element::int(1), self.opaque("sqrt", &[*a]))),
            K::Softplus => x.map(|a| Ok(self.opaque("log", &[Element::int(1).add(exp(*a)?)]))),
            K::Mish => x.map(|a| {
                let softplus = self.opaque("log", &[Element::int(1).add(exp(*a)?)]);
                Ok(a.mul(self.opaque("tanh", &[softplus])))
            }),
            K::Gelu => x.map(|a| self.gelu(*a, op.attrs.str("approximate"))),
            K::Pow => self.pow(op, &x),
            K::MatMul => matmul(&x, &y()?),
            K::Conv => self.conv(op, &x),
            K::ReduceSum => reduce(op, &x, |row| Ok(sum(row))),
            K::ReduceMean => reduce(op, &x, mean),
            K::ReduceMax => reduce(op, &x, |row| {
                let mut sorted = row.to_vec();
                sorted.sort_unstable();
                Ok(self.opaque("reduce_max", &sorted))
            }),
            K::Softmax => along(op, &x, softmax),
            K::LogSoftmax => {
                along(op, &x, |row| Ok(softmax(row)?.iter().map(|e| self.opaque("log", &[*e])).collect()))
            }
            K::LayerNorm | K::RmsNorm => self.norm(op, &x),
            K::GroupNorm => self.group_norm(op, &x),
            K::BatchNorm => self.batch_norm(op, &x),
            K::Sdpa => self.sdpa(op),
            K::Rope => self.rope(op, &x),
            K::Select => self.select(op),
            K::Max | K::Min => {
                let name = op.kind.name();
                x.zip(&y()?, |a, b| Ok(Element::opaque(name, self.seed, &[a.min(b), a.max(b)])))
                    .inspect(|_| self.uninterpreted = Some(name))
            }
            K::Clamp => {
                let (low, high) = (y()?.elements, self.operand(op, 2)?.elements);
                x.map(|a| Ok(self.opaque("clamp", &[&[*a], low.as_slice(), high.as_slice()].concat())))
            }
            kind if op.operands.len() == 1
                && kind.def().attrs.is_empty()
                && kind.def().has(traits::BROADCAST)
                && kind != K::IsNan =>
            {
                x.map(|a| Ok(self.opaque(kind.name(), &[*a])))
            }
            kind => Err(unsupported(kind.name())),
        }
    }

    fn gelu(&mut self, x: Element, approximate: &str) -> Result<Element, Stop> {
        let inner = if approximate == "tanh" {
            let cube = x.mul(x).mul(x).mul(real(0.044715)?);
            let t = x.add(cube).mul(real((2.0 / std::f64::consts::PI).sqrt())?);
            self.opaque("tanh", &[t])
        } else {
            let t = x.mul(real(std::f64::consts::FRAC_1_SQRT_2)?);
            self.opaque("erf", &[t])
        };
        Ok(x.mul(real(0.5)?).mul(Element::int(1).add(inner)))
    }

    fn pow(&mut self, op: &Op, x: &Tensor) -> Result<Tensor, Stop> {
        let exponent = self.body.definition(op.operands[1]).map(|(id, _)| self.body.op(id));
        let exponent = exponent.and_then(|o| self.module.constant_value(o)).and_then(TensorData::splat_value);
        let n = exponent.ok_or_else(|| unsupported("a power that is not constant"))?;
        x.map(|a| {
            Ok(if n == 0.5 {
                self.opaque("sqrt", &[*a])
            } else if n == -0.5 {
                divide(Element::int(1), self.opaque("sqrt", &[*a]))?
            } else if n == -1.0 {
                divide(Element::int(1), *a)?
            } else if n.fract() == 0.0 && (0.0..=8.0).contains(&n) {
                (0..n as usize).fold(Element::int(1), |e, _| e.mul(*a))
            } else {
                return Err(unsupported("a power that is no small integer"));
            })
        })
    }

    fn conv(&mut self, op: &Op, x: &Tensor) -> Result<Tensor, Stop> {
        let w = self.operand(op, 1)?;
        let (&[_, c, h, width], &[o, per_group, kh, kw]) = (x.shape.as_slice(), w.shape.as_slice()) else {
            return Err(unsupported("a convolution that is not two-dimensional"));
        };
        let bias = if op.operands.len() > 2 { Some(self.operand(op, 2)?) } else { None };
        let shape = self.body.ty(op.results[0]).const_shape().ok_or_else(|| unsupported("symbolic sizes"))?;
        let [s, d, p] = ["strides", "dilations", "pads"].map(|a| op.attrs.ints(a));
        let group_outputs = (o / op.attrs.int("groups").max(1) as usize).max(1);
        let mut elements = Vec::new();
        for at in 0..shape.iter().product::<usize>() {
            let (b, m, i, j) = (
                at / (o * shape[2] * shape[3]),
                at / (shape[2] * shape[3]) % o,
                at / shape[3] % shape[2],
                at % shape[3],
            );
            let mut total = bias.as_ref().map_or(Element::int(0), |t| t.elements[m]);
            for k in 0..per_group * kh * kw {
                let (ci, ki, kj) = (k / (kh * kw), k / kw % kh, k % kw);
                let row = i as i64 * s[0] + ki as i64 * d[0] - p[0];
                let column = j as i64 * s[1] + kj as i64 * d[1] - p[1];
                if (0..h as i64).contains(&row) && (0..width as i64).contains(&column) {
                    let channel = m / group_outputs * per_group + ci;
                    let from = ((b * c + channel) * h + row as usize) * width + column as usize;
                    total = total.add(x.elements[from].mul(w.elements[m * per_group * kh * kw + k]));
                }
            }
            elements.push(total);
        }
        Ok(Tensor { shape, elements })
    }

    /// `(x − mean)/√(mean of squares + ε)`, the mean left out for RMS normalisation.
    fn normalized(&mut self, row: &[Element], epsilon: f64, centre: bool) -> Result<Vec<Element>, Stop> {
        let middle = if centre { mean(row)? } else { Element::int(0) };
        let centred: Vec<Element> = row.iter().map(|e| e.sub(middle)).collect();
        let squares: Vec<Element> = centred.iter().map(|e| e.mul(*e)).collect();
        let root = self.opaque("sqrt", &[mean(&squares)?.add(real(epsilon)?)]);
        centred.into_iter().map(|e| divide(e, root)).collect()
    }

    fn norm(&mut self, op: &Op, x: &Tensor) -> Result<Tensor, Stop> {
        let axis = op.attrs.int("axis") as usize;
        let (rows, _) = x.rows(&(axis..x.shape.len()).collect::<Vec<_>>())?;
        let mut elements = Vec::new();
        for row in rows {
            elements.extend(self.normalized(
                &row,
                op.attrs.float("epsilon"),
                op.kind == OpKind::LayerNorm,
            )?);
        }
        let scaled =
            Tensor { shape: x.shape.clone(), elements }.zip(&self.operand(op, 1)?, |a, b| Ok(a.mul(b)))?;
        if op.operands.len() > 2 {
            scaled.zip(&self.operand(op, 2)?, |a, b| Ok(a.add(b)))
        } else {
            Ok(scaled)
        }
    }

    /// An operand with one element for each channel, shaped to broadcast over axis 1 of `x`.
    fn per_channel(&self, op: &Op, i: usize, x: &Tensor) -> Result<Tensor, Stop> {
        let t = self.operand(op, i)?;
        let mut shape = vec![1; x.shape.len() - 1];
        shape[0] = t.elements.len();
        Ok(Tensor { shape, elements: t.elements })
    }

    fn group_norm(&mut self, op: &Op, x: &Tensor) -> Result<Tensor, Stop> {
        let groups = op.attrs.int("groups").max(1) as usize;
        let width = x.shape[1..].iter().product::<usize>() / groups;
        let mut elements = Vec::new();
        for row in x.elements.chunks_exact(width.max(1)) {
            elements.extend(self.normalized(row, op.attrs.float("epsilon"), true)?);
        }
        let normal = Tensor { shape: x.shape.clone(), elements };
        let scaled = normal.zip(&self.per_channel(op, 1, x)?, |a, b| Ok(a.mul(b)))?;
        scaled.zip(&self.per_channel(op, 2, x)?, |a, b| Ok(a.add(b)))
    }

    fn batch_norm(&mut self, op: &Op, x: &Tensor) -> Result<Tensor, Stop> {
        let [scale, bias, middle, variance] = [1, 2, 3, 4].map(|i| self.per_channel(op, i, x));
        let epsilon = real(op.attrs.float("epsilon"))?;
        let root = variance?.map(|v| Ok(self.opaque("sqrt", &[v.add(epsilon)])))?;
        let centred = x.zip(&middle?, |a, b| Ok(a.sub(b)))?;
        centred.zip(&root, divide)?.zip(&scale?, |a, b| Ok(a.mul(b)))?.zip(&bias?, |a, b| Ok(a.add(b)))
    }

    /// A tensor of attention as [batch, heads, length, width].
    fn heads(&self, op: &Op, i: usize, heads: i64) -> Result<Tensor, Stop> {
        let t = self.operand(op, i)?;
        let (&[b, l, width], Ok(h)) = (t.shape.as_slice(), usize::try_from(heads)) else { return Ok(t) };
        Tensor { shape: vec![b, l, h, width / h.max(1)], elements: t.elements }.transpose(&[0, 2, 1, 3])
    }

    fn sdpa(&mut self, op: &Op) -> Result<Tensor, Stop> {
        let (hq, hk) = (op.attrs.int("query_heads"), op.attrs.int("kv_heads"));
        let (q, k, v) = (self.heads(op, 0, hq)?, self.heads(op, 1, hk)?, self.heads(op, 2, hk)?);
        let repeat = (q.shape[1] / k.shape[1].max(1)).max(1);
        let scores_shape = vec![q.shape[0], q.shape[1], q.shape[2], k.shape[2]];
        let shared: Vec<i64> = (0..q.shape[1]).map(|h| (h / repeat) as i64).collect();
        let spread = |t: Tensor| {
            let heads = TensorData::from_i64(&[shared.len()], &shared).ok_or_else(|| unsupported("heads"))?;
            movement(
                OpKind::Gather,
                &djinn_ir::attrs! { axis: 1i64 },
                &[Value::Field(t), Value::Concrete(heads)],
            )
        };
        let (k, v) = (spread(k)?, spread(v)?);
        let scale = real(op.attrs.float("scale"))?;
        let mut scores = matmul(&q, &k.transpose(&[0, 1, 3, 2])?)?.map(|e| Ok(e.mul(scale)))?;
        let mut visible = vec![true; scores.elements.len()];
        if let Some(mask) = op.operands.get(3) {
            match self.value(*mask)? {
                Value::Concrete(m) => {
                    let seen = Value::Concrete(m).field()?.broadcast(&scores_shape)?;
                    visible = seen.elements.iter().map(|e| *e != Element::int(0)).collect();
                }
                Value::Field(m) => scores = scores.zip(&m, |a, b| Ok(a.add(b)))?,
            }
        }
        if op.attrs.bool("causal") {
            let offset =
                op.attrs.dim("causal_offset").as_const().ok_or_else(|| unsupported("symbolic sizes"))?;
            let (queries, keys) = (scores_shape[2], scores_shape[3]);
            for (at, seen) in visible.iter_mut().enumerate() {
                *seen &= (at % keys) as i64 <= (at / keys % queries) as i64 + offset;
            }
        }
        let probabilities = masked_softmax(&scores, &visible)?;
        let attended = matmul(&probabilities, &v)?;
        if hq == 0 {
            return Ok(attended);
        }
        let merged = attended.transpose(&[0, 2, 1, 3])?;
        let &[b, l, h, width] = merged.shape.as_slice() else { return Err(unsupported("heads")) };
        Ok(Tensor { shape: vec![b, l, h * width], elements: merged.elements })
    }

    fn rope(&mut self, op: &Op, x: &Tensor) -> Result<Tensor, Stop> {
        if op.attrs.bool("interleaved") {
            return Err(unsupported("rope of pairs"));
        }
        if x.shape.len() == 3 {
            let split = self.heads(op, 0, op.attrs.int("heads"))?;
            let rotated = self.rope(op, &split)?.transpose(&[0, 2, 1, 3])?;
            return Ok(Tensor { shape: x.shape.clone(), elements: rotated.elements });
        }
        let spread =
            |t: Tensor| Tensor { shape: vec![t.shape[0], 1, t.shape[1], t.shape[2]], elements: t.elements };
        let half = x.shape[3] / 2;
        let mut table_shape = x.shape.clone();
        table_shape[3] = half;
        let cos = spread(self.operand(op, 1)?).broadcast(&table_shape)?;
        let sin = spread(self.operand(op, 2)?).broadcast(&table_shape)?;
        let mut elements = x.elements.clone();
        for (row, angles) in elements.chunks_exact_mut((2 * half).max(1)).zip(0..) {
            for i in 0..half {
                let (c, s) = (cos.elements[angles * half + i], sin.elements[angles * half + i]);
                let (a, b) = (row[i], row[half + i]);
                row[i] = a.mul(c).sub(b.mul(s));
                row[half + i] = b.mul(c).add(a.mul(s));
            }
        }
        Ok(Tensor { shape: x.shape.clone(), elements })
    }

    fn select(&mut self, op: &Op) -> Result<Tensor, Stop> {
        let Value::Concrete(_) = self.value(op.operands[0])? else {
            return Err(unsupported("select by a float"));
        };
        let condition = self.operand(op, 0)?;
        let (a, b) = (self.operand(op, 1)?, self.operand(op, 2)?);
        let zero = Element::int(0);
        let first = condition.zip(&a, |c, x| Ok(if c == zero { zero } else { x }))?;
        let second = condition.zip(&b, |c, x| Ok(if c == zero { x } else { zero }))?;
        first.zip(&second, |x, y| Ok(x.add(y)))
    }
}

fn softmax(row: &[Element]) -> Result<Vec<Element>, Stop> {
    let powers: Vec<Element> = row.iter().map(|e| exp(*e)).collect::<Result<_, _>>()?;
    let total = sum(&powers);
    powers.into_iter().map(|e| divide(e, total)).collect()
}

/// Softmax over the last axis of what is visible; every row must see something.
fn masked_softmax(scores: &Tensor, visible: &[bool]) -> Result<Tensor, Stop> {
    let keys = scores.shape.last().copied().unwrap_or(0).max(1);
    let mut elements = Vec::new();
    for (row, seen) in scores.elements.chunks_exact(keys).zip(visible.chunks_exact(keys)) {
        if !seen.contains(&true) {
            return Err(unsupported("a query that sees no key"));
        }
        let hide = |(e, s): (&Element, &bool)| if *s { exp(*e) } else { Ok(Element { p: 0, q: None }) };
        let powers: Vec<Element> = row.iter().zip(seen).map(hide).collect::<Result<_, _>>()?;
        let total = sum(&powers);
        for e in powers {
            elements.push(divide(e, total)?);
        }
    }
    Ok(Tensor { shape: scores.shape.clone(), elements })
}

/// Applies `f` to the rows along the attribute `axis`.
fn along(
    op: &Op,
    x: &Tensor,
    mut f: impl FnMut(&[Element]) -> Result<Vec<Element>, Stop>,
) -> Result<Tensor, Stop> {
    let (rows, perm) = x.rows(&[op.attrs.int("axis") as usize])?;
    let mut elements = Vec::new();
    for row in rows {
        elements.extend(f(&row)?);
    }
    let shape = perm.iter().map(|a| x.shape[*a]).collect();
    let back: Vec<usize> = (0..perm.len()).filter_map(|a| perm.iter().position(|p| *p == a)).collect();
    Tensor { shape, elements }.transpose(&back)
}

fn reduce(op: &Op, x: &Tensor, f: impl FnMut(&[Element]) -> Result<Element, Stop>) -> Result<Tensor, Stop> {
    let axes: Vec<usize> = op.attrs.ints("axes").iter().map(|a| *a as usize).collect();
    let (rows, _) = x.rows(&axes)?;
    let mut f = f;
    let elements = rows.iter().map(|r| f(r)).collect::<Result<_, _>>()?;
    let keep = op.attrs.bool("keepdims");
    let size = |(a, d): (usize, &usize)| if axes.contains(&a) { keep.then_some(1) } else { Some(*d) };
    Ok(Tensor { shape: x.shape.iter().enumerate().filter_map(size).collect(), elements })
}

/// A product in which one operand is a vector: a matrix with one row or column, whose axis is dropped again.
fn vector_product(a: &Tensor, b: &Tensor) -> Result<Tensor, Stop> {
    let (mut row, mut column) = (a.clone(), b.clone());
    if a.shape.len() == 1 {
        row.shape.insert(0, 1);
    }
    if b.shape.len() == 1 {
        column.shape.push(1);
    }
    let mut out = matmul(&row, &column)?;
    if b.shape.len() == 1 {
        out.shape.pop();
    }
    if a.shape.len() == 1 {
        let at = out.shape.len().saturating_sub(if b.shape.len() == 1 { 1 } else { 2 });
        out.shape.remove(at);
    }
    Ok(out)
}

fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor, Stop> {
    let (ra, rb) = (a.shape.len(), b.shape.len());
    if ra == 1 || rb == 1 {
        return vector_product(a, b);
    }
    let (m, k, n) = (a.shape[ra - 2], a.shape[ra - 1], b.shape[rb - 1]);
    let rank = ra.max(rb);
    let size = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    let batch: Vec<usize> = (0..rank - 2)
        .map(|i| if size(&a.shape, i) == 1 { size(&b.shape, i) } else { size(&a.shape, i) })
        .collect();
    let with = |tail: [usize; 2]| batch.iter().copied().chain(tail).collect::<Vec<usize>>();
    let (x, y) = (a.broadcast(&with([m, k]))?, b.broadcast(&with([k, n]))?);
    let mut elements = Vec::new();
    for at in 0..batch.iter().product::<usize>() * m * n {
        let (s, i, j) = (at / (m * n), at / n % m, at % n);
        let terms = (0..k).map(|l| x.elements[(s * m + i) * k + l].mul(y.elements[(s * k + l) * n + j]));
        elements.push(terms.fold(Element::int(0), Element::add));
    }
    Ok(Tensor { shape: with([m, n]), elements })
}
