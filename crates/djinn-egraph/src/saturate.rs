//! Applying rules until nothing new is found or a named limit stops the search.

use crate::functions::{Bindings, Bound, Scope};
use crate::language::{Facts, Graph, Node, Origin};
use crate::matcher::Matcher;
use crate::rule::{Pattern, Rule, Template, TemplateOperand};
use djinn_ir::data::TensorData;
use djinn_ir::{Attrs, OpKind, SymbolTable, TensorType, infer};
use egg::Id;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an e-node takes with its share of classes, parents and facts, rounded up generously.
pub const BYTES_PER_NODE: usize = 1024;

/// Members that one application of a sibling rule joins; more siblings form several groups.
pub const MAX_SIBLINGS: usize = 64;

/// Limits of one saturation. The first one reached stops the search and is reported; a clock never does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rounds over all rules.
    pub iterations: usize,
    /// E-nodes in the e-graph.
    pub nodes: usize,
    /// Bytes that the e-graph may take, estimated as [`BYTES_PER_NODE`] for every e-node.
    pub memory: usize,
    /// E-nodes beyond the input's, as a multiple of the input's, above which rules that grow the graph rest.
    pub growth: usize,
    /// Matches of one rule in one round; the rest waits for the next round.
    pub matches_per_rule: usize,
    /// Applications of rules in all (`u64::MAX` for no limit): for bisecting a wrong result.
    pub fuel: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            iterations: 24,
            nodes: 400_000,
            memory: 4 << 30,
            growth: 4,
            matches_per_rule: 50_000,
            fuel: u64::MAX,
        }
    }
}

impl Limits {
    /// E-nodes that both the node and the memory limit allow.
    fn max_nodes(&self) -> usize {
        self.nodes.min(self.memory / BYTES_PER_NODE)
    }
}

/// Why the search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// A whole round found nothing new.
    Saturated,
    /// [`Limits::iterations`].
    IterationLimit,
    /// [`Limits::nodes`].
    NodeLimit,
    /// [`Limits::memory`].
    MemoryLimit,
    /// [`Limits::fuel`].
    Fuel,
}

impl StopReason {
    /// The words used in remarks and statistics.
    pub fn describe(self) -> &'static str {
        match self {
            StopReason::Saturated => "saturated",
            StopReason::IterationLimit => "iteration limit",
            StopReason::NodeLimit => "node limit",
            StopReason::MemoryLimit => "memory limit",
            StopReason::Fuel => "out of fuel",
        }
    }
}

/// What one rule did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Matches of the left side whose conditions held.
    pub matched: u64,
    /// Matches that made two e-classes equal that were not.
    pub applied: u64,
    /// Matches whose right side was refused: it could not be built, or its type is not provably the same.
    pub refused: u64,
}

/// The outcome of a saturation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saturation {
    /// Why it ended.
    pub stop: StopReason,
    /// Rounds.
    pub iterations: usize,
    /// E-nodes at the end.
    pub nodes: usize,
    /// E-classes at the end.
    pub classes: usize,
    /// Per rule, in the order of the rules.
    pub rules: Vec<RuleCount>,
}

/// Applies `rules` to the e-graph until nothing new is found or a limit stops it.
pub fn saturate(graph: &mut Graph, rules: &[Rule], symbols: &SymbolTable, limits: &Limits) -> Saturation {
    let start = graph.total_number_of_nodes();
    let mut run = Run {
        graph,
        rules,
        symbols,
        limits,
        counts: vec![RuleCount::default(); rules.len()],
        fuel: limits.fuel,
    };
    let (mut stop, mut iterations) = (StopReason::IterationLimit, 0);
    while iterations < limits.iterations {
        iterations += 1;
        let changed = run.round(start.saturating_mul(1 + limits.growth));
        run.graph.rebuild();
        if run.fuel == 0 {
            stop = StopReason::Fuel;
            break;
        }
        if run.graph.total_number_of_nodes() > limits.max_nodes() {
            let by_memory = limits.max_nodes() < limits.nodes;
            stop = if by_memory { StopReason::MemoryLimit } else { StopReason::NodeLimit };
            break;
        }
        if !changed {
            stop = StopReason::Saturated;
            break;
        }
    }
    let counts = run.counts;
    Saturation {
        stop,
        iterations,
        nodes: graph.total_number_of_nodes(),
        classes: graph.number_of_classes(),
        rules: counts,
    }
}

