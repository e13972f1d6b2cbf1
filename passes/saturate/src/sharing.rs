//! Weights that the entry functions of a program share: functions are worked on entry by entry, and each prefers the
//! forms of weights that earlier ones store.

use djinn_egraph::forms::{ArgumentForms, Forms, Known};
use djinn_egraph::region::Region;
use djinn_ir::{Graph, Module, OpKind, walk};
use std::collections::BTreeSet;

/// Chains of calls that lead to one function, at most: a function that is called in more ways is left alone.
const MAX_CONTEXTS: usize = 1024;

/// Calls inside calls, at most.
const MAX_DEPTH: usize = 64;

/// What the functions that have been worked on store.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// None if that is not wanted, or in a module of one entry function, which has nobody to share with.
    forms: Option<Forms>,
}

impl Sharing {
    pub(crate) fn new(module: &Module, wanted: bool) -> Sharing {
        Sharing { forms: (wanted && module.entries().count() > 1).then(Forms::default) }
    }

    /// Is there anything to share?
    pub(crate) fn is_active(&self) -> bool {
        self.forms.is_some()
    }

    /// The chains of calls that lead to function number `index`, each as the forms of its arguments: where arguments are
    /// always weights, what the caller hands over.
    pub(crate) fn contexts(&mut self, module: &Module, index: usize) -> Vec<ArgumentForms> {
        let Some(forms) = &mut self.forms else { return Vec::new() };
        contexts_of(forms, module, index, MAX_DEPTH).unwrap_or_default()
    }

    /// What of the e-graph is stored already.
    pub(crate) fn known_in(&self, region: &Region, contexts: &[ArgumentForms]) -> Known {
        self.forms.as_ref().map(|forms| forms.known_in(&region.graph, contexts)).unwrap_or_default()
    }

    /// Does a body store another form of a weight than those that have been worked on?
    pub(crate) fn differs(&mut self, graph: &Graph, contexts: &[ArgumentForms]) -> bool {
        let Some(forms) = &mut self.forms else { return false };
        contexts.iter().any(|context| forms.differs(graph, context))
    }

    /// Remembers what a function and the regions of its operations store.
    pub(crate) fn store(&mut self, graph: &Graph, contexts: &[ArgumentForms]) {
        let Some(forms) = &mut self.forms else { return };
        contexts.iter().for_each(|context| forms.store(graph, context));
        let regions = graph.ops().flat_map(|(_, op)| &op.regions);
        regions.for_each(|region| walk::for_each_graph(region, &mut |g| forms.store(g, &[])));
    }
}

/// The context of a body outside of any call, which knows of no argument.
pub(crate) fn outside(graph: &Graph) -> ArgumentForms {
    vec![None; graph.arguments.len()]
}

/// None if there are too many.
fn contexts_of(forms: &mut Forms, module: &Module, index: usize, depth: usize) -> Option<Vec<ArgumentForms>> {
    let function = &module.functions[index];
    if !function.is_private() {
        return Some(vec![outside(&function.graph)]);
    }
    let mut contexts = Vec::new();
    for (i, caller) in module.functions.iter().enumerate() {
        let calls = |g: &Graph| walk::callees(g).iter().filter(|name| ***name == *function.name).count();
        let own = caller
            .graph
            .ops()
            .filter(|(_, op)| op.kind == OpKind::Call && op.attrs.str("callee") == &*function.name);
        let own: Vec<_> = own.map(|(_, op)| op).collect();
        // Of calls inside the regions of operations nothing is known.
        let inside = calls(&caller.graph) - own.len();
        contexts.extend(std::iter::repeat_n(outside(&function.graph), inside));
        if own.is_empty() {
            continue;
        }
        for context in contexts_of(forms, module, i, depth.checked_sub(1)?)? {
            let values = forms.of_body(&caller.graph, &context);
            for call in &own {
                let form = |(v, (_, kind)): (&djinn_ir::ValueId, &(_, djinn_ir::ArgumentKind))| {
                    values[v.0 as usize].filter(|_| *kind == djinn_ir::ArgumentKind::Weight)
                };
                contexts.push(call.operands.iter().zip(&function.arguments).map(form).collect());
            }
            if contexts.len() > MAX_CONTEXTS {
                return None;
            }
        }
    }
    Some(contexts)
}

