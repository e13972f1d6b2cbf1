//! The extraction problem: e-classes, e-nodes with costs, and roots.
//!
//! A [`Problem`] is immutable and valid by construction. [`ProblemBuilder`] collects e-nodes and
//! [`ProblemBuilder::finish`] checks every one of them, so that no later step has to.

use std::fmt;

/// The largest cost that an e-node may have.
///
/// The limit keeps the sum over all e-nodes of any problem finite. An e-node that must never be
/// chosen is left out of the problem instead of being given a huge cost.
pub const MAX_COST: f64 = 1e150;

/// An e-class, numbered from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

/// An e-node, numbered from zero in the order in which the builder received them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl ClassId {
    /// The number as an index into a per-class table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// The number as an index into a per-node table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A validated extraction problem.
#[derive(Clone, Debug)]
pub struct Problem {
    node_class: Vec<ClassId>,
    node_cost: Vec<f64>,
    child_start: Vec<u32>,
    children: Vec<ClassId>,
    class_start: Vec<u32>,
    class_nodes: Vec<NodeId>,
    roots: Vec<ClassId>,
}

impl Problem {
    /// The number of e-classes.
    pub fn class_count(&self) -> usize {
        self.class_start.len() - 1
    }

    /// The number of e-nodes.
    pub fn node_count(&self) -> usize {
        self.node_class.len()
    }

    /// The number of child references of all e-nodes together.
    pub fn edge_count(&self) -> usize {
        self.children.len()
    }

    /// The root e-classes, in the order in which they were added, without repetitions.
    pub fn roots(&self) -> &[ClassId] {
        &self.roots
    }

    /// The e-class that contains `node`, or `None` when there is no such e-node.
    pub fn class_of(&self, node: NodeId) -> Option<ClassId> {
        self.node_class.get(node.index()).copied()
    }

    /// The cost of `node`, or `None` when there is no such e-node.
    pub fn cost_of(&self, node: NodeId) -> Option<f64> {
        self.node_cost.get(node.index()).copied()
    }

    /// The child e-classes of `node` as they were added; empty when there is no such e-node.
    pub fn children_of(&self, node: NodeId) -> &[ClassId] {
        let n = node.index();
        match (self.child_start.get(n), self.child_start.get(n + 1)) {
            (Some(&a), Some(&b)) => &self.children[a as usize..b as usize],
            _ => &[],
        }
    }

    /// The e-nodes of `class`, in increasing order; empty when there is no such e-class.
    pub fn nodes_of(&self, class: ClassId) -> &[NodeId] {
        let c = class.index();
        match (self.class_start.get(c), self.class_start.get(c + 1)) {
            (Some(&a), Some(&b)) => &self.class_nodes[a as usize..b as usize],
            _ => &[],
        }
    }
}

/// Why a problem was refused.
#[derive(Clone, Debug, PartialEq)]
pub enum ProblemError {
    /// An e-node belongs to an e-class that does not exist.
    UnknownClass {
        /// The e-node.
        node: NodeId,
        /// The missing e-class.
        class: ClassId,
    },
    /// A child of an e-node is an e-class that does not exist.
    DanglingChild {
        /// The e-node.
        node: NodeId,
        /// The missing e-class.
        child: ClassId,
    },
    /// The cost of an e-node is negative, not a number, infinite or above [`MAX_COST`].
    BadCost {
        /// The e-node.
        node: NodeId,
        /// Its cost.
        cost: f64,
    },
    /// A root is an e-class that does not exist.
    UnknownRoot(ClassId),
    /// A root e-class has no e-node.
    EmptyRoot(ClassId),
    /// There are more e-classes, e-nodes or child references than 32-bit numbers can name.
    TooLarge,
}

impl fmt::Display for ProblemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownClass { node, class } => {
                write!(f, "e-node {} belongs to unknown e-class {}", node.0, class.0)
            }
            Self::DanglingChild { node, child } => {
                write!(f, "e-node {} has unknown child e-class {}", node.0, child.0)
            }
            Self::BadCost { node, cost } => {
                write!(f, "e-node {} has cost {cost}; a cost is a number from 0 to {MAX_COST:e}", node.0)
            }
            Self::UnknownRoot(class) => write!(f, "root e-class {} does not exist", class.0),
            Self::EmptyRoot(class) => write!(f, "root e-class {} has no e-node", class.0),
            Self::TooLarge => write!(f, "the problem has more parts than 32-bit numbers can name"),
        }
    }
}

