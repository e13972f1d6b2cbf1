//! Instances: the left side of a rule as an IR body, built from a frame.

use crate::rng::Rng;
use crate::slots::{Frame, NumberStyle, Role, Slot, Slots, Tensor, coerce};
use crate::values::{self, Profile};
use djinn_egraph::functions::{Bindings, Bound, Expr, Scope};
use djinn_egraph::region::Region;
use djinn_egraph::rule::{AttrPattern, Pattern, Rule, Var};
use djinn_ir::{
    Attr, Attrs, DType, Dim, Graph, Module, OpKind, SymbolTable, TensorData, TensorType, ValueId, Weight,
    infer, weight_attrs,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The left side of a rule as a body, with its weights.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// The body; one result for each member.
    pub(crate) body: Graph,
    /// Holds the weights.
    pub(crate) module: Module,
    /// What the arguments are.
    pub(crate) inputs: Vec<Tensor>,
}

/// Why there is no instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// The example leaves something out.
    Example(String),
    /// The left side is ill-typed for this frame.
    Type(String),
}

fn ill_typed(e: impl ToString) -> Refusal {
    Refusal::Type(e.to_string())
}

struct Builder<'a> {
    rule: &'a Rule,
    frame: &'a Frame,
    profile: Profile,
    rng: Rng,
    instance: Instance,
    /// Values of the shared variable of sibling rules.
    shared: Option<ValueId>,
    /// An empty e-graph, in which attribute expressions are evaluated.
    empty: Region,
}

/// Builds the left side of `rule`.
pub(crate) fn build(rule: &Rule, frame: &Frame, profile: Profile, rng: &Rng) -> Result<Instance, Refusal> {
    let instance = Instance { body: Graph::new(), module: Module::default(), inputs: Vec::new() };
    let empty = Region::new(&Graph::new(), &Module::default(), None);
    let mut builder = Builder { rule, frame, profile, rng: rng.clone(), instance, shared: None, empty };
    for m in 0..frame.members.len() {
        let mut member = BTreeMap::new();
        if let (Some(v), Some(id)) = (rule.shared, builder.shared) {
            member.insert(v, vec![id]);
        }
        let result = builder.pattern(&rule.from, &frame.members[m], &mut member)?;
        builder.shared = rule.shared.and_then(|v| member.get(&v)).and_then(|ids| ids.first().copied());
        builder.instance.body.results.push(result);
    }
    Ok(builder.instance)
}

