//! E-matching: all bindings under which a pattern occurs in an e-class.

use crate::functions::{Bindings, Bound, Scope};
use crate::language::Graph;
use crate::rule::{AttrPattern, Pattern, Rule};
use djinn_ir::ops::traits;
use djinn_ir::{Attrs, OpKind, SymbolTable};
use egg::Id;

/// Matches of one pattern in one e-class, at most; the rest is left out and counted by the caller as a limit.
pub const MAX_MATCHES_PER_CLASS: usize = 64;

/// Finds matches of one pattern.
pub struct Matcher<'a> {
    /// The e-graph.
    pub graph: &'a Graph,
    /// What is known of symbols.
    pub symbols: &'a SymbolTable,
}

impl Matcher<'_> {
    /// All bindings under which `pattern` occurs in e-class `id`, in a fixed order.
    pub fn matches(&self, pattern: &Pattern, id: Id, start: Bindings) -> Vec<Bindings> {
        let mut out = Vec::new();
        self.search(pattern, id, start, &mut |b| {
            if !out.contains(&b) {
                out.push(b);
            }
            out.len() < MAX_MATCHES_PER_CLASS
        });
        out
    }

    /// All bindings under which the left side of `rule` occurs in e-class `id` and its conditions hold.
    pub fn matches_of(&self, rule: &Rule, id: Id) -> Vec<Bindings> {
        let mut found = self.matches(&rule.from, id, vec![None; rule.variables.len()]);
        found.retain(|bindings| {
            let scope = Scope { graph: self.graph, symbols: self.symbols, bindings, siblings: None };
            rule.conditions.iter().all(|c| scope.holds(c))
        });
        found
    }

    /// Calls `found` with every binding until it returns false; gives false if it did.
    fn search(
        &self,
        pattern: &Pattern,
        id: Id,
        bindings: Bindings,
        found: &mut dyn FnMut(Bindings) -> bool,
    ) -> bool {
        let id = self.graph.find(id);
        match pattern {
            Pattern::Var(v) => match self.bind(bindings, *v, Bound::Class(id)) {
                Some(b) => found(b),
                None => true,
            },
            Pattern::Number(value) => match self.graph[id].data.splat() {
                Some(s) if s == *value => found(bindings),
                _ => true,
            },
            Pattern::Op { kind, attrs, operands, rest } => {
                for node in &self.graph[id].nodes {
                    if node.kind() != Some(*kind) {
                        continue;
                    }
                    let count = node.children.len();
                    if count < operands.len() || (rest.is_none() && count != operands.len()) {
                        continue;
                    }
                    let Some(node_attrs) = node.attrs() else { continue };
                    let Some(mut b) = self.match_attrs(*kind, attrs, node_attrs, bindings.clone()) else {
                        continue;
                    };
                    if let Some(v) = rest {
                        let all =
                            node.children[operands.len()..].iter().map(|c| self.graph.find(*c)).collect();
                        match self.bind(b, *v, Bound::Classes(all)) {
                            Some(bound) => b = bound,
                            None => continue,
                        }
                    }
                    if !self.operands(operands, &node.children, b.clone(), found) {
                        return false;
                    }
                    let commutes = kind.def().has(traits::COMMUTATIVE) && operands.len() == 2;
                    if commutes && self.graph.find(node.children[0]) != self.graph.find(node.children[1]) {
                        let swapped = [node.children[1], node.children[0]];
                        if !self.operands(operands, &swapped, b, found) {
                            return false;
                        }
                    }
                }
                true
            }
        }
    }

    fn operands(
        &self,
        patterns: &[Pattern],
        ids: &[Id],
        bindings: Bindings,
        found: &mut dyn FnMut(Bindings) -> bool,
    ) -> bool {
        match patterns.split_first() {
            None => found(bindings),
            Some((first, rest)) => {
                self.search(first, ids[0], bindings, &mut |b| self.operands(rest, &ids[1..], b, found))
            }
        }
    }

    fn match_attrs(
        &self,
        kind: OpKind,
        patterns: &[(&'static str, AttrPattern)],
        attrs: &Attrs,
        mut b: Bindings,
    ) -> Option<Bindings> {
        // Variables first, so that expressions may use them.
        for (name, p) in patterns {
            if let AttrPattern::Var(v) = p {
                b = self.bind(b, *v, Bound::Attr(attrs.get(name)?.clone()))?;
            }
        }
        for (name, p) in patterns {
            if let AttrPattern::Expr(e) = p {
                let kind = kind.def().attrs.iter().find(|a| a.name == *name)?.kind;
                let scope = Scope { graph: self.graph, symbols: self.symbols, bindings: &b, siblings: None };
                // An expression over operands that are bound later is checked in the conditions instead.
                if scope.eval_as(e, kind)? != *attrs.get(name)? {
                    return None;
                }
            }
        }
        Some(b)
    }

    fn bind(&self, mut b: Bindings, v: usize, value: Bound) -> Option<Bindings> {
        match &b[v] {
            None => {
                b[v] = Some(value);
                Some(b)
            }
            Some(old) if *old == value => Some(b),
            Some(_) => None,
        }
    }
}
