//! Places in the model's code of operations that stand in a function for those of several instances.
//!
//! The scopes of the instances differ in some components (`layers.0.mlp`, `layers.1.mlp`). The function has `{0}`,
//! `{1}`, … where they differ, and a call has its own components as annotations `scope.0`, `scope.1`, …, so that
//! inlining gives every operation its own place again. Source lines that differ are dropped.

use djinn_ir::{Attr, Location, Op};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The annotation of a call that holds this component.
fn annotation(i: usize) -> Arc<str> {
    Arc::from(format!("scope.{i}"))
}

/// Components by number: what each instance has there.
#[derive(Debug, Default)]
pub(crate) struct Parts<'a> {
    numbers: BTreeMap<Vec<&'a str>, usize>,
}

impl<'a> Parts<'a> {
    /// One place for those of all instances.
    pub(crate) fn common(&mut self, instances: &[&'a Location]) -> Location {
        let Some(first) = instances.first() else { return Location::default() };
        let same_source = instances.iter().all(|l| l.source == first.source);
        let source = first.source.clone().filter(|_| same_source);
        if instances.iter().all(|l| l.scope == first.scope) && !marked(first.scope.as_deref()) {
            return Location { scope: first.scope.clone(), source };
        }
        let scopes: Vec<&'a str> = instances.iter().map(|l| l.scope.as_deref().unwrap_or("")).collect();
        let split: Vec<Vec<&'a str>> = scopes.iter().map(|s| s.split('.').collect()).collect();
        let alike = split.iter().all(|s| s.len() == split[0].len());
        let mut template = String::new();
        if !alike || scopes.iter().any(|s| s.is_empty() || marked(Some(s))) {
            template = self.part(scopes);
        } else {
            for i in 0..split[0].len() {
                let components: Vec<&'a str> = split.iter().map(|s| s[i]).collect();
                if i > 0 {
                    template.push('.');
                }
                if components.iter().all(|c| *c == components[0]) {
                    template.push_str(components[0]);
                } else {
                    template.push_str(&self.part(components));
                }
            }
        }
        Location { scope: Some(Arc::from(template)), source }
    }

    fn part(&mut self, components: Vec<&'a str>) -> String {
        let next = self.numbers.len();
        format!("{{{}}}", self.numbers.entry(components).or_insert(next))
    }

    /// The annotations of the call of this instance.
    pub(crate) fn annotations(&self, instance: usize) -> BTreeMap<Arc<str>, Attr> {
        self.numbers.iter().map(|(parts, i)| (annotation(*i), Attr::from(parts[instance]))).collect()
    }
}

/// Does it look like a template?
fn marked(scope: Option<&str>) -> bool {
    scope.is_some_and(|s| s.contains('{'))
}

/// The longest common beginning of the scopes, in whole components.
pub(crate) fn common_scope<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Option<Arc<str>> {
    let mut scopes = scopes.into_iter();
    let mut common: Vec<&str> = scopes.next()?.split('.').collect();
    for scope in scopes {
        let same = scope.split('.').zip(&common).take_while(|(a, b)| a == *b).count();
        common.truncate(same);
    }
    (!common.is_empty()).then(|| Arc::from(common.join(".")))
}

/// The place of an operation of a function that this operation calls.
pub(crate) fn of_instance(call: &Op, inner: &Location) -> Location {
    let Some(template) = inner.scope.as_deref().filter(|s| marked(Some(s))) else { return inner.clone() };
    let mut scope = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        scope.push_str(before);
        let part = after.split_once('}').and_then(|(number, tail)| {
            let name = annotation(number.parse().ok()?);
            match call.annotations.get(&name)? {
                Attr::Str(part) => Some((part, tail)),
                _ => None,
            }
        });
        rest = match part {
            Some((part, tail)) => {
                scope.push_str(part);
                tail
            }
            None => {
                scope.push('{');
                after
            }
        };
    }
    scope.push_str(rest);
    let scope = (!scope.is_empty()).then(|| Arc::from(scope));
    Location { scope, source: inner.source.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_ir::{Attrs, Graph, OpKind};

    fn at(scope: &str, line: u32) -> Location {
        let scope = (!scope.is_empty()).then(|| Arc::from(scope));
        Location { scope, source: Some((Arc::from("m.py"), line)) }
    }

    /// A call with these annotations.
    fn call(annotations: BTreeMap<Arc<str>, Attr>) -> Op {
        let mut g = Graph::new();
        let id = g.push(OpKind::Call, vec![], Attrs::new(), vec![], vec![], Location::default());
        for (name, value) in annotations {
            g.annotate(id, &name, value);
        }
        g.op(id).clone()
    }

    #[test]
    fn places_come_back_for_every_instance() {
        let groups = [
            [at("m.layers.0.mlp", 1), at("m.layers.1.mlp", 1)],
            [at("m.layers.0.attn.q", 2), at("m.layers.1.attn.q", 2)],
            [at("m.rotary", 3), at("m.rotary", 3)],
            [at("m.layers.1.norm", 4), at("m.norm", 4)],
            [at("", 5), at("m.layers.{0}", 5)],
            [at("", 6), at("", 6)],
        ];
        let mut parts = Parts::default();
        let common: Vec<Location> = groups.iter().map(|g| parts.common(&[&g[0], &g[1]])).collect();
        assert_eq!(common[0].scope.as_deref(), Some("m.layers.{0}.mlp"));
        assert_eq!(common[1].scope.as_deref(), Some("m.layers.{0}.attn.q"));
        assert_eq!(common[2].scope.as_deref(), Some("m.rotary"));
        for instance in 0..2 {
            let call = call(parts.annotations(instance));
            for (group, common) in groups.iter().zip(&common) {
                assert_eq!(of_instance(&call, common), group[instance]);
            }
        }
    }

    #[test]
    fn lines_that_differ_are_dropped_and_strange_templates_kept() {
        let (a, b) = (at("m", 1), at("m", 2));
        assert_eq!(Parts::default().common(&[&a, &b]), Location { source: None, ..a });
        for strange in ["m.{9}", "m.{", "m.{x}.y", "}{"] {
            let kept = of_instance(&call(BTreeMap::new()), &at(strange, 1));
            assert_eq!(kept.scope.as_deref(), Some(strange));
        }
        assert_eq!(common_scope(["m.layers.1.a", "m.layers.10"]).as_deref(), Some("m.layers"));
        assert_eq!(common_scope(["a", "b"]), None);
    }
}