/// Numbers of the functions: entry by entry, each with the private functions that it calls.
pub(crate) fn entry_by_entry(module: &Module) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let number = |name: &str| module.functions.iter().position(|f| *f.name == *name);
    let entries = (0..module.functions.len()).filter(|i| !module.functions[*i].is_private());
    for first in entries.chain(0..module.functions.len()) {
        let mut pending = vec![first];
        while let Some(i) = pending.pop() {
            if seen.insert(i) {
                order.push(i);
                let mut callees: Vec<usize> =
                    walk::callees(&module.functions[i].graph).into_iter().filter_map(number).collect();
                callees.sort_unstable_by(|a, b| b.cmp(a));
                callees.dedup();
                pending.extend(callees);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Saturate, builtin_rules};
    use djinn_ir::{
        ArgumentKind, Attrs, DType, Function, ResultKind, TensorType, ValueId, Visibility, attrs, verify,
    };
    use djinn_pass::{Pass, PassContext};

    fn matrix(rows: i64, columns: i64) -> TensorType {
        TensorType::of(DType::F32, &[rows, columns])
    }

    fn weight(g: &mut Graph, name: &str) -> ValueId {
        let attrs = attrs! { name: name, types: vec![matrix(64, 256)], hash: "" };
        g.build1(OpKind::Weight, &[], attrs).expect("well typed")
    }

    fn function(name: &str, visibility: Visibility, graph: Graph, weights: usize) -> Function {
        let inputs = graph.arguments.len() - weights;
        let kind = |i| if i < inputs { ArgumentKind::Input } else { ArgumentKind::Weight };
        Function {
            name: name.into(),
            visibility,
            arguments: (0..graph.arguments.len()).map(|i| (format!("a{i}").into(), kind(i))).collect(),
            results: (0..graph.results.len()).map(|i| (format!("r{i}").into(), ResultKind::Output)).collect(),
            graph,
        }
    }

    /// Long work on `rows` rows, then products of them with `gate` and `up`.
    fn entry(name: &str, rows: i64) -> Function {
        let mut g = Graph::new();
        let mut x = g.add_argument(matrix(rows, 64));
        for _ in 0..12 {
            x = g.build1(OpKind::Tanh, &[x], Attrs::new()).expect("well typed");
        }
        for name in ["gate", "up"] {
            let w = weight(&mut g, name);
            let y = g.build1(OpKind::MatMul, &[x, w], Attrs::new()).expect("well typed");
            g.results.push(y);
        }
        function(name, Visibility::Entry, g, 0)
    }

    fn module(functions: Vec<Function>) -> Module {
        let mut module = Module { functions, ..Module::default() };
        for name in ["gate", "up"] {
            module.weights.insert(name.into(), djinn_ir::Weight { ty: matrix(64, 256), data: None });
        }
        assert!(verify::verify(&module).is_ok());
        module
    }

    /// Products in every function after the pass.
    fn products(functions: Vec<Function>, memory_worth: u64) -> Vec<usize> {
        let mut module = module(functions);
        let mut pass = Saturate::with_rules(builtin_rules().expect("they parse"));
        pass.memory_worth = memory_worth;
        pass.run(&mut module, &mut PassContext::new()).expect("no difficulty");
        assert!(verify::verify(&module).is_ok());
        let count = |f: &Function| f.graph.ops().filter(|(_, op)| op.kind == OpKind::MatMul).count();
        module.functions.iter().map(count).collect()
    }

    #[test]
    fn the_first_entry_chooses_the_form_of_weights() {
        // Slices of one row cost nothing, slices of many rows more than a second product.
        let (prefill, decode) = (|| entry("prefill", 512), || entry("decode", 1));
        assert_eq!((products(vec![prefill()], 20), products(vec![decode()], 20)), (vec![2], vec![1]));
        assert_eq!(products(vec![prefill(), decode()], 20), [2, 2]);
        assert_eq!(products(vec![decode(), prefill()], 20), [1, 1]);
        assert_eq!(products(vec![prefill(), decode()], 0), [2, 1]);
    }

    /// An entry function that calls `callee` with each of the weights.
    fn caller(name: &str, callee: &str, weights: &[&str]) -> Function {
        let mut g = Graph::new();
        let x = g.add_argument(matrix(4, 64));
        for name in weights {
            let w = weight(&mut g, name);
            let attrs = attrs! { callee: callee, types: vec![matrix(4, 256)] };
            let call = g.build(OpKind::Call, &[x, w], attrs, Vec::new(), Default::default());
            let y = g.op(call.expect("well typed")).results[0];
            g.results.push(y);
        }
        function(name, Visibility::Entry, g, 0)
    }

    fn callee(name: &str) -> Function {
        let mut g = Graph::new();
        let (x, w) = (g.add_argument(matrix(4, 64)), g.add_argument(matrix(64, 256)));
        g.results = vec![g.build1(OpKind::MatMul, &[x, w], Attrs::new()).expect("well typed")];
        function(name, Visibility::Private, g, 1)
    }

    #[test]
    fn private_functions_follow_their_entry_and_know_their_weights() {
        let module = module(vec![
            caller("a", "layer.a", &["gate", "up"]),
            caller("b", "layer.b", &["up"]),
            callee("layer.b"),
            callee("layer.a"),
        ]);
        assert_eq!(entry_by_entry(&module), [0, 3, 1, 2]);
        let mut sharing = Sharing::new(&module, true);
        let (a, b) = (sharing.contexts(&module, 3), sharing.contexts(&module, 2));
        assert_eq!((a.len(), b.len()), (2, 1));
        assert!(a[0][0].is_none() && a[0][1].is_some() && a[0][1] != a[1][1]);
        assert_eq!(a[1], b[0]);
        sharing.store(&module.functions[3].graph, &a);
        assert!(!sharing.differs(&module.functions[2].graph, &b));
        assert!(!Sharing::new(&module, false).is_active());
    }
}
