//! The program JSON of torch.export (schema major 8) as serde structures: only the parts that the importer reads.
//!
//! Unions are JSON objects with exactly one key. Non-finite floats are spelled as strings. Unknown fields are ignored
//! and unknown kinds of argument are kept by name ([`Argument::Other`]), so that newer minor versions still load.

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A whole exported program.
#[derive(Debug, Deserialize)]
pub(crate) struct Program {
    pub(crate) graph_module: GraphModule,
    #[serde(default)]
    pub(crate) range_constraints: BTreeMap<String, RangeConstraint>,
    pub(crate) schema_version: SchemaVersion,
    #[serde(default)]
    pub(crate) verifiers: Vec<String>,
    #[serde(default)]
    pub(crate) torch_version: String,
    #[serde(default)]
    pub(crate) guards_code: Vec<String>,
}

/// Version of the program JSON.
#[derive(Debug, Deserialize)]
pub(crate) struct SchemaVersion {
    pub(crate) major: i64,
    #[serde(default)]
    pub(crate) minor: i64,
}

/// The version alone, read before the rest so that a wrong version is reported as such.
#[derive(Debug, Deserialize)]
pub(crate) struct VersionOnly {
    pub(crate) schema_version: SchemaVersion,
}

/// Bounds of a symbol.
#[derive(Debug, Deserialize)]
pub(crate) struct RangeConstraint {
    #[serde(default)]
    pub(crate) min_val: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) max_val: Option<serde_json::Value>,
}

/// The graph and its signature.
#[derive(Debug, Deserialize)]
pub(crate) struct GraphModule {
    pub(crate) graph: Graph,
    pub(crate) signature: Signature,
}

/// A graph: of the program or of a higher-order operation.
#[derive(Debug, Deserialize)]
pub(crate) struct Graph {
    pub(crate) inputs: Vec<Argument>,
    pub(crate) outputs: Vec<Argument>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tensor_values: BTreeMap<String, TensorMeta>,
}

/// One call of an operator.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) target: String,
    pub(crate) inputs: Vec<NamedArgument>,
    pub(crate) outputs: Vec<Argument>,
    #[serde(default)]
    pub(crate) metadata: NodeMetadata,
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// The parts of a node's metadata that name its origin.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct NodeMetadata {
    #[serde(default)]
    pub(crate) stack_trace: Option<String>,
    #[serde(default)]
    pub(crate) nn_module_stack: Option<String>,
}

/// An argument with its name in the operator's schema (empty for higher-order operators).
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct NamedArgument {
    pub(crate) name: String,
    pub(crate) arg: Argument,
}

/// A reference to a tensor value.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Name {
    pub(crate) name: String,
}

/// A tensor or nothing.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum OptionalTensor {
    #[serde(rename = "as_tensor")]
    Tensor(Name),
    #[serde(rename = "as_none")]
    None(bool),
}

/// An integer: a literal or the name of a symbolic value.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum IntOrName {
    #[serde(rename = "as_name")]
    Name(String),
    #[serde(rename = "as_int")]
    Int(i64),
}

/// A float: a literal or the name of a symbolic value.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum FloatOrName {
    #[serde(rename = "as_name")]
    Name(String),
    #[serde(rename = "as_float")]
    Float(JsonFloat),
}

/// A truth value: a literal or the name of a symbolic value.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum BoolOrName {
    #[serde(rename = "as_name")]
    Name(String),
    #[serde(rename = "as_bool")]
    Bool(bool),
}

/// The body of a higher-order operation.
#[derive(Debug, Deserialize)]
pub(crate) struct GraphArgument {
    pub(crate) graph: Graph,
}

/// A float that JSON cannot always hold: `NaN`, `Infinity` and `-Infinity` come as strings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct JsonFloat(pub(crate) f64);

impl Serialize for JsonFloat {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { s.serialize_f64(self.0) } else { s.serialize_str(&self.0.to_string()) }
    }
}

impl<'de> Deserialize<'de> for JsonFloat {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct FloatVisitor;
        impl Visitor<'_> for FloatVisitor {
            type Value = JsonFloat;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
            }
            fn visit_f64<E>(self, v: f64) -> Result<JsonFloat, E> {
                Ok(JsonFloat(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<JsonFloat, E> {
                Ok(JsonFloat(v as f64))
            }
            fn visit_u64<E>(self, v: u64) -> Result<JsonFloat, E> {
                Ok(JsonFloat(v as f64))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<JsonFloat, E> {
                match v {
                    "NaN" | "nan" => Ok(JsonFloat(f64::NAN)),
                    "Infinity" | "inf" => Ok(JsonFloat(f64::INFINITY)),
                    "-Infinity" | "-inf" => Ok(JsonFloat(f64::NEG_INFINITY)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(v), &self)),
                }
            }
        }
        d.deserialize_any(FloatVisitor)
    }
}

