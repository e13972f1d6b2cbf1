//! The printer.

use super::{TERMINATOR, counted_name, tensor};
use crate::attr::{Attr, FloatBits};
use crate::graph::{ArgumentKind, Function, Graph, Location, Module, Op, ResultKind, ValueId};
use crate::ops::OpDef;
use crate::types::TensorType;
use std::collections::BTreeMap;

/// What [`print_module_with`] prints beside the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrintOptions {
    /// Weights of at most this many bytes are printed with their content.
    pub inline_weights_up_to: usize,
    /// Names that stock MLIR tools can verify with a definition of the dialect: see [`super::counted_name`] and
    /// [`super::TERMINATOR`].
    pub for_mlir: bool,
}

/// The module as text, without the bytes of weights.
pub fn print_module(module: &Module) -> String {
    print_module_with(module, &PrintOptions::default())
}

/// The module as text.
pub fn print_module_with(module: &Module, options: &PrintOptions) -> String {
    let mut p = Printer { for_mlir: options.for_mlir, ..Printer::new() };
    p.out.push_str("\"builtin.module\"() ({\n");
    if module.weights.is_empty() && module.functions.is_empty() {
        p.out.push_str("^bb0:\n");
    }
    p.indent = 1;
    p.weights(module, options);
    module.functions.iter().for_each(|f| p.function(f));
    p.out.push_str("}) {");
    p.module_attributes(module);
    p.out.push_str("} : () -> ()\n");
    p.out
}

/// The body of a function or region as text: block arguments, operations, `djinn.return`.
pub fn print_graph(graph: &Graph) -> String {
    let mut p = Printer::new();
    p.graph(graph);
    p.out
}

/// Writes `tensor<?x8xf32, ["s0"]>`.
pub(super) fn print_type(ty: &TensorType, out: &mut String) {
    out.push_str("tensor<");
    let mut symbolic = Vec::new();
    for d in &ty.shape {
        match d.as_const() {
            Some(c) => out.push_str(&c.to_string()),
            None => {
                symbolic.push(quoted(&d.to_string()));
                out.push('?');
            }
        }
        out.push('x');
    }
    out.push_str(ty.dtype.mlir());
    if !symbolic.is_empty() {
        out.push_str(&format!(", [{}]", symbolic.join(", ")));
    }
    out.push('>');
}