impl std::error::Error for ProblemError {}

/// Collects e-nodes and roots; [`ProblemBuilder::finish`] validates them.
#[derive(Clone, Debug)]
pub struct ProblemBuilder {
    class_count: usize,
    node_class: Vec<ClassId>,
    node_cost: Vec<f64>,
    child_end: Vec<usize>,
    children: Vec<ClassId>,
    roots: Vec<ClassId>,
}

impl ProblemBuilder {
    /// Starts a problem with the e-classes `0..class_count`.
    pub fn new(class_count: usize) -> Self {
        Self {
            class_count,
            node_class: Vec::new(),
            node_cost: Vec::new(),
            child_end: Vec::new(),
            children: Vec::new(),
            roots: Vec::new(),
        }
    }

    /// Adds an e-node to `class` and returns its number.
    ///
    /// Repeated children are allowed; they count once.
    pub fn node<I>(&mut self, class: ClassId, cost: f64, children: I) -> NodeId
    where
        I: IntoIterator<Item = ClassId>,
    {
        let id = NodeId(u32::try_from(self.node_class.len()).unwrap_or(u32::MAX));
        self.node_class.push(class);
        self.node_cost.push(cost);
        self.children.extend(children);
        self.child_end.push(self.children.len());
        id
    }

    /// Adds a root e-class.
    pub fn root(&mut self, class: ClassId) {
        self.roots.push(class);
    }

    /// Checks everything and returns the problem, or the first fault in the order of addition.
    pub fn finish(self) -> Result<Problem, ProblemError> {
        // One number is kept free in each space because `u32::MAX` and one synthetic class and
        // node serve as internal marks.
        let limit = u32::MAX as usize - 2;
        let largest = [self.class_count, self.node_class.len(), self.children.len()];
        if largest.into_iter().any(|n| n >= limit) {
            return Err(ProblemError::TooLarge);
        }
        self.check_nodes()?;
        let mut class_start = vec![0u32; self.class_count + 1];
        for class in &self.node_class {
            class_start[class.index() + 1] += 1;
        }
        for c in 0..self.class_count {
            class_start[c + 1] += class_start[c];
        }
        let mut fill = class_start.clone();
        let mut class_nodes = vec![NodeId(0); self.node_class.len()];
        for (n, class) in self.node_class.iter().enumerate() {
            class_nodes[fill[class.index()] as usize] = NodeId(n as u32);
            fill[class.index()] += 1;
        }
        let mut seen = vec![false; self.class_count];
        let mut roots = Vec::new();
        for root in self.roots {
            let c = root.index();
            if c >= self.class_count {
                return Err(ProblemError::UnknownRoot(root));
            }
            if class_start[c] == class_start[c + 1] {
                return Err(ProblemError::EmptyRoot(root));
            }
            if !std::mem::replace(&mut seen[c], true) {
                roots.push(root);
            }
        }
        let mut child_start = Vec::with_capacity(self.child_end.len() + 1);
        child_start.push(0);
        child_start.extend(self.child_end.iter().map(|&e| e as u32));
        Ok(Problem {
            node_class: self.node_class,
            node_cost: self.node_cost,
            child_start,
            children: self.children,
            class_start,
            class_nodes,
            roots,
        })
    }

    fn check_nodes(&self) -> Result<(), ProblemError> {
        let mut start = 0;
        for (n, &class) in self.node_class.iter().enumerate() {
            let node = NodeId(n as u32);
            if class.index() >= self.class_count {
                return Err(ProblemError::UnknownClass { node, class });
            }
            let cost = self.node_cost[n];
            if !(0.0..=MAX_COST).contains(&cost) {
                return Err(ProblemError::BadCost { node, cost });
            }
            for &child in &self.children[start..self.child_end[n]] {
                if child.index() >= self.class_count {
                    return Err(ProblemError::DanglingChild { node, child });
                }
            }
            start = self.child_end[n];
        }
        Ok(())
    }
}