macro_rules! argument {
    ($($(#[$doc:meta])* $variant:ident($ty:ty) = $key:literal),* $(,)?) => {
        /// An argument of a call.
        #[derive(Debug)]
        pub(crate) enum Argument {
            $($(#[$doc])* $variant($ty),)*
            /// The body of a higher-order operation.
            Graph(Box<GraphArgument>),
            /// A kind of argument that the importer has no use for, by its key.
            Other(String),
        }

        impl<'de> Visitor<'de> for ArgumentVisitor {
            type Value = Argument;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an argument: an object with one key such as \"as_tensor\"")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Argument, A::Error> {
                let key: String = map.next_key()?.ok_or_else(|| de::Error::custom("an argument has no kind"))?;
                let argument = match key.as_str() {
                    $($key => Argument::$variant(map.next_value()?),)*
                    "as_graph" => Argument::Graph(map.next_value()?),
                    _ => {
                        map.next_value::<de::IgnoredAny>()?;
                        Argument::Other(key)
                    }
                };
                match map.next_key::<de::IgnoredAny>()? {
                    None => Ok(argument),
                    Some(_) => Err(de::Error::custom("an argument has two kinds")),
                }
            }
        }

        impl Serialize for Argument {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = s.serialize_map(Some(1))?;
                match self {
                    $(Argument::$variant(v) => map.serialize_entry($key, v)?,)*
                    Argument::Graph(_) => map.serialize_entry("as_graph", "…")?,
                    Argument::Other(key) => map.serialize_entry(key, "…")?,
                }
                map.end()
            }
        }
    };
}

struct ArgumentVisitor;

argument! {
    /// Nothing.
    None(bool) = "as_none",
    /// A tensor.
    Tensor(Name) = "as_tensor",
    /// Tensors.
    Tensors(Vec<Name>) = "as_tensors",
    /// An integer.
    Int(i64) = "as_int",
    /// Integers.
    Ints(Vec<i64>) = "as_ints",
    /// A float.
    Float(JsonFloat) = "as_float",
    /// Floats.
    Floats(Vec<JsonFloat>) = "as_floats",
    /// Text.
    Str(String) = "as_string",
    /// A symbolic integer.
    SymInt(IntOrName) = "as_sym_int",
    /// Symbolic integers.
    SymInts(Vec<IntOrName>) = "as_sym_ints",
    /// A symbolic float.
    SymFloat(FloatOrName) = "as_sym_float",
    /// A symbolic truth value.
    SymBool(BoolOrName) = "as_sym_bool",
    /// An element type.
    ScalarType(i64) = "as_scalar_type",
    /// A memory format.
    MemoryFormat(i64) = "as_memory_format",
    /// A layout.
    Layout(i64) = "as_layout",
    /// A device.
    Device(Device) = "as_device",
    /// A truth value.
    Bool(bool) = "as_bool",
    /// Truth values.
    Bools(Vec<bool>) = "as_bools",
    /// Tensors or nothing.
    OptionalTensors(Vec<OptionalTensor>) = "as_optional_tensors",
    /// A tensor or nothing.
    OptionalTensor(OptionalTensor) = "as_optional_tensor",
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(ArgumentVisitor)
    }
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Device {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) index: Option<i64>,
}

/// Type and layout of a tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct TensorMeta {
    pub(crate) dtype: i64,
    pub(crate) sizes: Vec<SymInt>,
    pub(crate) device: Device,
    pub(crate) strides: Vec<SymInt>,
    pub(crate) storage_offset: SymInt,
    #[serde(default)]
    pub(crate) layout: Option<i64>,
}

/// A size: a constant or an expression.
#[derive(Debug, Deserialize)]
pub(crate) enum SymInt {
    #[serde(rename = "as_expr")]
    Expr(SymExpr),
    #[serde(rename = "as_int")]
    Int(i64),
}

/// A symbolic expression in sympy's `srepr` form.
#[derive(Debug, Deserialize)]
pub(crate) struct SymExpr {
    pub(crate) expr_str: String,
}

/// What the graph's inputs and outputs are.
#[derive(Debug, Deserialize)]
pub(crate) struct Signature {
    pub(crate) input_specs: Vec<InputSpec>,
    pub(crate) output_specs: Vec<OutputSpec>,
}

/// What one graph input is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InputSpec {
    UserInput { arg: Argument },
    Parameter { arg: Name, parameter_name: String },
    Buffer { arg: Name, buffer_name: String },
    TensorConstant { arg: Name, tensor_constant_name: String },
    ConstantInput { name: String, value: Argument },
    CustomObj { custom_obj_name: String },
    Token {},
}

/// What one graph output is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputSpec {
    UserOutput { arg: Argument },
    LossOutput { arg: Name },
    BufferMutation { arg: Name, buffer_name: String },
    ParameterMutation { arg: Name, parameter_name: String },
    UserInputMutation { arg: Name, user_input_name: String },
    GradientToParameter { arg: Name },
    GradientToUserInput { arg: Name },
    Token {},
}

/// Where the payloads of weights or constants lie.
#[derive(Debug, Deserialize)]
pub(crate) struct PayloadConfig {
    pub(crate) config: BTreeMap<String, PayloadMeta>,
}

/// One weight or constant.
#[derive(Debug, Deserialize)]
pub(crate) struct PayloadMeta {
    pub(crate) path_name: String,
    #[serde(default)]
    pub(crate) use_pickle: bool,
    #[serde(default)]
    pub(crate) tensor_meta: Option<TensorMeta>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_may_be_spelled() {
        for (text, want) in
            [("\"Infinity\"", f64::INFINITY), ("\"-Infinity\"", f64::NEG_INFINITY), ("3", 3.0)]
        {
            assert_eq!(serde_json::from_str::<JsonFloat>(text).ok(), Some(JsonFloat(want)));
        }
        assert!(serde_json::from_str::<JsonFloat>("\"NaN\"").is_ok_and(|f| f.0.is_nan()));
        assert!(serde_json::from_str::<JsonFloat>("\"huge\"").is_err());
    }

    #[test]
    fn unknown_kinds_of_argument_are_kept_by_name() {
        let a: Argument = serde_json::from_str("{\"as_hologram\": [1, {\"x\": 2}]}").expect("argument");
        assert!(matches!(a, Argument::Other(k) if k == "as_hologram"));
        assert!(serde_json::from_str::<Argument>("{}").is_err());
        assert!(serde_json::from_str::<Argument>("{\"as_int\": 1, \"as_bool\": true}").is_err());
    }
}