struct Run<'a> {
    graph: &'a mut Graph,
    rules: &'a [Rule],
    symbols: &'a SymbolTable,
    limits: &'a Limits,
    counts: Vec<RuleCount>,
    fuel: u64,
}

/// A match that is to be applied: the e-class, its bindings, and all members for a sibling rule.
struct Match {
    class: Id,
    bindings: Bindings,
    members: Option<(Arc<Vec<Bindings>>, usize)>,
}

impl Run<'_> {
    /// One round: searches all rules on the same e-graph, then applies all matches. Did anything change?
    fn round(&mut self, grow_above: usize) -> bool {
        let index = index_by_kind(self.graph);
        let resting = self.graph.total_number_of_nodes() > grow_above;
        let mut found: Vec<(usize, Vec<Match>)> = Vec::new();
        for (r, rule) in self.rules.iter().enumerate() {
            if rule.grows && resting {
                continue;
            }
            let matches = if rule.shared.is_some() {
                self.search_siblings(rule, &index)
            } else {
                self.search(rule, &index)
            };
            self.counts[r].matched += matches.len() as u64;
            found.push((r, matches));
        }
        let mut changed = false;
        for (r, matches) in found {
            for m in matches {
                if self.fuel == 0 || self.graph.total_number_of_nodes() > self.limits.max_nodes() {
                    return changed;
                }
                match self.apply(&self.rules[r].to, &m) {
                    Some(true) => {
                        self.counts[r].applied += 1;
                        self.fuel -= 1;
                        changed = true;
                    }
                    Some(false) => {}
                    None => self.counts[r].refused += 1,
                }
            }
        }
        changed
    }

    fn candidates<'i>(rule: &Rule, index: &'i BTreeMap<OpKind, Vec<Id>>) -> &'i [Id] {
        match &rule.from {
            Pattern::Op { kind, .. } => index.get(kind).map_or(&[], Vec::as_slice),
            Pattern::Var(_) | Pattern::Number(_) => &[],
        }
    }

    fn search(&self, rule: &Rule, index: &BTreeMap<OpKind, Vec<Id>>) -> Vec<Match> {
        let matcher = Matcher { graph: self.graph, symbols: self.symbols };
        let mut out = Vec::new();
        for class in Self::candidates(rule, index) {
            for bindings in matcher.matches_of(rule, *class) {
                out.push(Match { class: *class, bindings, members: None });
                if out.len() >= self.limits.matches_per_rule {
                    return out;
                }
            }
        }
        out
    }

    fn search_siblings(&self, rule: &Rule, index: &BTreeMap<OpKind, Vec<Id>>) -> Vec<Match> {
        let mut by_shared: BTreeMap<Bound, Vec<(Id, Bindings)>> = BTreeMap::new();
        for m in self.search(rule, index) {
            let Some(shared) = rule.shared.and_then(|v| m.bindings[v].clone()) else { continue };
            // One match per e-class: the first in the matcher's order. Matches of one e-class follow each other.
            let members = by_shared.entry(shared).or_default();
            if members.last().is_none_or(|(id, _)| *id != m.class) {
                members.push((m.class, m.bindings));
            }
        }
        let mut out = Vec::new();
        for members in by_shared.into_values() {
            for group in members.chunks(MAX_SIBLINGS).filter(|g| g.len() >= 2) {
                let all: Arc<Vec<Bindings>> = Arc::new(group.iter().map(|(_, b)| b.clone()).collect());
                for (i, (class, bindings)) in group.iter().enumerate() {
                    let members = Some((Arc::clone(&all), i));
                    out.push(Match { class: *class, bindings: bindings.clone(), members });
                }
            }
        }
        out
    }

    /// Builds the right side and merges; `None` if it was refused, else whether anything changed.
    fn apply(&mut self, template: &Template, m: &Match) -> Option<bool> {
        let class = self.graph.find(m.class);
        let origin = self.graph[class].data.origin.clone();
        let members = m.members.as_ref().map(|(all, i)| (all.as_slice(), *i));
        let mut builder =
            Builder { graph: self.graph, symbols: self.symbols, bindings: &m.bindings, members, origin };
        let new = builder.build(template)?;
        let new = self.graph.find(new);
        if new == class {
            return Some(false);
        }
        // Equality of types by proof: the same element type, rank and canonical sizes.
        (self.graph[new].data.types == self.graph[class].data.types).then_some(())?;
        Some(self.graph.union(class, new))
    }
}

