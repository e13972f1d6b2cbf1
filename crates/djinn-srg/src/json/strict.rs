//! JSON values without double fields, and objects whose fields are all known.

use djinn_diag::{Context, Diagnostic, Result, input};
use djinn_ir::suggest::did_you_mean;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// A JSON value in which no object gives a field twice.
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> std::result::Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E>(self, v: f64) -> std::result::Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_str<E>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_string<E>(self, v: String) -> std::result::Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if out.contains_key(&name) {
                return Err(A::Error::custom(format!("the field '{name}' is given twice")));
            }
            out.insert(name, value);
        }
        Ok(Value::Object(out))
    }
}

/// A diagnostic about a value; its path is added on the way out.
pub(super) fn wrong(message: impl Into<String>) -> Box<Diagnostic> {
    input("srg.json", message)
}

/// A value of another kind than expected.
pub(super) fn expected(what: &str, value: &Value) -> Box<Diagnostic> {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    wrong(format!("expected {what}, found {found}"))
}

/// An object whose fields are all known.
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The object `value`, if all of its fields are among `known`.
    pub(super) fn of(value: &'a Value, known: &[&str]) -> Result<Self> {
        let Value::Object(map) = value else { return Err(expected("an object", value)) };
        match map.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Fields(map)),
            Some(name) => {
                let help = did_you_mean(name, known.iter().copied());
                Err(wrong(format!("there is no field '{name}' here"))
                    .help(help.unwrap_or_else(|| format!("fields are: {}", known.join(", ")))))
            }
        }
    }

    /// Reads a field that may be left out.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&'a Value) -> Result<T>,
    ) -> Result<Option<T>> {
        self.0.get(name).map(read).transpose().at(|| format!(".{name}"))
    }

    /// Reads a field that must be there.
    pub(super) fn required<T>(&self, name: &str, read: impl FnOnce(&'a Value) -> Result<T>) -> Result<T> {
        self.optional(name, read)?.ok_or_else(|| wrong(format!("the field '{name}' is missing")))
    }
}

pub(super) fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| expected("a string", value))
}

pub(super) fn unsigned(value: &Value) -> Result<u64> {
    value.as_u64().ok_or_else(|| expected("a whole number from 0", value))
}

/// A number of a list or argument.
pub(super) fn index(value: &Value) -> Result<u32> {
    u32::try_from(unsigned(value)?).map_err(|_| wrong("the number is too large"))
}

pub(super) fn signed(value: &Value) -> Result<i64> {
    value.as_i64().ok_or_else(|| expected("a whole number of 64 bits", value))
}

pub(super) fn truth(value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

/// A number, or the bits of one that is not finite.
pub(super) fn float(value: &Value) -> Result<f64> {
    match value {
        Value::Number(n) => n.as_f64().ok_or_else(|| expected("a number", value)),
        Value::String(text) => {
            let bits = text.strip_prefix("0x").filter(|hex| hex.len() == 16);
            let bits = bits.and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let float = bits.map(f64::from_bits).filter(|v| !v.is_finite());
            float.ok_or_else(|| {
                wrong("a string in place of a float holds 0x and 16 digits of a NaN or infinity")
            })
        }
        _ => Err(expected("a number", value)),
    }
}

/// Reads every item of a list.
pub(super) fn list<'a, T>(value: &'a Value, mut read: impl FnMut(&'a Value) -> Result<T>) -> Result<Vec<T>> {
    let Value::Array(items) = value else { return Err(expected("a list", value)) };
    items.iter().enumerate().map(|(i, item)| read(item).at(|| format!("[{i}]"))).collect()
}

/// Reads every entry of an object whose field names are free.
pub(super) fn entries<'a>(
    value: &'a Value,
    mut read: impl FnMut(&'a str, &'a Value) -> Result<()>,
) -> Result<()> {
    let Value::Object(map) = value else { return Err(expected("an object", value)) };
    map.iter().try_for_each(|(name, value)| read(name, value).at(|| format!("[\"{name}\"]")))
}
