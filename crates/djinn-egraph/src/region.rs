//! IR bodies to e-graphs and back.

use crate::functions::{Bindings, Bound, Scope};
use crate::language::{ConstantEvaluator, Facting, Graph, Head, Node, Origin};
use crate::matcher::Matcher;
use crate::rule::{Rule, Template, TemplateOperand};
use djinn_diag::{Result, internal};
use djinn_ir::graph::Graph as Body;
use djinn_ir::{Attrs, Module, Op, OpKind, TensorData, TensorType, ValueId};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Weights of at most this many elements have their values looked into by rules (scales, epsilons, masks).
const MAX_VISIBLE_WEIGHT: usize = 4096;

/// One body as an e-graph.
pub struct Region {
    /// The e-graph.
    pub graph: Graph,
    /// E-classes of the body's results.
    pub roots: Vec<Id>,
    /// The operations that rewriting does not look into.
    pub(crate) barriers: Vec<Op>,
    /// For every operand of every barrier the weight that it is, if nothing but calls uses that: no rule could see it, so
    /// it is no e-node, and the caller of many layers is a small e-graph.
    pub(crate) hidden: Vec<Vec<Option<Op>>>,
    /// The e-nodes of the input, children first: the selection that the result is never worse than.
    pub(crate) original: Vec<(Id, Node)>,
    /// The results as the input named them.
    pub(crate) original_roots: Vec<Id>,
}

/// The cost of an e-node: operation, attributes, operand types, result types, and whether it depends on weights only.
pub type CostFn<'a> = dyn Fn(OpKind, &Attrs, &[&TensorType], &[TensorType], bool) -> f64 + 'a;

/// What an e-node that stands for a literal costs: nothing but a tie-breaker, so that fewer literals win.
const LITERAL_COST: f64 = 1e-12;

impl Region {
    /// Makes the e-graph of a body.
    pub fn new(body: &Body, module: &Module, evaluator: Option<Arc<ConstantEvaluator>>) -> Region {
        Region::with_weight_arguments(body, module, evaluator, BTreeSet::new())
    }

    /// [`Region::new`] for a body some of whose arguments, by number, are always weights.
    pub fn with_weight_arguments(
        body: &Body,
        module: &Module,
        evaluator: Option<Arc<ConstantEvaluator>>,
        weight_arguments: BTreeSet<u32>,
    ) -> Region {
        let mut weight_values = BTreeMap::new();
        for (_, op) in body.ops().filter(|(_, op)| op.kind == OpKind::Weight) {
            if let Some(value) = module.constant_value(op).filter(|v| v.numel() <= MAX_VISIBLE_WEIGHT) {
                weight_values.insert(Arc::from(op.attrs.str("name")), value.clone());
            }
        }
        let mut barriers: Vec<Op> = Vec::new();
        let mut barrier_types: Vec<Arc<[TensorType]>> = Vec::new();
        for (_, op) in body.ops().filter(|(_, op)| is_barrier(op)) {
            barriers.push(op.clone());
            barrier_types.push(op.results.iter().map(|v| body.ty(*v).clone()).collect());
        }
        let hidden_weights = weights_of_calls(body);
        let argument_types = body.arguments.iter().map(|v| body.ty(*v).clone()).collect();
        let analysis = Facting { argument_types, barrier_types, evaluator, weight_values, weight_arguments };
        let mut region = Region {
            graph: Graph::new(analysis),
            roots: Vec::new(),
            barriers,
            hidden: Vec::new(),
            original: Vec::new(),
            original_roots: Vec::new(),
        };
        let mut ids: BTreeMap<ValueId, Id> = BTreeMap::new();
        for (i, v) in body.arguments.iter().enumerate() {
            ids.insert(*v, region.add(Node { head: Head::Argument(i as u32), children: vec![] }, None));
        }
        let mut barrier = 0u32;
        for (_, op) in body.ops() {
            if op.kind == OpKind::Weight && hidden_weights.contains_key(&op.results[0]) {
                continue;
            }
            let children: Vec<Id> = op.operands.iter().filter_map(|v| ids.get(v).copied()).collect();
            let origin = Some(Arc::new(Origin::of(op)));
            if is_barrier(op) {
                let id = region.add(Node { head: Head::Barrier(barrier), children }, origin.clone());
                let weight = |v: &ValueId| hidden_weights.get(v).map(|op| (*op).clone());
                region.hidden.push(op.operands.iter().map(weight).collect());
                barrier += 1;
                for (i, v) in op.results.iter().enumerate() {
                    let projection = Node { head: Head::Projection(i as u32), children: vec![id] };
                    ids.insert(*v, region.add(projection, origin.clone()));
                }
            } else {
                let id = region.add(Node::op(op.kind, op.attrs.clone(), children), origin);
                ids.insert(op.results[0], id);
            }
        }
        region.roots = body.results.iter().filter_map(|v| ids.get(v).copied()).collect();
        region.original_roots = region.roots.clone();
        region.graph.rebuild();
        region
    }

