//! Instances of the benchmark and their JSON form.

use crate::error::PlaceError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Edges out of one node may differ in cost by this much before the file is refused.
const COST_TOLERANCE: f64 = 1e-6;

/// The most nodes that an instance may have.
pub const MAX_NODES: usize = 10_000;

/// The largest time or size in an instance; it keeps every sum finite.
pub const MAX_QUANTITY: f64 = 1e150;

/// One operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The number that the file gives it.
    pub id: i64,
    /// Whether an accelerator can run it.
    pub supported: bool,
    /// Time on a CPU core.
    pub cpu_time: f64,
    /// Time on an accelerator.
    pub accelerator_time: f64,
    /// Bytes that it takes on an accelerator.
    pub size: f64,
    /// Nodes of one class must be on one device.
    pub colour_class: Option<i64>,
    /// Time to move its output between an accelerator and the memory of the host.
    pub output_cost: f64,
}

/// A graph of operators, and the devices it may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The number of accelerators.
    pub accelerators: usize,
    /// The number of CPU cores.
    pub cpus: usize,
    /// Bytes that one accelerator holds.
    pub capacity: f64,
    /// The operators.
    pub nodes: Vec<Node>,
    /// Producer and consumer of each value, as indices into `nodes`.
    pub edges: Vec<(usize, usize)>,
}

impl Instance {
    /// Reads the JSON form.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let file: Value = serde_json::from_str(text).map_err(|e| PlaceError::Format(e.to_string()))?;
        let accelerators = count(&file, "maxFPGAs")?;
        let cpus = count(&file, "maxCPUs")?;
        let capacity = number(&file, "maxSizePerFPGA", "the file")?;
        let list = array(&file, "nodes", "the file")?;
        if list.len() > MAX_NODES {
            return Err(PlaceError::Format(format!("{} nodes; at most {MAX_NODES} are read", list.len())));
        }
        let mut nodes = Vec::with_capacity(list.len());
        let mut index: BTreeMap<i64, usize> = BTreeMap::new();
        for (i, value) in list.iter().enumerate() {
            let node = read_node(value, i)?;
            if index.insert(node.id, i).is_some() {
                return Err(PlaceError::Format(format!("node id {} occurs twice", node.id)));
            }
            nodes.push(node);
        }
        let mut instance = Self { accelerators, cpus, capacity, nodes, edges: Vec::new() };
        instance.read_edges(array(&file, "edges", "the file")?, &index)?;
        instance.validate()?;
        Ok(instance)
    }

    /// Writes the JSON form.
    pub fn to_json(&self) -> String {
        let nodes: Vec<Value> = self.nodes.iter().map(write_node).collect();
        let edge = |&(a, b): &(usize, usize)| {
            let (a, b) = (&self.nodes[a], &self.nodes[b]);
            json!({"sourceId": a.id, "destId": b.id, "cost": a.output_cost})
        };
        let edges: Vec<Value> = self.edges.iter().map(edge).collect();
        json!({
            "maxSizePerFPGA": self.capacity, "maxFPGAs": self.accelerators, "maxCPUs": self.cpus,
            "nodes": nodes, "edges": edges,
        })
        .to_string()
    }

    /// Checks what [`Instance::parse`] promises; for instances built by hand.
    pub fn validate(&self) -> Result<(), PlaceError> {
        if self.accelerators == 0 && self.cpus == 0 {
            return Err(PlaceError::Invalid(
                "there is no device: 'maxFPGAs' and 'maxCPUs' are both 0".into(),
            ));
        }
        if self.nodes.len() > MAX_NODES {
            return Err(PlaceError::Invalid(format!("more than {MAX_NODES} nodes")));
        }
        if !quantity(self.capacity) {
            return Err(PlaceError::Invalid(format!("'maxSizePerFPGA' is {}", self.capacity)));
        }
        for node in &self.nodes {
            for (what, x) in [
                ("cpuLatency", node.cpu_time),
                ("fpgaLatency", node.accelerator_time),
                ("size", node.size),
                ("cost", node.output_cost),
            ] {
                if !quantity(x) {
                    return Err(PlaceError::Invalid(format!("'{what}' of node {} is {x}", node.id)));
                }
            }
        }
        if self.edges.iter().any(|&(a, b)| a >= self.nodes.len() || b >= self.nodes.len()) {
            return Err(PlaceError::Invalid("an edge leads to a node that is not there".into()));
        }
        self.topological_order().map(|_| ())
    }

    /// The nodes so that producers come first, smallest index first among those ready.
    pub(crate) fn topological_order(&self) -> Result<Vec<usize>, PlaceError> {
        crate::graph::topological_order(self.nodes.len(), &self.edges).map_err(|node| {
            PlaceError::Invalid(format!("node {} is part of a cycle of edges", self.nodes[node].id))
        })
    }

    fn read_edges(&mut self, list: &[Value], index: &BTreeMap<i64, usize>) -> Result<(), PlaceError> {
        let mut priced = vec![false; self.nodes.len()];
        for (i, value) in list.iter().enumerate() {
            let place = format!("edge {i}");
            let end = |key: &str| {
                let id = integer(value, key, &place)?;
                index.get(&id).copied().ok_or_else(|| {
                    PlaceError::Format(format!("{place}: '{key}' is {id}, but no node has this id"))
                })
            };
            let (a, b) = (end("sourceId")?, end("destId")?);
            let cost = number(value, "cost", &place)?;
            let node = &mut self.nodes[a];
            if !priced[a] {
                node.output_cost = cost;
                priced[a] = true;
            } else if (node.output_cost - cost).abs() > COST_TOLERANCE {
                return Err(PlaceError::Format(format!(
                    "{place}: cost {cost}, but another edge out of node {} costs {}",
                    node.id, node.output_cost
                )));
            }
            self.edges.push((a, b));
        }
        self.edges.sort_unstable();
        self.edges.dedup();
        Ok(())
    }
}

