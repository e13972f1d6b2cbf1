//! Symbolic sizes and declared types of the file, and where nodes come from.

use crate::model::MAX_RANK;
use crate::tensor;
use djinn_diag::{Context, Result, input, unsupported};
use djinn_ir::{DType, Dim, Symbol, SymbolInfo, TensorType};
use djinn_onnx_proto::{
    DimensionProto, GraphProto, NodeProto, TypeProto, ValueInfoProto, dimension_proto, type_proto,
};
use djinn_srg::{Origin, SrgBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Length of a `dim_param` that is read as an expression, at most; longer ones are names.
const MAX_EXPRESSION: usize = 512;
/// Length of a `dim_param`, at most.
const MAX_NAME: usize = 4096;

/// A type that the file declares; sizes that it leaves open are `None`.
#[derive(Debug, Clone)]
pub(crate) struct Hint {
    /// Element type.
    pub(crate) dtype: DType,
    /// Sizes; `None` if even the rank is open.
    pub(crate) shape: Option<Vec<Option<Dim>>>,
}

impl Hint {
    /// The whole type, if nothing is open.
    pub(crate) fn whole(&self) -> Option<TensorType> {
        let shape: Option<Vec<Dim>> = self.shape.as_ref()?.iter().cloned().collect();
        Some(TensorType::new(self.dtype, shape?))
    }

    /// The size of one axis of a value of this rank.
    pub(crate) fn dim(&self, axis: usize, rank: usize) -> Option<&Dim> {
        self.shape.as_ref().filter(|s| s.len() == rank)?.get(axis)?.as_ref()
    }
}

/// Translates the file's `dim_param` texts into sizes, one symbol for one text.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    known: BTreeMap<String, Dim>,
    /// The symbol of each name in the file: of a whole text that is no expression, or of a name inside one.
    symbols: BTreeMap<String, String>,
    /// All symbols given so far.
    taken: BTreeSet<String>,
}

impl Symbols {
    /// The size that `text` stands for.
    pub(crate) fn dim(&mut self, text: &str, b: &mut SrgBuilder) -> Dim {
        if let Some(d) = self.known.get(text) {
            return d.clone();
        }
        let short = Some(text).filter(|t| t.len() <= MAX_EXPRESSION);
        let parsed =
            short.and_then(|t| t.parse::<Dim>().ok()).filter(|d| !d.is_overflow() && d.as_const().is_none());
        let dim = match parsed {
            Some(d) => {
                let mut given = BTreeMap::new();
                d.visit_symbols(&mut |s: &Symbol| {
                    given.insert(s.name().to_owned(), self.symbol(s.name(), s.name()));
                });
                if given.iter().all(|(name, symbol)| name == symbol) {
                    d
                } else {
                    d.substitute(&|s| given.get(s.name()).map(|symbol| Dim::symbol(symbol)))
                }
            }
            None => Dim::symbol(&self.symbol(text, &sanitized(text))),
        };
        dim.visit_symbols(&mut |s| b.declare_symbol(s.name(), SymbolInfo::default()));
        self.known.insert(text.to_owned(), dim.clone());
        dim
    }

    /// The symbol of a name in the file; `wanted` if no other name has it.
    fn symbol(&mut self, name: &str, wanted: &str) -> String {
        if let Some(s) = self.symbols.get(name) {
            return s.clone();
        }
        let mut unique = wanted.to_owned();
        let mut n = 1;
        while self.taken.contains(&unique)
            || matches!(unique.as_str(), "floordiv" | "mod" | "min" | "max" | "overflow")
        {
            unique = format!("{wanted}_{n}");
            n += 1;
        }
        self.taken.insert(unique.clone());
        self.symbols.insert(name.to_owned(), unique.clone());
        unique
    }

