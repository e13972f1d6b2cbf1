//! Typed access to a node's attributes.

use djinn_diag::{Result, input};
use djinn_onnx_proto::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_type as kind};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Attributes that a function call gives to the function's body, by name.
pub(crate) type CallAttributes = BTreeMap<String, AttributeProto>;

/// The attributes of one node, references to function attributes resolved.
#[derive(Debug)]
pub(crate) struct Attributes<'a>(Cow<'a, [AttributeProto]>);

impl<'a> Attributes<'a> {
    /// Reads a node's attributes; `call` holds those of the function call around it.
    pub(crate) fn new(node: &'a NodeProto, call: Option<&CallAttributes>) -> Attributes<'a> {
        if node.attribute.iter().all(|a| a.ref_attr_name.is_empty()) {
            return Attributes(Cow::Borrowed(&node.attribute));
        }
        let resolved = node.attribute.iter().filter_map(|a| {
            if a.ref_attr_name.is_empty() {
                return Some(a.clone());
            }
            let mut found = call?.get(&a.ref_attr_name)?.clone();
            found.name.clone_from(&a.name);
            Some(found)
        });
        Attributes(Cow::Owned(resolved.collect()))
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[AttributeProto] {
        &self.0
    }

    fn find(&self, name: &str, wanted: i32, what: &str) -> Result<Option<&AttributeProto>> {
        let Some(a) = self.0.iter().find(|a| a.name == name) else { return Ok(None) };
        // Files of IR version 1 leave the type out.
        if a.r#type != wanted && a.r#type != 0 {
            return Err(input("onnx.attribute", format!("attribute '{name}' must be {what}"))
                .help("the file is damaged; export the model again"));
        }
        Ok(Some(a))
    }

    /// Is there an attribute of this name?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|a| a.name == name)
    }

    /// The integer `name`.
    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.find(name, kind::INT, "an integer")?.map(|a| a.i.unwrap_or(0)))
    }

    /// The float `name`.
    pub(crate) fn float(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.find(name, kind::FLOAT, "a float")?.map(|a| f64::from(a.f.unwrap_or(0.0))))
    }

    /// The text `name`.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(a) = self.find(name, kind::STRING, "text")? else { return Ok(None) };
        let bytes = a.s.as_deref().unwrap_or(&[]);
        let text = std::str::from_utf8(bytes).map_err(|_| {
            input("onnx.attribute", format!("attribute '{name}' is not UTF-8"))
                .help("the file is damaged; export the model again")
        })?;
        Ok(Some(text.to_owned()))
    }

    /// The integers `name`.
    pub(crate) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        Ok(self.find(name, kind::INTS, "a list of integers")?.map(|a| a.ints.clone()))
    }

    /// The floats `name`.
    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let found = self.find(name, kind::FLOATS, "a list of floats")?;
        Ok(found.map(|a| a.floats.iter().map(|v| f64::from(*v)).collect()))
    }

    /// The texts `name`.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>> {
        let found = self.find(name, kind::STRINGS, "a list of texts")?;
        Ok(found.map(|a| a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()))
    }

    /// The tensor `name`.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&TensorProto>> {
        Ok(self.find(name, kind::TENSOR, "a tensor")?.and_then(|a| a.t.as_ref()))
    }

    /// The graph `name`.
    pub(crate) fn graph(&self, name: &str) -> Result<Option<&GraphProto>> {
        Ok(self.find(name, kind::GRAPH, "a graph")?.and_then(|a| a.g.as_deref()))
    }

    /// Text that holds every attribute, for `opaque` operations: `axis=1;mode="x"`.
    pub(crate) fn payload(&self) -> String {
        let mut parts: Vec<String> = self.0.iter().map(|a| format!("{}={}", a.name, value_text(a))).collect();
        parts.sort_unstable();
        parts.join(";")
    }
}

fn value_text(a: &AttributeProto) -> String {
    match a.r#type {
        kind::FLOAT => format!("{:?}", a.f.unwrap_or(0.0)),
        kind::INT => a.i.unwrap_or(0).to_string(),
        kind::STRING => format!("{:?}", String::from_utf8_lossy(a.s.as_deref().unwrap_or(&[]))),
        kind::FLOATS => format!("{:?}", a.floats),
        kind::INTS => format!("{:?}", a.ints),
        kind::STRINGS => {
            format!("{:?}", a.strings.iter().map(|s| String::from_utf8_lossy(s)).collect::<Vec<_>>())
        }
        kind::TENSOR => a.t.as_ref().map_or_else(String::new, |t| {
            let raw = t.raw_data.as_deref().unwrap_or(&[]);
            let hex: String = raw.iter().map(|b| format!("{b:02x}")).collect();
            let typed = (&t.float_data, &t.int32_data, &t.int64_data, &t.double_data, &t.uint64_data);
            format!("tensor(type {:?}, dims {:?}, raw {hex}, typed {typed:?})", t.data_type, t.dims)
        }),
        other => format!("<attribute type {other}>"),
    }
}