    fn add(&mut self, node: Node, origin: Option<Arc<Origin>>) -> Id {
        let id = self.graph.add(node.clone());
        if self.graph[id].data.origin.is_none() {
            self.graph[id].data.origin = origin;
        }
        self.original.push((id, node));
        id
    }

    /// The cost of what the results of the input need, equal operations counted once.
    pub(crate) fn original_cost(&self, cost: &CostFn<'_>) -> f64 {
        let nodes: BTreeMap<Id, &Node> = self.original.iter().rev().map(|(id, node)| (*id, node)).collect();
        let mut needed: BTreeSet<Id> = BTreeSet::new();
        let mut stack = self.original_roots.clone();
        while let Some(id) = stack.pop() {
            if needed.insert(id) {
                stack.extend(nodes.get(&id).into_iter().flat_map(|n| n.children.iter().copied()));
            }
        }
        needed
            .iter()
            .filter_map(|id| nodes.get(id).map(|n| self.node_cost(cost, n, self.graph.find(*id))))
            .sum()
    }

    pub(crate) fn node_cost(&self, cost: &CostFn<'_>, node: &Node, id: Id) -> f64 {
        let types = &self.graph[id].data.types;
        let operands: Vec<&TensorType> =
            node.children.iter().filter_map(|c| self.graph[*c].data.types.first()).collect();
        match &node.head {
            Head::Argument(_) | Head::Projection(_) => 0.0,
            Head::Barrier(i) => {
                let op = &self.barriers[*i as usize];
                let mut seen = operands.into_iter();
                let operands: Vec<&TensorType> = self.hidden[*i as usize]
                    .iter()
                    .filter_map(|hidden| match hidden {
                        None => seen.next(),
                        Some(weight) => weight.attrs.types("types").first(),
                    })
                    .collect();
                cost(op.kind, &op.attrs, &operands, types, false)
            }
            Head::Op(OpKind::Constant | OpKind::Weight | OpKind::DimExpr, _) => LITERAL_COST,
            Head::Op(kind, attrs) => cost(*kind, attrs, &operands, types, self.graph[id].data.weight_only),
        }
    }