    /// The type that a `TypeProto` declares; `None` if it declares nothing.
    pub(crate) fn hint(&mut self, ty: Option<&TypeProto>, b: &mut SrgBuilder) -> Result<Option<Hint>> {
        let Some(value) = ty.and_then(|t| t.value.as_ref()) else { return Ok(None) };
        let type_proto::Value::TensorType(t) = value else {
            return Err(unsupported(
                "onnx.value-type",
                "sequence, map, optional and sparse values are not supported",
            )
            .help("export the model with plain tensors"));
        };
        if t.elem_type == 0 {
            return Ok(None);
        }
        let dtype = tensor::dtype(t.elem_type)?;
        let shape = match &t.shape {
            None => None,
            Some(s) if s.dim.len() > MAX_RANK => {
                return Err(unsupported("onnx.rank", format!("a value has more than {MAX_RANK} axes"))
                    .help("export the model with tensors of smaller rank"));
            }
            Some(s) => Some(s.dim.iter().map(|d| self.declared_dim(d, b)).collect::<Result<Vec<_>>>()?),
        };
        Ok(Some(Hint { dtype, shape }))
    }

    fn declared_dim(&mut self, d: &DimensionProto, b: &mut SrgBuilder) -> Result<Option<Dim>> {
        match &d.value {
            Some(dimension_proto::Value::DimValue(v)) if *v >= 0 => Ok(Some(Dim::from(*v))),
            // Some exporters write −1 for "unknown".
            Some(dimension_proto::Value::DimValue(-1)) | None => Ok(None),
            Some(dimension_proto::Value::DimValue(v)) => {
                Err(input("onnx.dim", format!("a tensor type has the negative size {v}"))
                    .help("the file is damaged; export the model again"))
            }
            Some(dimension_proto::Value::DimParam(p)) if p.trim().is_empty() || p == "?" => Ok(None),
            Some(dimension_proto::Value::DimParam(p)) if p.len() > MAX_NAME => {
                Err(unsupported("onnx.dim", format!("the name of a size is longer than {MAX_NAME} bytes"))
                    .help("export the model with shorter names of sizes"))
            }
            Some(dimension_proto::Value::DimParam(p)) => Ok(Some(self.dim(p, b))),
        }
    }

    /// Declared types of all values of a graph, by name. Values of other kinds than tensors are left out.
    pub(crate) fn hints(&mut self, g: &GraphProto, b: &mut SrgBuilder) -> BTreeMap<String, Hint> {
        let mut out = BTreeMap::new();
        for v in g.value_info.iter().chain(&g.input).chain(&g.output) {
            if let Ok(Some(h)) = self.hint(v.r#type.as_ref(), b) {
                out.insert(v.name.clone(), h);
            }
        }
        out
    }

