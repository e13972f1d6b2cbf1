//! An independent checker of selections.
//!
//! It shares no code with the solver: it walks the selection from the roots with an explicit
//! stack, demands that every needed e-class has a chosen e-node of its own, refuses cycles, and
//! adds up the costs in the order of the e-classes.

use std::fmt;

use crate::problem::{ClassId, NodeId, Problem};

/// Why a selection was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckError {
    /// The selection does not have one entry per e-class.
    WrongLength {
        /// The number of e-classes.
        expected: usize,
        /// The number of entries.
        found: usize,
    },
    /// A needed e-class has no chosen e-node.
    Missing(ClassId),
    /// The e-node chosen for a needed e-class does not belong to it.
    WrongClass {
        /// The e-class.
        class: ClassId,
        /// The chosen e-node.
        node: NodeId,
    },
    /// The selection needs the e-class in order to compute the e-class.
    Cycle(ClassId),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongLength { expected, found } => {
                write!(f, "the selection has {found} entries for {expected} e-classes")
            }
            Self::Missing(class) => write!(f, "no e-node is chosen for e-class {}", class.0),
            Self::WrongClass { class, node } => {
                write!(f, "e-node {} does not belong to e-class {}", node.0, class.0)
            }
            Self::Cycle(class) => write!(f, "the selection has a cycle at e-class {}", class.0),
        }
    }
}

impl std::error::Error for CheckError {}

/// Checks that `choice` is complete and acyclic from the roots, and returns its cost.
///
/// Entries of e-classes that the roots do not reach are ignored. The cost is the sum over the
/// reached e-classes in increasing order of class number.
pub fn check(problem: &Problem, choice: &[Option<NodeId>]) -> Result<f64, CheckError> {
    let reached = reached_classes(problem, choice)?;
    let mut cost = 0.0;
    for (c, _) in reached.iter().enumerate().filter(|(_, r)| **r) {
        if let Some(value) = choice[c].and_then(|node| problem.cost_of(node)) {
            cost += value;
        }
    }
    Ok(cost)
}

/// Marks the e-classes that the roots reach through a valid selection.
fn reached_classes(problem: &Problem, choice: &[Option<NodeId>]) -> Result<Vec<bool>, CheckError> {
    if choice.len() != problem.class_count() {
        let expected = problem.class_count();
        return Err(CheckError::WrongLength { expected, found: choice.len() });
    }
    let mut entered = vec![false; choice.len()];
    let mut left = vec![false; choice.len()];
    for &root in problem.roots() {
        if entered[root.index()] {
            continue;
        }
        entered[root.index()] = true;
        let mut stack = vec![(root, chosen(problem, choice, root)?.iter())];
        while let Some((class, rest)) = stack.last_mut() {
            let Some(&child) = rest.next() else {
                left[class.index()] = true;
                stack.pop();
                continue;
            };
            if !entered[child.index()] {
                entered[child.index()] = true;
                stack.push((child, chosen(problem, choice, child)?.iter()));
            } else if !left[child.index()] {
                return Err(CheckError::Cycle(child));
            }
        }
    }
    Ok(entered)
}

/// The children of the e-node chosen for `class`.
fn chosen<'a>(
    problem: &'a Problem,
    choice: &[Option<NodeId>],
    class: ClassId,
) -> Result<&'a [ClassId], CheckError> {
    let node = choice[class.index()].ok_or(CheckError::Missing(class))?;
    if problem.class_of(node) != Some(class) {
        return Err(CheckError::WrongClass { class, node });
    }
    Ok(problem.children_of(node))
}
