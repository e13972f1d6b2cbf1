//! Names for people: operations, scopes and types behind the numbers of a plan.

use djinn_ir::walk::known_before_runs;
use djinn_ir::{Function, Module, Op, OpKind, TensorType};
use djinn_plan::{CopyReason, Entry, Kernel, ValueRef};

use crate::facts::Class;

/// Characters of a name, at most: plans may hold names of any length.
const MAX_NAME: usize = 120;

/// A name without characters that would upset a terminal or a line, shortened in the middle if it is very long.
pub(crate) fn clean(name: &str) -> String {
    shorten(name, MAX_NAME)
}

/// A name of so many columns at most, its middle left out.
pub(crate) fn shorten(name: &str, columns: usize) -> String {
    // Ends of names tell more than their beginnings.
    cut(name, columns, columns.saturating_sub(1) / 3)
}

/// A name of so many columns at most, its beginning left out.
pub(crate) fn shorten_start(name: &str, columns: usize) -> String {
    cut(name, columns, 0)
}

/// A name of so many columns at most, of which so many stand before what is left out.
fn cut(name: &str, columns: usize, before: usize) -> String {
    // Only the ends of a very long name are looked at.
    let limit = columns.saturating_mul(8).saturating_add(64);
    let ends = |s: &str| -> Option<(usize, usize)> {
        let head = s.char_indices().nth(limit / 2)?.0;
        let tail = s.char_indices().rev().nth(limit / 2)?.0;
        (tail > head).then_some((head, tail))
    };
    let plain = |s: &str| -> Vec<char> { s.chars().map(printable).collect() };
    let mut chars = match ends(name) {
        Some((head, tail)) => [plain(&name[..head]), vec!['…'], plain(&name[tail..])].concat(),
        None => plain(name),
    };
    if width(&chars) > columns {
        let keep = columns.saturating_sub(1);
        let (mut head, mut used) = (0, 0);
        while head < chars.len() && used + wide(chars[head]) <= before {
            used += wide(chars[head]);
            head += 1;
        }
        let mut tail = chars.len();
        while tail > head && used + wide(chars[tail - 1]) <= keep {
            used += wide(chars[tail - 1]);
            tail -= 1;
        }
        chars = [&chars[..head], &['…'][..columns.min(1)], &chars[tail..]].concat();
    }
    chars.into_iter().collect()
}

/// Columns that a text takes in a terminal.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(wide).sum()
}

fn width(chars: &[char]) -> usize {
    chars.iter().copied().map(wide).sum()
}

/// Columns of a character, by the blocks of Unicode that terminals show in two or in none.
fn wide(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Control and direction characters become a visible stand-in.
fn printable(c: char) -> char {
    match u32::from(c) {
        _ if c.is_control() => '\u{fffd}',
        0x2028..=0x202e | 0x2066..=0x2069 | 0x200e | 0x200f | 0x061c => '\u{fffd}',
        _ => c,
    }
}

/// Why a copy is made, in one word.
pub(crate) fn reason(reason: CopyReason) -> &'static str {
    match reason {
        CopyReason::Input => "input",
        CopyReason::Output => "output",
        CopyReason::Transfer => "transfer",
        CopyReason::Spill => "spill",
        CopyReason::Fetch => "fetch",
        CopyReason::Update => "update",
    }
}

/// Names of a kernel.
pub(crate) struct Named {
    /// Its operations.
    pub(crate) name: String,
    /// Module path of the operation that costs most.
    pub(crate) scope: String,
    /// That operation.
    pub(crate) kind: String,
    pub(crate) class: Class,
}

/// The operations of an entry's function by position; none without a module.
pub(crate) struct Ops<'a> {
    function: Option<&'a Function>,
    ops: Vec<&'a Op>,
}