    /// The type of a graph input; open sizes become fresh symbols.
    pub(crate) fn input_type(&mut self, v: &ValueInfoProto, b: &mut SrgBuilder) -> Result<TensorType> {
        let place = || format!("input '{}'", v.name);
        let hint = self.hint(v.r#type.as_ref(), b).at(place)?;
        let Some(Hint { dtype, shape: Some(shape) }) = hint else {
            return Err(unsupported("onnx.input-type", "the input has no element type or no known rank")
                .help("export the model with typed inputs, or run shape inference on it")
                .at(place()));
        };
        let shape: Vec<Dim> = shape.into_iter().map(|d| d.unwrap_or_else(|| b.fresh_symbol())).collect();
        let ty = TensorType::new(dtype, shape);
        if ty.numel().is_overflow() {
            return Err(input("onnx.dim", "the size of the input overflows")
                .help("the file is damaged; export the model again")
                .at(place()));
        }
        Ok(ty)
    }
}

/// A text as an identifier.
fn sanitized(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.chars().next().is_none_or(|c| c.is_ascii_digit()) {
        name.insert(0, 'd');
    }
    name
}

/// Where a node comes from; `outer` is the origin of the function call around it.
pub(crate) fn origin(node: &NodeProto, outer: Option<&Origin>) -> Origin {
    let name = node.output.iter().find(|o| !o.is_empty()).filter(|_| node.name.is_empty());
    let prop = |key: &str| node.metadata_props.iter().find(|p| p.key == key).map(|p| p.value.as_str());
    let scope = prop("pkg.torch.onnx.name_scopes")
        .and_then(scope_of_name_scopes)
        .or_else(|| prop("namespace").and_then(scope_of_namespace));
    let source = prop("pkg.torch.onnx.stack_trace").and_then(model_frame);
    Origin {
        framework_op: Arc::from(node.op_type.as_str()),
        name: Arc::from(name.unwrap_or(&node.name).as_str()),
        scope: scope.map(Arc::from).or_else(|| outer?.scope.clone()),
        source: source.map(|(f, l)| (Arc::from(f), l)).or_else(|| outer?.source.clone()),
    }
}

/// The innermost module of torch's `['', 'model', 'model.layers.0', 'linear']`: the last entry is the operation.
fn scope_of_name_scopes(text: &str) -> Option<String> {
    let list = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<&str> = list.split(", ").map(|n| n.trim_matches(['\'', '"'])).collect();
    let scope = names.get(names.len().checked_sub(2)?)?;
    (!scope.is_empty() && !scope.starts_with("_empty_nn_module_stack")).then(|| (*scope).to_owned())
}

/// The innermost module of torch's `name: class/name: class/name: operation`.
fn scope_of_namespace(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let name = parts.get(parts.len().checked_sub(2)?)?.split(':').next()?.trim();
    (!name.is_empty() && !name.starts_with("_empty_nn_module_stack")).then(|| name.to_owned())
}

/// File and line of the innermost frame of a Python stack trace that is not torch's own.
fn model_frame(trace: &str) -> Option<(&str, u32)> {
    let frames = trace.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("File \"")?;
        let (file, rest) = rest.split_once("\", line ")?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((file, digits.parse().ok()?))
    });
    frames.fold(None, |found, frame| {
        let own = frame.0.starts_with("torch/") || frame.0.contains("/site-packages/torch/");
        if own { found } else { Some(frame) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_frames_of_torch() {
        assert_eq!(
            scope_of_name_scopes("['', 'model.layers.0', 'linear']").as_deref(),
            Some("model.layers.0")
        );
        assert_eq!(scope_of_name_scopes("['', 'linear']"), None);
        assert_eq!(scope_of_namespace(": A/bn1: B/_native: aten.x").as_deref(), Some("bn1"));
        let trace = "File \"/m/net.py\", line 7, in forward\n  x\n  File \"/p/site-packages/torch/nn/a.py\", line 3, in f";
        assert_eq!(model_frame(trace), Some(("/m/net.py", 7)));
    }

    #[test]
    fn different_texts_give_different_symbols() {
        let (mut s, mut b) = (Symbols::default(), SrgBuilder::new("f"));
        let (x, y) = (s.dim("seq len", &mut b), s.dim("seq/len", &mut b));
        assert_ne!(x, y);
        assert_eq!(s.dim("s0 + 1", &mut b), &Dim::symbol("s0") + &Dim::ONE);
    }

    #[test]
    fn a_symbol_that_another_text_has_is_not_shared() {
        let (mut s, mut b) = (Symbols::default(), SrgBuilder::new("f"));
        let (spaced, sum) = (s.dim("a b", &mut b), s.dim("a_b + c", &mut b));
        let (plain, c) = (s.dim("a_b", &mut b), s.dim("c", &mut b));
        assert_ne!(spaced, plain);
        assert_eq!(sum, &plain + &c);
        assert_ne!(s.dim("a_b_1", &mut b), plain);
        assert_eq!(s.dim("a b", &mut b), spaced);
        // The other order: the parsed text keeps its name.
        let (mut s, mut b) = (Symbols::default(), SrgBuilder::new("f"));
        assert_eq!(s.dim("a_b", &mut b), Dim::symbol("a_b"));
        assert_ne!(s.dim("a b", &mut b), Dim::symbol("a_b"));
    }
}