/// A string literal with MLIR's escapes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') || c.is_ascii_control() {
            out.push_str(&format!("\\{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

/// Can a name of an attribute stand without quotes?
fn is_bare(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.'))
}

struct Printer {
    out: String,
    indent: usize,
    /// Number of the next value: values of regions go on with those of the function, as MLIR wants it.
    next: u32,
    splat_bytes: usize,
    for_mlir: bool,
}

/// Names of the values of one graph.
type Names = BTreeMap<ValueId, u32>;

impl Printer {
    fn new() -> Self {
        Printer {
            out: String::new(),
            indent: 0,
            next: 0,
            splat_bytes: super::MAX_SPLAT_BYTES,
            for_mlir: false,
        }
    }

    fn margin(&mut self) {
        (0..self.indent).for_each(|_| self.out.push_str("  "));
    }

    /// Writes items separated by commas.
    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        for (i, x) in items.into_iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            item(self, x);
        }
    }

    fn key(&mut self, name: &str) {
        if is_bare(name) {
            self.out.push_str(name);
        } else {
            self.out.push_str(&quoted(name));
        }
        self.out.push_str(" = ");
    }

    fn string(&mut self, text: &str) {
        self.out.push_str(&quoted(text));
    }

    fn entry(&mut self, name: &str, text: &str) {
        self.key(name);
        self.string(text);
    }

    fn int(&mut self, value: i64) {
        self.out.push_str(&format!("{value} : i64"));
    }

    fn weights(&mut self, module: &Module, options: &PrintOptions) {
        for (name, weight) in &module.weights {
            self.margin();
            self.out.push_str("\"djinn.weight_decl\"() {");
            let hash = module.weight_hash(name).map(|h| h.to_string()).unwrap_or_default();
            self.entry("hash", &hash);
            self.out.push_str(", ");
            self.entry("sym_name", name);
            self.out.push_str(", ");
            self.key("type");
            print_type(&weight.ty, &mut self.out);
            if let Some((_, data)) = &weight.data
                && data.bytes().len() <= options.inline_weights_up_to
            {
                self.out.push_str(", value = ");
                tensor::print(data, &mut self.splat_bytes, &mut self.out);
            }
            self.out.push_str("} : () -> ()\n");
        }
    }

    fn module_attributes(&mut self, module: &Module) {
        self.key("djinn.metadata");
        self.out.push('{');
        self.list(&module.metadata, |p, (key, value)| p.entry(key, value));
        self.out.push_str("}, ");
        self.key("djinn.symbols");
        self.out.push('{');
        self.list(&module.symbols.0, |p, (symbol, info)| {
            p.key(symbol.name());
            p.out.push('{');
            let max = info.max.map(|max| ("max", max));
            let entries = [Some(("divisor", info.divisor)), max, Some(("min", info.min))];
            p.list(entries.into_iter().flatten(), |p, (name, value)| {
                p.key(name);
                p.int(value);
            });
            p.out.push('}');
        });
        self.out.push('}');
    }

    fn function(&mut self, f: &Function) {
        self.next = 0;
        self.margin();
        self.out.push_str("\"djinn.func\"() ({\n");
        self.graph(&f.graph);
        self.margin();
        self.out.push_str("}) {arguments = [");
        self.list(&f.arguments, |p, (name, kind)| {
            p.out.push('{');
            match kind {
                ArgumentKind::Input => p.entry("kind", "input"),
                ArgumentKind::Weight => p.entry("kind", "weight"),
                ArgumentKind::State { initial } => {
                    if let Some(initial) = initial {
                        p.entry("initial", initial);
                        p.out.push_str(", ");
                    }
                    p.entry("kind", "state");
                }
            }
            p.out.push_str(", ");
            p.entry("name", name);
            p.out.push('}');
        });
        self.out.push_str("], results = [");
        self.list(&f.results, |p, (name, kind)| {
            p.out.push('{');
            match kind {
                ResultKind::Output => p.entry("kind", "output"),
                ResultKind::Update(argument) => {
                    p.key("argument");
                    p.int(i64::from(*argument));
                    p.out.push_str(", ");
                    p.entry("kind", "update");
                }
            }
            p.out.push_str(", ");
            p.entry("name", name);
            p.out.push('}');
        });
        self.out.push_str("], ");
        self.entry("sym_name", &f.name);
        if f.is_private() {
            self.out.push_str(", ");
            self.entry("sym_visibility", "private");
        }
        self.out.push_str("} : () -> ()\n");
    }

    /// Numbers a value; prints its name.
    fn define(&mut self, v: ValueId, names: &mut Names) {
        names.insert(v, self.next);
        self.out.push_str(&format!("%{}", self.next));
        self.next += 1;
    }

    fn uses(&mut self, values: &[ValueId], names: &Names) {
        self.list(values, |p, v| match names.get(v) {
            Some(n) => p.out.push_str(&format!("%{n}")),
            // Only a graph that the verifier refuses uses what it does not define.
            None => p.out.push_str(&format!("%undefined{}", v.0)),
        });
    }

    fn types(&mut self, graph: &Graph, values: &[ValueId]) {
        self.list(values, |p, v| match graph.get_value(*v) {
            Some(value) => print_type(&value.ty, &mut p.out),
            None => p.out.push_str("none"),
        });
    }

    fn graph(&mut self, graph: &Graph) {
        let mut names = Names::new();
        if !graph.arguments.is_empty() {
            self.margin();
            self.out.push_str("^bb0(");
            self.list(&graph.arguments, |p, v| {
                p.define(*v, &mut names);
                p.out.push_str(": ");
                p.types(graph, &[*v]);
            });
            self.out.push_str("):\n");
        }
        self.indent += 1;
        for (_, op) in graph.ops() {
            self.op(graph, op, &mut names);
        }
        self.margin();
        let end = if self.for_mlir { TERMINATOR } else { "djinn.return" };
        self.out.push_str(&format!("\"{end}\"("));
        self.uses(&graph.results, &names);
        self.out.push_str(") : (");
        self.types(graph, &graph.results);
        self.out.push_str(") -> ()\n");
        self.indent -= 1;
    }

    fn op(&mut self, graph: &Graph, op: &Op, names: &mut Names) {
        self.margin();
        if !op.results.is_empty() {
            self.list(&op.results, |p, v| p.define(*v, names));
            self.out.push_str(" = ");
        }
        let counted =
            counted_name(op.kind.def(), op.operands.len(), op.results.len()).filter(|_| self.for_mlir);
        self.out.push_str(&format!("\"djinn.{}\"(", counted.as_deref().unwrap_or(op.kind.name())));
        self.uses(&op.operands, names);
        self.out.push(')');
        if !op.regions.is_empty() {
            self.out.push_str(" (");
            self.list(&op.regions, |p, region| {
                p.out.push_str("{\n");
                p.graph(region);
                p.margin();
                p.out.push('}');
            });
            self.out.push(')');
        }
        self.attributes(op);
        self.out.push_str(" : (");
        self.types(graph, &op.operands);
        self.out.push_str(") -> ");
        match op.results.as_slice() {
            [one] => self.types(graph, &[*one]),
            many => {
                self.out.push('(');
                self.types(graph, many);
                self.out.push(')');
            }
        }
        self.location(&op.location);
        self.out.push('\n');
    }

    fn attributes(&mut self, op: &Op) {
        if op.attrs.is_empty() && op.annotations.is_empty() {
            return;
        }
        let def = op.kind.def();
        self.out.push_str(" {");
        let own = op.attrs.iter().map(|(name, a)| (name.to_string(), a, in_table(def, name, a)));
        let discardable = op.annotations.iter().map(|(name, a)| (format!("djinn.{name}"), a, false));
        self.list(own.chain(discardable), |p, (name, attr, table)| {
            p.key(&name);
            p.attr(attr, table);
        });
        self.out.push('}');
    }

    /// Writes a value; `table` if the reader knows the kind from the op table.
    fn attr(&mut self, attr: &Attr, table: bool) {
        match attr {
            Attr::Int(v) => self.int(*v),
            Attr::Float(v) => self.out.push_str(&format!("{} : f64", tensor::float(v.get()))),
            Attr::Bool(v) => self.out.push_str(if *v { "true" } else { "false" }),
            Attr::Str(v) => self.string(v),
            Attr::Ints(v) => self.array("i64", v, |v| v.to_string()),
            Attr::Floats(v) => self.array("f64", v, |v: &FloatBits| tensor::float(v.get())),
            Attr::Dim(d) if table => self.string(&d.to_string()),
            Attr::Dim(d) => {
                self.out.push('{');
                self.entry("dim", &d.to_string());
                self.out.push('}');
            }
            Attr::Dims(dims) => {
                self.out.push_str(if table { "[" } else { "{dims = [" });
                self.list(dims, |p, d| p.string(&d.to_string()));
                self.out.push_str(if table { "]" } else { "]}" });
            }
            Attr::DType(d) => self.out.push_str(d.mlir()),
            Attr::Types(types) => {
                self.out.push('[');
                self.list(types, |p, ty| print_type(ty, &mut p.out));
                self.out.push(']');
            }
            Attr::Tensor(data) => tensor::print(data, &mut self.splat_bytes, &mut self.out),
        }
    }

    fn array<T>(&mut self, element: &str, items: &[T], text: impl Fn(&T) -> String) {
        self.out.push_str("array<");
        self.out.push_str(element);
        if !items.is_empty() {
            self.out.push_str(": ");
        }
        self.list(items, |p, x| p.out.push_str(&text(x)));
        self.out.push('>');
    }

    fn location(&mut self, location: &Location) {
        let source = location.source.as_ref().map(|(file, line)| format!("{}:{line}:1", quoted(file)));
        let text = match (&location.scope, source) {
            (None, None) => return,
            (Some(scope), None) => quoted(scope),
            (None, Some(source)) => source,
            (Some(scope), Some(source)) => format!("{}({source})", quoted(scope)),
        };
        self.out.push_str(&format!(" loc({text})"));
    }
}

/// Has the op table an attribute of this name that takes this value?
fn in_table(def: &OpDef, name: &str, attr: &Attr) -> bool {
    def.attrs.iter().any(|a| a.name == name && a.kind.accepts(attr))
}