impl<'a> Ops<'a> {
    /// The operations that an entry runs.
    pub(crate) fn new(module: Option<&'a Module>, entry: &Entry) -> Ops<'a> {
        let function = module.and_then(|m| m.function(&entry.function));
        let ops = function.map(|f| f.graph.ops().map(|(_, op)| op).collect()).unwrap_or_default();
        Ops { function, ops }
    }

    /// The operations of a run, in order: those that depend on weights only are left out.
    pub(crate) fn of_run(&self) -> impl Iterator<Item = &'a Op> {
        let ahead = self.function.map(known_before_runs).unwrap_or_default();
        let known = move |v: &djinn_ir::ValueId| ahead.get(v.0 as usize).copied().unwrap_or(false);
        self.ops.iter().copied().filter(move |op| op.results.is_empty() || !op.results.iter().all(&known))
    }

    /// An operation by position.
    pub(crate) fn at(&self, position: u32) -> Option<&'a Op> {
        self.ops.get(position as usize).copied()
    }

    /// The scope of the operation that makes a value.
    pub(crate) fn scope_of(&self, value: ValueRef) -> String {
        match value {
            ValueRef::Result { op, .. } => self.at(op).map(scope).unwrap_or_default(),
            ValueRef::Argument(_) => String::new(),
        }
    }

    /// What a value is called: the name of the argument, or the operation that makes it and its scope.
    pub(crate) fn value(&self, value: ValueRef) -> String {
        match value {
            ValueRef::Argument(n) => {
                let name =
                    self.function.and_then(|f| f.arguments.get(n as usize)).map(|(name, _)| clean(name));
                name.unwrap_or_else(|| value.to_string())
            }
            ValueRef::Result { op, index } => match self.at(op) {
                Some(op) => {
                    let number = if op.results.len() > 1 { format!("#{index}") } else { String::new() };
                    format!("{}{number} {}", op.kind.name(), scope(op)).trim_end().to_owned()
                }
                None => value.to_string(),
            },
        }
    }

    /// The type of a value.
    pub(crate) fn ty(&self, value: ValueRef) -> Option<&'a TensorType> {
        let graph = &self.function?.graph;
        let v = match value {
            ValueRef::Argument(n) => graph.arguments.get(n as usize)?,
            ValueRef::Result { op, index } => self.at(op)?.results.get(index as usize)?,
        };
        graph.get_value(*v).map(|v| &v.ty)
    }

    /// What a kernel is called: after the operation that is most likely to cost most.
    pub(crate) fn of_kernel(&self, kernel: &Kernel) -> Named {
        // A kernel's own name is its operations and, after an @, the scope.
        let (listed, own_scope) = kernel.name.split_once(" @").unwrap_or((&kernel.name, ""));
        let ops = kernel.ops.iter().filter_map(|op| self.at(*op));
        let leader = ops.reduce(|a, b| if weight(b.kind) > weight(a.kind) { b } else { a });
        let (kind, scope) = match leader {
            Some(op) => (Some(op.kind), scope(op)),
            None => {
                let kinds = listed.split('+').filter_map(OpKind::from_name);
                (kinds.reduce(|a, b| if weight(b) > weight(a) { b } else { a }), clean(own_scope))
            }
        };
        Named {
            name: clean(listed),
            scope: if scope.is_empty() { clean(own_scope) } else { scope },
            kind: kind.map_or_else(|| shorten(listed, 40), |k| k.name().to_owned()),
            class: kind.map_or(Class::Other, |k| Class::of(k.def().cost)),
        }
    }
}

/// Operations of greater weight are likelier to cost most.
fn weight(kind: OpKind) -> u8 {
    let class = Class::of(kind.def().cost);
    Class::ALL.iter().rev().position(|c| *c == class).unwrap_or(0) as u8
}

/// The module path of an operation; empty if it has none.
pub(crate) fn scope(op: &Op) -> String {
    op.location.scope.as_deref().map(clean).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_in_the_middle_and_harmless() {
        assert_eq!(shorten("model.layers.0.self_attn.q_proj", 16), "model…ttn.q_proj");
        assert_eq!(columns(&shorten(&"語".repeat(50), 11)), 11);
        assert_eq!(clean("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!((shorten("abc", 0), shorten("abc", 1)), (String::new(), "…".to_owned()));
        assert!(clean(&"x".repeat(10_000_000)).chars().count() <= MAX_NAME);
    }
}
