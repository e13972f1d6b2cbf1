//! Reading problems in the `egraph-serialize` JSON format and writing selections.
//!
//! The format (<https://github.com/egraphs-good/egraph-serialize>) is an object with `nodes`, a
//! map from e-node ids to `{op, cost, eclass, children, subsumed}`, and `root_eclasses`. Children
//! name e-nodes and stand for the e-classes of those e-nodes. A missing cost is 1. An e-node whose
//! cost is infinite (`null`, or the string `"Infinity"` or `"inf"`) or above
//! [`MAX_COST`], and an e-node that is subsumed, can never be chosen: it keeps its id and its
//! e-class, and it is left out of the [`Problem`]. Other members of the file are ignored.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::problem::{ClassId, MAX_COST, NodeId, Problem, ProblemBuilder, ProblemError};
use crate::solve::Extraction;

/// A problem read from JSON, with the ids that the file uses.
#[derive(Clone, Debug)]
pub struct Serialized {
    /// The problem.
    pub problem: Problem,
    /// The id of each e-class, by class number.
    pub class_ids: Vec<String>,
    /// The id of each e-node of the problem, by node number.
    pub node_ids: Vec<String>,
}

/// Why a file was refused.
#[derive(Debug)]
pub enum ReadError {
    /// The text is not JSON of the expected shape, or an id occurs twice.
    Json(serde_json::Error),
    /// A child of an e-node names an e-node that the file does not have.
    DanglingChild {
        /// The e-node.
        node: String,
        /// The missing child.
        child: String,
    },
    /// A cost is negative or not a number.
    BadCost {
        /// The e-node.
        node: String,
        /// The cost as it was read.
        cost: f64,
    },
    /// A root names an e-class that no e-node belongs to.
    UnknownRoot(String),
    /// Every e-node of a root e-class is subsumed or has an infinite cost.
    UnusableRoot(String),
    /// The problem breaks another rule of [`ProblemBuilder::finish`].
    Problem(ProblemError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "not a serialized e-graph: {e}"),
            Self::DanglingChild { node, child } => {
                write!(f, "e-node {node:?} has child {child:?}, which is not in the file")
            }
            Self::BadCost { node, cost } => write!(f, "e-node {node:?} has cost {cost}"),
            Self::UnknownRoot(root) => write!(f, "root e-class {root:?} has no e-node"),
            Self::UnusableRoot(root) => {
                write!(f, "no e-node of root e-class {root:?} may be chosen")
            }
            Self::Problem(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads a serialized e-graph.
pub fn read(text: &str) -> Result<Serialized, ReadError> {
    let file: File = serde_json::from_str(text).map_err(ReadError::Json)?;
    let mut class_number: HashMap<&str, u32> = HashMap::new();
    let mut class_ids = Vec::new();
    let mut class_of_node: HashMap<&str, u32> = HashMap::with_capacity(file.nodes.0.len());
    for (id, node) in &file.nodes.0 {
        let class = *class_number.entry(&node.eclass).or_insert_with(|| {
            class_ids.push(node.eclass.clone());
            (class_ids.len() - 1) as u32
        });
        if class_of_node.insert(id, class).is_some() {
            let message = format!("e-node id {id:?} occurs twice");
            return Err(ReadError::Json(serde_json::Error::custom(message)));
        }
    }
    let mut builder = ProblemBuilder::new(class_ids.len());
    let mut node_ids = Vec::new();
    let mut usable = vec![false; class_ids.len()];
    for (id, node) in &file.nodes.0 {
        let mut children = Vec::with_capacity(node.children.len());
        for child in &node.children {
            let class = class_of_node.get(child.as_str()).ok_or_else(|| {
                let (node, child) = (id.clone(), child.clone());
                ReadError::DanglingChild { node, child }
            })?;
            children.push(ClassId(*class));
        }
        let cost = node.cost.0;
        if cost.is_nan() || cost < 0.0 {
            return Err(ReadError::BadCost { node: id.clone(), cost });
        }
        if node.subsumed || cost > MAX_COST {
            continue;
        }
        let class = class_of_node[id.as_str()];
        usable[class as usize] = true;
        builder.node(ClassId(class), cost, children);
        node_ids.push(id.clone());
    }
    for root in &file.root_eclasses {
        match class_number.get(root.as_str()) {
            None => return Err(ReadError::UnknownRoot(root.clone())),
            Some(&class) if !usable[class as usize] => {
                return Err(ReadError::UnusableRoot(root.clone()));
            }
            Some(&class) => builder.root(ClassId(class)),
        }
    }
    let problem = builder.finish().map_err(ReadError::Problem)?;
    Ok(Serialized { problem, class_ids, node_ids })
}

/// The JSON form of a selection.
#[derive(Serialize)]
struct Selection<'a> {
    cost: f64,
    lower_bound: f64,
    choices: BTreeMap<&'a str, &'a str>,
}

impl Serialized {
    /// Writes a selection as `{"cost", "lower_bound", "choices": {e-class id: e-node id}}`.
    ///
    /// E-classes and e-nodes that the problem does not have are left out.
    pub fn write(&self, extraction: &Extraction) -> String {
        let mut choices = BTreeMap::new();
        for (class, node) in self.class_ids.iter().zip(&extraction.choice) {
            let id = node.and_then(|NodeId(n)| self.node_ids.get(n as usize));
            if let Some(id) = id {
                choices.insert(class.as_str(), id.as_str());
            }
        }
        let Extraction { cost, lower_bound, .. } = *extraction;
        let selection = Selection { cost, lower_bound, choices };
        // Maps with string keys, strings and numbers always have a JSON form.
        serde_json::to_string(&selection).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct File {
    nodes: Nodes,
    #[serde(default)]
    root_eclasses: Vec<String>,
}

#[derive(Deserialize)]
struct FileNode {
    #[serde(default, rename = "op")]
    _op: IgnoredAny,
    #[serde(default)]
    cost: Cost,
    eclass: String,
    #[serde(default)]
    children: Vec<String>,
    #[serde(default)]
    subsumed: bool,
}

/// The e-nodes in file order.
struct Nodes(Vec<(String, FileNode)>);

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Nodes;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a map from e-node ids to e-nodes")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Nodes, A::Error> {
                let mut nodes = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    nodes.push(entry);
                }
                Ok(Nodes(nodes))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A cost: a number, or an infinite one in any of the spellings that writers use.
struct Cost(f64);

impl Default for Cost {
    fn default() -> Self {
        Cost(1.0)
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
            Null(()),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(Cost(value)),
            Form::Null(()) => Ok(Cost(f64::INFINITY)),
            Form::Text(text) => {
                text.parse().map(Cost).map_err(|_| D::Error::custom(format!("{text:?} is not a cost")))
            }
        }
    }
}