    /// Emits the chosen e-nodes, operands first.
    pub(crate) fn rebuild<'n>(
        &self,
        classes: &[Id],
        index: &[u32],
        chosen: &dyn Fn(u32) -> Option<&'n Node>,
    ) -> Result<Body> {
        let mut body = Body::new();
        let arguments: Vec<ValueId> =
            self.graph.analysis.argument_types.iter().map(|ty| body.add_argument(ty.clone())).collect();
        let mut done: BTreeMap<u32, Vec<ValueId>> = BTreeMap::new();
        let mut weights: BTreeMap<Arc<str>, ValueId> = BTreeMap::new();
        let roots: Vec<u32> = self.roots.iter().map(|r| index[usize::from(self.graph.find(*r))]).collect();
        // Depth first with an explicit stack: models can be thousands of operations deep.
        let mut stack: Vec<(u32, usize)> = roots.iter().rev().map(|r| (*r, 0)).collect();
        while let Some((class, next)) = stack.pop() {
            if done.contains_key(&class) {
                continue;
            }
            let node = chosen(class)
                .ok_or_else(|| internal("extract.choice", "a needed e-class has no chosen node"))?;
            if let Some(child) = node.children.get(next) {
                stack.push((class, next + 1));
                let child = index[usize::from(self.graph.find(*child))];
                if !done.contains_key(&child) {
                    stack.push((child, 0));
                }
                continue;
            }
            let operands: Vec<ValueId> =
                node.children.iter().map(|c| done[&index[usize::from(self.graph.find(*c))]][0]).collect();
            let facts = &self.graph[classes[class as usize]].data;
            let origin = facts.origin.as_deref().cloned().unwrap_or_default();
            let values = match &node.head {
                Head::Argument(i) => vec![arguments[*i as usize]],
                Head::Projection(i) => {
                    let all = &done[&index[usize::from(self.graph.find(node.children[0]))]];
                    vec![all[*i as usize]]
                }
                Head::Barrier(i) => {
                    let op = &self.barriers[*i as usize];
                    let operands = self.with_hidden(*i as usize, operands, &mut body, &mut weights);
                    let id = body.push(
                        op.kind,
                        operands,
                        op.attrs.clone(),
                        op.regions.clone(),
                        facts.types.to_vec(),
                        op.location.clone(),
                    );
                    for (name, value) in &op.annotations {
                        body.annotate(id, name, value.clone());
                    }
                    body.op(id).results.clone()
                }
                Head::Op(kind, attrs) => {
                    let id = body.build(*kind, &operands, (**attrs).clone(), Vec::new(), origin.location)?;
                    for (name, value) in origin.annotations {
                        body.annotate(id, &name, value);
                    }
                    body.op(id).results.clone()
                }
            };
            done.insert(class, values);
        }
        body.results = roots.iter().map(|r| done[r][0]).collect();
        Ok(body)
    }

    /// The operands of a barrier with its hidden weights among them; reads those that the body has not read yet.
    fn with_hidden(
        &self,
        barrier: usize,
        seen: Vec<ValueId>,
        body: &mut Body,
        read: &mut BTreeMap<Arc<str>, ValueId>,
    ) -> Vec<ValueId> {
        let mut seen = seen.into_iter();
        let mut operands = Vec::new();
        for hidden in &self.hidden[barrier] {
            operands.extend(match hidden {
                None => seen.next(),
                Some(op) => {
                    let name: Arc<str> = Arc::from(op.attrs.str("name"));
                    Some(*read.entry(name).or_insert_with(|| {
                        let types = op.attrs.types("types").to_vec();
                        let id =
                            body.push(op.kind, vec![], op.attrs.clone(), vec![], types, op.location.clone());
                        op.annotations.iter().for_each(|(n, value)| body.annotate(id, n, value.clone()));
                        body.op(id).results[0]
                    }))
                }
            });
        }
        operands
    }
}