fn quantity(x: f64) -> bool {
    (0.0..=MAX_QUANTITY).contains(&x)
}

fn read_node(value: &Value, i: usize) -> Result<Node, PlaceError> {
    let place = format!("node {i}");
    let id = integer(value, "id", &place)?;
    let place = format!("node {id}");
    if boolean(value, "isBackwardNode", &place)? {
        let text = format!("{place} is a backward node; only inference graphs are placed");
        return Err(PlaceError::Unsupported(text));
    }
    let colour_class = match value.get("colorClass") {
        None | Some(Value::Null) => None,
        Some(_) => Some(integer(value, "colorClass", &place)?),
    };
    let size = if value.get("size").is_some() { number(value, "size", &place)? } else { 0.0 };
    Ok(Node {
        id,
        supported: boolean(value, "supportedOnFpga", &place)?,
        cpu_time: number(value, "cpuLatency", &place)?,
        accelerator_time: number(value, "fpgaLatency", &place)?,
        size,
        colour_class,
        output_cost: 0.0,
    })
}

fn write_node(node: &Node) -> Value {
    let mut value = json!({
        "id": node.id, "supportedOnFpga": node.supported, "cpuLatency": node.cpu_time,
        "fpgaLatency": node.accelerator_time, "isBackwardNode": false, "size": node.size,
    });
    if let Some(class) = node.colour_class {
        value["colorClass"] = json!(class);
    }
    value
}

fn field<'a>(value: &'a Value, key: &str, place: &str) -> Result<&'a Value, PlaceError> {
    value.get(key).ok_or_else(|| PlaceError::Format(format!("{place}: '{key}' is missing")))
}

/// The error that `value` under `key` is not what is `wanted`.
pub(super) fn wrong(place: &str, key: &str, value: &Value, wanted: &str) -> PlaceError {
    let mut text = value.to_string();
    if text.len() > 60 {
        text = text.chars().take(60).chain("…".chars()).collect();
    }
    PlaceError::Format(format!("{place}: '{key}' is {text}, not {wanted}"))
}

fn number(value: &Value, key: &str, place: &str) -> Result<f64, PlaceError> {
    let found = field(value, key, place)?;
    match found.as_f64() {
        Some(x) if quantity(x) => Ok(x),
        _ => Err(wrong(place, key, found, "a number that is zero or more")),
    }
}

fn integer(value: &Value, key: &str, place: &str) -> Result<i64, PlaceError> {
    let found = field(value, key, place)?;
    found.as_i64().ok_or_else(|| wrong(place, key, found, "an integer"))
}

fn boolean(value: &Value, key: &str, place: &str) -> Result<bool, PlaceError> {
    let found = field(value, key, place)?;
    match (found.as_bool(), found.as_i64()) {
        (Some(b), _) => Ok(b),
        (_, Some(0)) => Ok(false),
        (_, Some(1)) => Ok(true),
        _ => Err(wrong(place, key, found, "true, false, 0 or 1")),
    }
}

fn count(file: &Value, key: &str) -> Result<usize, PlaceError> {
    let found = integer(file, key, "the file")?;
    usize::try_from(found).map_err(|_| wrong("the file", key, &json!(found), "a number of devices"))
}

/// The list that `value`, which messages call `place`, has under `key`.
pub(super) fn array<'a>(value: &'a Value, key: &str, place: &str) -> Result<&'a Vec<Value>, PlaceError> {
    let found = field(value, key, place)?;
    found.as_array().ok_or_else(|| wrong(place, key, found, "a list"))
}
