//! Cost models of a user's own: a trait for code, a table for files.
//!
//! ```toml
//! [op.gelu]
//! seconds = 2e-6
//! per_element = 1e-11
//!
//! [opaque."com.acme.Router"]
//! seconds = 40e-6
//! per_byte = 1e-12
//! ```
//!
//! `seconds = seconds + per_element · elements + per_flop · flops + per_byte · (bytes read + written)`. One entry adds
//! an operation; operations that Djinn does not know are named as in the model's file.

use crate::work::Work;
use djinn_device::{OwnCosts, Profile};
use djinn_diag::suggest::did_you_mean;
use djinn_diag::{Result, input};
use djinn_ir::ops::OP_TABLE;
use djinn_ir::{Attrs, OpKind, TensorType};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a table, at most.
const MAX_TEXT: usize = 1 << 20;

/// What a custom model is asked.
#[derive(Debug, Clone, Copy)]
pub struct OpQuery<'a> {
    /// The operation.
    pub kind: OpKind,
    /// Its attributes; none where only types are known.
    pub attrs: &'a Attrs,
    /// Types of its operands.
    pub operands: &'a [&'a TensorType],
    /// Types of its results.
    pub results: &'a [TensorType],
    /// The device.
    pub profile: &'a Profile,
    /// Its work under the sizes of the model that asks.
    pub work: &'a Work<f64>,
}

/// A cost model of a user's own.
pub trait OpCost: Send + Sync {
    /// Name, for reports.
    fn name(&self) -> &str;

    /// Seconds of an operation; `None` leaves it to the next model, and so does what is no time (negative, NaN, ∞).
    fn seconds(&self, query: &OpQuery<'_>) -> Option<f64>;
}

/// Models that a target carries.
pub(crate) struct OwnModels(pub(crate) Vec<Arc<dyn OpCost>>);

/// Cost models for [`djinn_device::Target::costs`], asked in order. The label names them and their version: plans are kept by it,
/// so it must change whenever an answer does. The text of a table is a good label.
pub fn own_costs(label: &str, models: Vec<Arc<dyn OpCost>>) -> OwnCosts {
    OwnCosts::new(label, OwnModels(models))
}

impl OpQuery<'_> {
    /// The first answer that is a time.
    pub(crate) fn ask(&self, models: &[Arc<dyn OpCost>]) -> Option<f64> {
        models.iter().filter_map(|m| m.seconds(self)).find(|s| s.is_finite() && *s >= 0.0)
    }
}

/// A table of coefficients by operation, read from TOML.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CostTable {
    name: String,
    ops: BTreeMap<OpKind, Coefficients>,
    opaque: BTreeMap<String, Coefficients>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coefficients {
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    per_element: f64,
    #[serde(default)]
    per_flop: f64,
    #[serde(default)]
    per_byte: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableText {
    #[serde(default)]
    op: BTreeMap<String, Coefficients>,
    #[serde(default)]
    opaque: BTreeMap<String, Coefficients>,
}

impl CostTable {
    /// Reads a table; `place` names the file, in diagnostics and as the model's name.
    ///
    /// # Errors
    /// `cost.format` if it is no such table, `cost.op` for an operation that does not exist, `cost.coefficient` for a
    /// coefficient that is negative or not finite.
    pub fn from_toml(text: &str, place: &str) -> Result<CostTable> {
        CostTable::read(text, place).map_err(|e| e.at(place).shortened())
    }

    fn read(text: &str, place: &str) -> Result<CostTable> {
        if text.len() > MAX_TEXT {
            return Err(input("cost.format", format!("more than {MAX_TEXT} bytes")));
        }
        let text: TableText = toml::from_str(text)
            .map_err(|e| input("cost.format", e.message().trim_end().replace('\n', " ")))?;
        for (name, c) in text.op.iter().chain(&text.opaque) {
            for (key, value) in [
                ("seconds", c.seconds),
                ("per_element", c.per_element),
                ("per_flop", c.per_flop),
                ("per_byte", c.per_byte),
            ] {
                if !(value >= 0.0 && value.is_finite()) {
                    let message = format!("'{key}' of '{name}' is {value}; it has to be 0 or above");
                    return Err(input("cost.coefficient", message));
                }
            }
        }
        let mut ops = BTreeMap::new();
        for (name, coefficients) in text.op {
            let kind = OpKind::from_name(&name).ok_or_else(|| {
                let near = did_you_mean(&name, OP_TABLE.iter().map(|d| d.name)).map(|t| t + " ");
                input("cost.op", format!("there is no operation '{name}'")).help(
                    near.unwrap_or_default()
                        + "operations that Djinn does not know stand under [opaque.\"<name>\"]",
                )
            })?;
            ops.insert(kind, coefficients);
        }
        Ok(CostTable { name: place.to_owned(), ops, opaque: text.opaque })
    }
}

impl OpCost for CostTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn seconds(&self, query: &OpQuery<'_>) -> Option<f64> {
        let own = (query.kind == OpKind::Opaque).then(|| self.opaque.get(query.attrs.str("op"))).flatten();
        let c = own.or_else(|| self.ops.get(&query.kind))?;
        let w = query.work;
        let bytes = w.bytes_read + w.bytes_written;
        Some(c.seconds + c.per_element * w.elements + c.per_flop * w.flops + c.per_byte * bytes)
    }
}