/// One rewrite of the results of a body, without saturation: every body that `rule` makes of it when its left side
/// matches at a result (for sibling rules: when every result is a member). Nothing else changes, so evaluating the
/// body and the rewritten one compares the two sides of the rule.
pub fn rewrite_results(body: &Body, module: &Module, rule: &Rule) -> Vec<Body> {
    let region = Region::new(body, module, None);
    let mut values: BTreeMap<Id, ValueId> = BTreeMap::new();
    let hidden = weights_of_calls(body);
    let results = body.ops().flat_map(|(_, op)| op.results.clone()).filter(|v| !hidden.contains_key(v));
    let all = body.arguments.iter().copied().chain(results);
    let ids = region.original.iter().filter(|(_, n)| !matches!(n.head, Head::Barrier(_))).map(|(id, _)| *id);
    for (v, id) in all.zip(ids) {
        values.entry(region.graph.find(id)).or_insert(v);
    }
    let matcher = Matcher { graph: &region.graph, symbols: &module.symbols };
    let matches: Vec<Vec<Bindings>> =
        region.roots.iter().map(|root| matcher.matches_of(rule, *root)).collect();
    let mut out = Vec::new();
    if rule.shared.is_some() {
        let Some(members) = matches.iter().map(|m| m.first().cloned()).collect::<Option<Vec<_>>>() else {
            return out;
        };
        let mut new = body.clone();
        for i in 0..members.len() {
            let scope = Scope {
                graph: &region.graph,
                symbols: &module.symbols,
                bindings: &members[i],
                siblings: Some((&members, i)),
            };
            match emit(&mut new, &values, scope, &rule.to) {
                Some(v) => new.results[i] = v,
                None => return out,
            }
        }
        out.push(new);
    } else {
        for bindings in matches.iter().flatten() {
            let mut new = body.clone();
            let scope = Scope { graph: &region.graph, symbols: &module.symbols, bindings, siblings: None };
            if let Some(v) = emit(&mut new, &values, scope, &rule.to) {
                new.results[0] = v;
                out.push(new);
            }
        }
    }
    out.retain(|new| new.results.iter().zip(&body.results).all(|(a, b)| new.ty(*a) == body.ty(*b)));
    out
}

/// Emits a right side as operations of `body`.
fn emit(
    body: &mut Body,
    values: &BTreeMap<Id, ValueId>,
    scope: Scope<'_>,
    template: &Template,
) -> Option<ValueId> {
    let value_of = |id: &Id| values.get(&scope.graph.find(*id)).copied();
    match template {
        Template::Var(v) => match scope.bindings[*v].as_ref()? {
            Bound::Class(id) => value_of(id),
            _ => None,
        },
        Template::Scalar(value, like) => {
            let Bound::Class(like) = scope.bindings[*like].as_ref()? else { return None };
            let dtype = scope.graph[scope.graph.find(*like)].data.ty().dtype;
            let djinn_ir::Attr::Float(value) = scope.eval_as(value, djinn_ir::attr::AttrKind::Float)? else {
                return None;
            };
            let data = TensorData::splat(dtype, &[], value.get())?;
            body.build1(OpKind::Constant, &[], Attrs::new().with("value", data)).ok()
        }
        Template::Op { kind, attrs, operands } => {
            let mut inputs = Vec::new();
            for o in operands {
                match o {
                    TemplateOperand::One(t) => inputs.push(emit(body, values, scope, t)?),
                    TemplateOperand::Splice(v) => {
                        for id in scope.splice(*v)? {
                            inputs.push(value_of(&id)?);
                        }
                    }
                }
            }
            let attrs = scope.attrs_of(*kind, attrs)?;
            body.build1(*kind, &inputs, attrs).ok()
        }
    }
}

/// Weights that nothing but calls uses, by the value that they are.
fn weights_of_calls(body: &Body) -> BTreeMap<ValueId, &Op> {
    let mut others: BTreeSet<ValueId> = body.results.iter().copied().collect();
    let uses = body.ops().filter(|(_, op)| op.kind != OpKind::Call).flat_map(|(_, op)| &op.operands);
    others.extend(uses);
    let calls = body.ops().filter(|(_, op)| op.kind == OpKind::Call).flat_map(|(_, op)| &op.operands);
    let weight = |v: &ValueId| {
        let op = body.op(body.definition(*v)?.0);
        (op.kind == OpKind::Weight && !others.contains(v)).then_some((*v, op))
    };
    calls.filter_map(weight).collect()
}

/// Operations with several results or regions, and opaque ones.
fn is_barrier(op: &Op) -> bool {
    op.results.len() != 1
        || !op.regions.is_empty()
        || matches!(op.kind, OpKind::Opaque | OpKind::Call | OpKind::Transfer)
}