/// E-classes that contain an operation of each kind, in ascending order.
fn index_by_kind(graph: &Graph) -> BTreeMap<OpKind, Vec<Id>> {
    let mut index: BTreeMap<OpKind, Vec<Id>> = BTreeMap::new();
    let mut ids: Vec<Id> = graph.classes().map(|c| c.id).collect();
    ids.sort_unstable();
    for id in ids {
        for node in &graph[id].nodes {
            if let Some(kind) = node.kind() {
                let list = index.entry(kind).or_default();
                if list.last() != Some(&id) {
                    list.push(id);
                }
            }
        }
    }
    index
}

/// Builds a right side under bindings.
pub(crate) struct Builder<'a> {
    pub(crate) graph: &'a mut Graph,
    pub(crate) symbols: &'a SymbolTable,
    pub(crate) bindings: &'a Bindings,
    pub(crate) members: Option<(&'a [Bindings], usize)>,
    /// Where the operation comes from that the template replaces.
    pub(crate) origin: Option<Arc<Origin>>,
}

impl Builder<'_> {
    fn scope(&self) -> Scope<'_> {
        Scope { graph: self.graph, symbols: self.symbols, bindings: self.bindings, siblings: self.members }
    }

    /// The e-class of the template; `None` if a part of it has no value or violates a constraint of the op table.
    pub(crate) fn build(&mut self, template: &Template) -> Option<Id> {
        let origin = self.origin.clone();
        let helper = origin.as_deref().map(|o| Arc::new(o.of_helper()));
        self.build_for(template, &origin, &helper)
    }

    /// [`Builder::build`] for an operation of this origin, whose operands are of that of a helper.
    fn build_for(
        &mut self,
        template: &Template,
        origin: &Option<Arc<Origin>>,
        helper: &Option<Arc<Origin>>,
    ) -> Option<Id> {
        match template {
            Template::Var(v) => match self.bindings[*v].as_ref()? {
                Bound::Class(id) => Some(self.graph.find(*id)),
                _ => None,
            },
            Template::Scalar(value, like) => {
                let Bound::Class(like) = self.bindings[*like].as_ref()? else { return None };
                let dtype = self.graph[self.graph.find(*like)].data.ty().dtype;
                let djinn_ir::Attr::Float(value) =
                    self.scope().eval_as(value, djinn_ir::attr::AttrKind::Float)?
                else {
                    return None;
                };
                let data = TensorData::splat(dtype, &[], value.get())?;
                Some(self.add(OpKind::Constant, Attrs::new().with("value", data), Vec::new(), origin))
            }
            Template::Op { kind, attrs, operands } => {
                let mut children = Vec::new();
                for o in operands {
                    match o {
                        TemplateOperand::One(t) => children.push(self.build_for(t, helper, helper)?),
                        TemplateOperand::Splice(v) => children.extend(self.scope().splice(*v)?),
                    }
                }
                let values = self.scope().attrs_of(*kind, attrs)?;
                let types: Vec<&TensorType> = children.iter().map(|c| self.graph[*c].data.ty()).collect();
                infer::infer(*kind, &types, &values, &[]).ok()?;
                Some(self.add(*kind, values, children, origin))
            }
        }
    }

    fn add(&mut self, kind: OpKind, attrs: Attrs, children: Vec<Id>, origin: &Option<Arc<Origin>>) -> Id {
        let id = self.graph.add(Node::op(kind, attrs, children));
        let facts: &mut Facts = &mut self.graph[id].data;
        if facts.origin.is_none() {
            facts.origin.clone_from(origin);
        }
        id
    }
}
