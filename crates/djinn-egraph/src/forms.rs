//! Forms of weights: what several bodies compute from the same weights ahead of time.
//!
//! A *form* is an expression over weights and literals, such as two weights transposed and joined. A body *stores* the
//! forms that work at run time reads. [`Forms`] numbers the expressions of all bodies of a module, equal ones alike, and
//! remembers which are stored; [`Forms::known_in`] finds them in the e-graph of another body, so that extraction can
//! prefer what is stored already.

use crate::language::{Graph, Head, MAX_LITERAL_ELEMENTS, Node};
use djinn_ir::graph::Graph as Body;
use djinn_ir::{Op, OpKind, TensorType, ValueId, walk};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An expression over weights and literals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormId(u32);

/// The forms of a body's arguments, where they have one: one call of a private function.
pub type ArgumentForms = Vec<Option<FormId>>;

/// Expressions over weights and literals, operands before what they are operands of, and which of them are stored.
#[derive(Debug, Default)]
pub struct Forms {
    /// The children of these nodes are numbers of forms.
    nodes: Vec<Node>,
    index: HashMap<Node, FormId>,
    stored: BTreeSet<FormId>,
}

/// The stored forms that are found in an e-graph.
#[derive(Debug, Default)]
pub struct Known {
    /// For every e-class that is stored, by what part of the contexts.
    pub(crate) stored: BTreeMap<Id, f64>,
    /// The e-node by which the stored form computes the e-class, also for what it is computed from.
    pub(crate) nodes: BTreeMap<Id, Node>,
}

impl Known {
    /// Is nothing of the e-graph stored?
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }
}

/// Bytes of a value, if it is one that counts as stored: of a fixed size and no literal.
pub(crate) fn stored_bytes(ty: &TensorType) -> Option<f64> {
    let elements = ty.numel().as_const()?;
    (elements > MAX_LITERAL_ELEMENTS as i64).then(|| elements as f64 * ty.dtype.size() as f64)
}

impl Forms {
    /// The forms of the values of a body, by value number, in a context.
    pub fn of_body(&mut self, body: &Body, context: &[Option<FormId>]) -> Vec<Option<FormId>> {
        let ahead = walk::ahead_of_time(body, |i| context.get(i).is_some_and(Option::is_some));
        let mut forms = vec![None; body.value_capacity()];
        for (v, form) in body.arguments.iter().zip(context) {
            forms[v.0 as usize] = *form;
        }
        for (_, op) in body.ops() {
            let [result] = op.results[..] else { continue };
            if !ahead[result.0 as usize] || !op.regions.is_empty() || op.kind == OpKind::Transfer {
                continue;
            }
            let operands: Option<Vec<Id>> = op.operands.iter().map(|v| forms[v.0 as usize].map(id)).collect();
            forms[result.0 as usize] =
                operands.map(|operands| self.number(Node::op(op.kind, op.attrs.clone(), operands)));
        }
        forms
    }

    fn number(&mut self, node: Node) -> FormId {
        let next = FormId(self.nodes.len() as u32);
        *self.index.entry(node).or_insert_with_key(|node| {
            self.nodes.push(node.clone());
            next
        })
    }

    /// Remembers what a body stores in a context.
    pub fn store(&mut self, body: &Body, context: &[Option<FormId>]) {
        let read = self.read_by(body, context);
        self.stored.extend(read);
    }

    /// Does a body store in a context another form of a weight than what is stored of it?
    pub fn differs(&mut self, body: &Body, context: &[Option<FormId>]) -> bool {
        let own: BTreeSet<FormId> = self.read_by(body, context).difference(&self.stored).copied().collect();
        let (own, stored) = (self.parts_of(&own), self.parts_of(&self.stored));
        let weight = |node: &Node| node.kind() == Some(OpKind::Weight);
        (0..self.nodes.len()).any(|i| own[i] && stored[i] && weight(&self.nodes[i]))
    }

    /// The forms that operations read which are not done ahead of time. What calls read is for their functions to store.
    fn read_by(&mut self, body: &Body, context: &[Option<FormId>]) -> BTreeSet<FormId> {
        let forms = self.of_body(body, context);
        let form = |v: &ValueId| stored_bytes(body.ty(*v)).and(forms[v.0 as usize]);
        let runs = |op: &Op| op.results.iter().all(|v| forms[v.0 as usize].is_none());
        let readers = body.ops().filter(|(_, op)| op.kind != OpKind::Call && runs(op));
        readers.flat_map(|(_, op)| &op.operands).chain(&body.results).filter_map(form).collect()
    }

    /// The stored forms that the e-graph of a body has, whose arguments have these forms in these contexts.
    pub fn known_in(&self, graph: &Graph, contexts: &[ArgumentForms]) -> Known {
        let mut known = Known::default();
        let parts = self.parts_of(&self.stored);
        for context in contexts {
            let mut found: BTreeSet<Id> = BTreeSet::new();
            let mut classes: Vec<Option<Id>> = vec![None; self.nodes.len()];
            let mut nodes: Vec<Option<Node>> = vec![None; self.nodes.len()];
            for (argument, form) in (0..).zip(context) {
                let Some(FormId(form)) = *form else { continue };
                let node = Node { head: Head::Argument(argument), children: Vec::new() };
                if let (None, Some(class)) = (classes[form as usize], graph.lookup(node.clone())) {
                    (classes[form as usize], nodes[form as usize]) = (Some(class), Some(node));
                }
            }
            // Operands come first, so that what a node is computed from is known before it.
            for i in (0..self.nodes.len()).filter(|i| parts[*i]) {
                if classes[i].is_none() {
                    let node = &self.nodes[i];
                    let children: Option<Vec<Id>> =
                        node.children.iter().map(|c| classes[usize::from(*c)]).collect();
                    let Some(children) = children else { continue };
                    let mut node = Node { head: node.head.clone(), children };
                    classes[i] = graph.lookup(&mut node);
                    nodes[i] = Some(node);
                }
                let (Some(class), Some(node)) = (classes[i], nodes[i].take()) else { continue };
                known.nodes.entry(class).or_insert(node);
                if self.stored.contains(&FormId(i as u32)) {
                    found.insert(class);
                }
            }
            for class in found {
                *known.stored.entry(class).or_default() += 1.0 / contexts.len() as f64;
            }
        }
        known
    }

    /// Which forms are among these or parts of such, by number.
    fn parts_of(&self, forms: &BTreeSet<FormId>) -> Vec<bool> {
        let mut parts: Vec<bool> = (0..self.nodes.len() as u32).map(|i| forms.contains(&FormId(i))).collect();
        for i in (0..self.nodes.len()).rev() {
            if parts[i] {
                self.nodes[i].children.iter().for_each(|c| parts[usize::from(*c)] = true);
            }
        }
        parts
    }
}

/// The number of a form as a child of the node of another.
fn id(form: FormId) -> Id {
    Id::from(form.0 as usize)
}
