//! Element types inside a region: casts around what computes in f32.
//!
//! The casts stand in the region's module, so that the evaluator computes what the engine does and the error can be
//! measured before anything is built.

use crate::region::Region;
use djinn_diag::Result;
use djinn_ir::{Attrs, DType, Graph, Location, Op, OpKind, TensorType, ValueId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What floats are computed in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Precision {
    /// f16 or bf16 in the place of f32; `None` keeps what the program says.
    pub narrow: Option<DType>,
    /// Other choices for module paths and what is below them; the first that fits counts.
    pub scopes: Vec<(String, Option<DType>)>,
}

impl Precision {
    /// Everything as the program says.
    pub fn keep() -> Precision {
        Precision::default()
    }

    /// f16 for everything that may be narrow.
    pub fn f16() -> Precision {
        Precision { narrow: Some(DType::F16), scopes: Vec::new() }
    }

    /// bf16 for everything that may be narrow.
    pub fn bf16() -> Precision {
        Precision { narrow: Some(DType::BF16), scopes: Vec::new() }
    }

    /// A word for keys of caches.
    pub fn name(&self) -> String {
        let word = |d: Option<DType>| d.map_or("keep", DType::mlir);
        let scopes = self.scopes.iter().map(|(scope, d)| format!(",{scope}={}", word(*d)));
        scopes.fold(word(self.narrow).to_owned(), |all, scope| all + &scope)
    }

    fn of(&self, scope: Option<&str>) -> Option<DType> {
        let within = |path: &str, scope: &str| {
            path.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let chosen = self.scopes.iter().find(|(s, _)| scope.is_some_and(|path| within(path, s)));
        chosen.map_or(self.narrow, |(_, narrow)| *narrow)
    }

    /// The region with casts: contractions and what stands between them compute in the narrow type; norms, softmax,
    /// reductions and everything whose range or error grows stay in f32. Arguments and results keep their types.
    ///
    /// # Errors
    /// If an operation does not take the narrow type.
    pub fn apply(&self, region: &Region) -> Result<Region> {
        if self.narrow.is_none() && self.scopes.iter().all(|(_, d)| d.is_none()) {
            return Ok(region.clone());
        }
        let (graph, origins) = Narrowing::new(self, region).run()?;
        let mut out = region.clone();
        out.module.functions[0].graph = graph;
        out.origins = origins;
        Ok(out)
    }
}

/// May this operation compute in a narrow type?
fn may_be_narrow(op: &Op) -> bool {
    use OpKind as K;
    matches!(
        op.kind,
        K::MatMul | K::Conv | K::ConvTranspose | K::Sdpa | K::MaxPool | K::Relu | K::Gelu | K::Silu
    )
}

type Origin = (u32, Option<Arc<str>>);

struct Narrowing<'a> {
    precision: &'a Precision,
    region: &'a Region,
    graph: Graph,
    origins: Vec<Origin>,
    map: BTreeMap<ValueId, ValueId>,
    /// Casts that are there already.
    casts: BTreeMap<(ValueId, DType), ValueId>,
    /// The narrow value that a cast to f32 was made of.
    narrow: BTreeMap<ValueId, ValueId>,
}

impl<'a> Narrowing<'a> {
    fn new(precision: &'a Precision, region: &'a Region) -> Narrowing<'a> {
        let (graph, origins, map) = (Graph::new(), Vec::new(), BTreeMap::new());
        Narrowing { precision, region, graph, origins, map, casts: BTreeMap::new(), narrow: BTreeMap::new() }
    }

    fn run(mut self) -> Result<(Graph, Vec<Origin>)> {
        let old = self.region.graph();
        for argument in &old.arguments {
            let new = self.graph.add_argument(old.ty(*argument).clone());
            self.map.insert(*argument, new);
        }
        for ((_, op), origin) in old.ops().zip(&self.region.origins) {
            let narrow = self.precision.of(origin.1.as_deref());
            let floats = op.operands.iter().all(|v| old.ty(*v).dtype != DType::F64);
            match narrow.filter(|_| may_be_narrow(op) && floats) {
                Some(narrow) => self.narrowed(op, narrow, origin)?,
                None => self.copied(op, origin),
            }
        }
        self.graph.results = old.results.iter().map(|v| self.map[v]).collect();
        self.graph.eliminate_dead_code();
        self.drop_origins_of_dead()
    }

    /// Which casts are of use is known at the end only.
    fn drop_origins_of_dead(self) -> Result<(Graph, Vec<Origin>)> {
        let alive: Vec<usize> = self.graph.ops().map(|(id, _)| id.0 as usize).collect();
        let origins = alive.iter().filter_map(|n| self.origins.get(*n).cloned()).collect();
        Ok((self.graph, origins))
    }

    fn push(
        &mut self,
        op: &Op,
        operands: Vec<ValueId>,
        types: Vec<TensorType>,
        origin: &Origin,
    ) -> Vec<ValueId> {
        let attrs = op.attrs.clone();
        let id = self.graph.push(op.kind, operands, attrs, Vec::new(), types, Location::default());
        self.origins.push(origin.clone());
        self.graph.op(id).results.clone()
    }

    fn copied(&mut self, op: &Op, origin: &Origin) {
        let operands = op.operands.iter().map(|v| self.map[v]).collect();
        let types = op.results.iter().map(|r| self.region.graph().ty(*r).clone()).collect();
        let results = self.push(op, operands, types, origin);
        self.map.extend(op.results.iter().copied().zip(results));
    }

    fn narrowed(&mut self, op: &Op, narrow: DType, origin: &Origin) -> Result<()> {
        let is_f32 = |graph: &Graph, v: ValueId| graph.ty(v).dtype == DType::F32;
        let mut operands = Vec::new();
        for operand in &op.operands {
            let value = self.map[operand];
            operands.push(match is_f32(&self.graph, value) {
                true => self.cast(value, narrow, origin)?,
                false => value,
            });
        }
        let old = self.region.graph();
        let types = op.results.iter().map(|r| match is_f32(old, *r) {
            true => old.ty(*r).with_dtype(narrow),
            false => old.ty(*r).clone(),
        });
        let results = self.push(op, operands, types.collect(), origin);
        for (result, new) in op.results.iter().zip(results) {
            let wide = match is_f32(old, *result) {
                true => self.cast(new, DType::F32, origin)?,
                false => new,
            };
            self.map.insert(*result, wide);
        }
        Ok(())
    }

    fn cast(&mut self, value: ValueId, to: DType, origin: &Origin) -> Result<ValueId> {
        // Narrow to f32 and back is the value itself.
        if let Some(before) = self.narrow.get(&value).filter(|v| self.graph.ty(**v).dtype == to) {
            return Ok(*before);
        }
        if let Some(known) = self.casts.get(&(value, to)) {
            return Ok(*known);
        }
        let cast = self.graph.build1(OpKind::Cast, &[value], Attrs::new().with("to", to))?;
        self.origins.push(origin.clone());
        self.casts.insert((value, to), cast);
        if to == DType::F32 {
            self.narrow.insert(cast, value);
        }
        Ok(cast)
    }
}