impl Builder<'_> {
    fn name(&self, v: Var) -> &str {
        &self.rule.variables[v]
    }

    /// The values of a variable, made when it is first met.
    fn variable(
        &mut self,
        v: Var,
        slots: &Slots,
        made: &mut BTreeMap<Var, Vec<ValueId>>,
    ) -> Result<Vec<ValueId>, Refusal> {
        if let Some(ids) = made.get(&v) {
            return Ok(ids.clone());
        }
        let list = slots.get(&v).map(Vec::as_slice).unwrap_or_default();
        let mut ids = Vec::new();
        for slot in list {
            let Slot::Tensor(t) = slot else {
                return Err(Refusal::Example(format!(
                    "?{} is an operand but given as an attribute",
                    self.name(v)
                )));
            };
            ids.push(self.tensor(t)?);
        }
        made.insert(v, ids.clone());
        Ok(ids)
    }

    fn tensor(&mut self, t: &Tensor) -> Result<ValueId, Refusal> {
        if t.role == Role::Input {
            if t.shape.iter().any(|d| d.as_const().is_some_and(|c| c < 0)) {
                return Err(ill_typed("a size is negative"));
            }
            self.instance.inputs.push(t.clone());
            return Ok(self.instance.body.add_argument(TensorType::new(t.dtype, t.shape.iter().cloned())));
        }
        let shape = TensorType::new(t.dtype, t.shape.iter().cloned()).const_shape();
        let data = shape.and_then(|s| values::tensor(t.role, t.dtype, &s, self.profile, &mut self.rng));
        let data = data.ok_or_else(|| ill_typed("weights and literals have constant sizes"))?;
        if matches!(t.role, Role::Weight | Role::Positive) { self.weight(data) } else { self.constant(data) }
    }

    fn constant(&mut self, data: TensorData) -> Result<ValueId, Refusal> {
        self.instance.body.build1(OpKind::Constant, &[], Attrs::new().with("value", data)).map_err(ill_typed)
    }

    fn weight(&mut self, data: TensorData) -> Result<ValueId, Refusal> {
        let name = format!("w{}", self.instance.module.weights.len());
        let weight = Weight::with_data(data);
        let attrs = weight_attrs(&name, &weight);
        self.instance.module.weights.insert(Arc::from(name.as_str()), weight);
        self.instance.body.build1(OpKind::Weight, &[], attrs).map_err(ill_typed)
    }

    fn pattern(
        &mut self,
        p: &Pattern,
        slots: &Slots,
        made: &mut BTreeMap<Var, Vec<ValueId>>,
    ) -> Result<ValueId, Refusal> {
        match p {
            Pattern::Var(v) => match self.variable(*v, slots, made)?.as_slice() {
                [id] => Ok(*id),
                list => Err(Refusal::Example(format!(
                    "the example must give ?{} once, not {} times",
                    self.name(*v),
                    list.len()
                ))),
            },
            Pattern::Number(_) => Err(Refusal::Example("a number alone is no left side".into())),
            Pattern::Op { kind, attrs, operands, rest } => {
                let attrs = self.attrs(*kind, attrs, slots)?;
                let mut ids = Vec::new();
                for o in operands {
                    ids.push(match o {
                        Pattern::Number(value) => Err(*value),
                        other => Ok(self.pattern(other, slots, made)?),
                    });
                }
                if let Some(v) = rest {
                    ids.extend(self.variable(*v, slots, made)?.into_iter().map(Ok));
                }
                let ids = self.numbers(*kind, &attrs, &ids)?;
                self.instance.body.build1(*kind, &ids, attrs).map_err(ill_typed)
            }
        }
    }

    fn attrs(
        &self,
        kind: OpKind,
        patterns: &[(&'static str, AttrPattern)],
        slots: &Slots,
    ) -> Result<Attrs, Refusal> {
        let mut out = Attrs::new();
        for def in kind.def().attrs {
            let missing = || {
                Refusal::Example(format!(
                    "the example must give attribute '{}' of '{}'",
                    def.name,
                    kind.name()
                ))
            };
            let pattern =
                patterns.iter().find(|(n, _)| *n == def.name).map(|(_, p)| p).ok_or_else(missing)?;
            let attr = match pattern {
                AttrPattern::Var(v) => match slots.get(v).map(Vec::as_slice) {
                    Some([Slot::Attr(a)]) => coerce(a, def.kind),
                    _ => return Err(missing()),
                },
                AttrPattern::Expr(e) => {
                    self.expression(e, slots).map(|a| coerce(&a, def.kind)).ok_or_else(missing)?
                }
            };
            out.set(def.name, attr);
        }
        Ok(out)
    }

    /// The value of an attribute expression, which may use attribute variables only.
    fn expression(&self, e: &Expr, slots: &Slots) -> Option<Attr> {
        let mut bindings: Bindings = vec![None; self.rule.variables.len()];
        for (v, list) in slots {
            if let [Slot::Attr(a)] = list.as_slice() {
                bindings[*v] = Some(Bound::Attr(a.clone()));
            }
        }
        let symbols = SymbolTable::default();
        Scope { graph: &self.empty.graph, symbols: &symbols, bindings: &bindings, siblings: None }.eval(e)
    }

    /// Makes constants of the numbers among the operands: of the first type with which the operation is well-typed.
    fn numbers(
        &mut self,
        kind: OpKind,
        attrs: &Attrs,
        operands: &[Result<ValueId, f64>],
    ) -> Result<Vec<ValueId>, Refusal> {
        let known: Vec<TensorType> =
            operands.iter().flatten().map(|v| self.instance.body.ty(*v).clone()).collect();
        let count = operands.len() - known.len();
        if count == 0 {
            return Ok(operands.iter().filter_map(|o| o.as_ref().ok().copied()).collect());
        }
        let candidates = self.number_types(&known);
        let mut choice = vec![0usize; count];
        loop {
            let mut next = choice.iter().map(|c| &candidates[*c]);
            let types: Option<Vec<&TensorType>> = operands
                .iter()
                .map(|o| match o {
                    Ok(v) => Some(self.instance.body.ty(*v)),
                    Err(_) => next.next(),
                })
                .collect();
            if types.is_some_and(|t| infer::infer(kind, &t, attrs, &[]).is_ok()) {
                break;
            }
            let Some(at) = choice.iter().rposition(|c| c + 1 < candidates.len()) else {
                return Err(ill_typed(format!("no type of the numbers fits '{}'", kind.name())));
            };
            choice[at] += 1;
            choice[at + 1..].fill(0);
        }
        let mut chosen = choice.into_iter().map(|c| candidates[c].clone()).collect::<Vec<_>>().into_iter();
        let mut ids = Vec::new();
        for o in operands {
            ids.push(match (o, o.is_err().then(|| chosen.next()).flatten()) {
                (Err(value), Some(ty)) => self.number(*value, &ty)?,
                (Ok(v), _) => *v,
                (Err(_), None) => return Err(ill_typed("a number has no type")),
            });
        }
        Ok(ids)
    }

    fn number(&mut self, value: f64, ty: &TensorType) -> Result<ValueId, Refusal> {
        let value =
            if value == 0.0 && self.frame.numbers == NumberStyle::NegativeZero { -0.0 } else { value };
        let shape = ty.const_shape().ok_or_else(|| ill_typed("literals have constant sizes"))?;
        let data =
            TensorData::splat(ty.dtype, &shape, value).ok_or_else(|| ill_typed("a literal is too large"))?;
        self.constant(data)
    }

    /// Types that a number may get, most likely first.
    fn number_types(&self, known: &[TensorType]) -> Vec<TensorType> {
        let first: &[Dim] = known.first().map_or(&[], |t| t.shape.as_slice());
        let mut shapes: Vec<Vec<Dim>> = match self.frame.numbers {
            NumberStyle::Scalar | NumberStyle::NegativeZero => vec![vec![]],
            NumberStyle::One => vec![vec![Dim::ONE], vec![]],
            NumberStyle::Full => vec![first.to_vec(), vec![]],
            NumberStyle::Wider => {
                let mut wide = first.to_vec();
                wide.insert(0, Dim::from(2i64));
                vec![wide, vec![]]
            }
        };
        shapes.extend(first.get(1).map(|channels| vec![channels.clone()]));
        shapes.extend(first.last().map(|last| vec![last.clone()]));
        let mut dtypes: Vec<DType> = known.iter().map(|t| t.dtype).collect();
        dtypes.extend([DType::Bool, DType::F32, DType::I64]);
        let mut out: Vec<TensorType> = Vec::new();
        for shape in &shapes {
            for dtype in &dtypes {
                let ty = TensorType::new(*dtype, shape.iter().cloned());
                if !out.contains(&ty) {
                    out.push(ty);
                }
            }
        }
        out
    }
}
