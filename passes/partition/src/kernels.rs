//! Kernel groups: what one launch runs.
//!
//! Operations are taken in order. Each joins the newest group among its producers that its role allows, and
//! pointwise groups that it also reads are merged in, as long as no group then waits for itself: a path from the
//! group out and back in is looked for before every step, so the graph of groups stays acyclic. Views that are
//! still alone afterwards join the one group that reads them.

use crate::body::Body;
use crate::fusion::{Role, role, row_axes};
use djinn_ir::Dim;

/// The most operations of a group: larger kernels run out of registers before they save a launch.
pub(crate) const MAX_GROUP_OPS: usize = 32;

/// The most uses of values that one search for a path between groups follows; beyond it, groups stay apart.
const MAX_VISITS: usize = 1024;

/// What a group computes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Elements of one space.
    Pointwise,
    /// Rows along these axes of one space, and what follows on the same rows.
    Row(Vec<i64>),
    /// One operation with its own loop, and pointwise work on its result.
    Anchor,
    /// Nothing may join.
    Closed,
    /// A view that no group has taken in.
    View,
    /// A copy between devices.
    Copy,
}

/// A group under construction.
#[derive(Debug, Clone)]
struct Group<'a> {
    kind: Kind,
    /// The shape of the elements that it computes.
    space: &'a [Dim],
    /// The shape after reduction along the rows' axes, if something is reduced.
    reduced: Option<&'a [Dim]>,
    /// Positions, ascending; empty if the group was merged into another.
    members: Vec<u32>,
}

/// The groups of a body and how the search went.
pub(crate) struct Kernels {
    /// The group of every operation that a kernel runs, numbered by first operation.
    pub(crate) kernel: Vec<Option<u32>>,
    /// How many groups there are.
    pub(crate) count: usize,
    /// How often a group was full.
    pub(crate) full: usize,
    /// How often joining would have made groups wait for one another.
    pub(crate) cycles: usize,
    /// How often the search for a path gave up.
    pub(crate) gave_up: usize,
}

/// Groups the operations; those of one group have one class.
pub(crate) fn kernels(body: &Body, class: &[u32]) -> Kernels {
    let mut builder = Builder {
        body,
        class,
        group_of: Vec::with_capacity(body.len()),
        groups: Vec::with_capacity(body.len()),
        visited: vec![0; body.len()],
        stamp: 0,
        stack: Vec::new(),
        out: Kernels { kernel: Vec::new(), count: 0, full: 0, cycles: 0, gave_up: 0 },
    };
    for position in 0..body.len() as u32 {
        builder.take(position);
    }
    builder.place_views();
    builder.number()
}

/// Groups while they grow; those of the operations seen so far.
struct Builder<'a> {
    body: &'a Body<'a>,
    class: &'a [u32],
    /// The group of every operation.
    group_of: Vec<u32>,
    /// Group number i begins as the group of operation i alone.
    groups: Vec<Group<'a>>,
    /// The last search that visited an operation.
    visited: Vec<u32>,
    stamp: u32,
    stack: Vec<u32>,
    out: Kernels,
}

impl<'a> Builder<'a> {
    fn take(&mut self, position: u32) {
        let op = self.body.op(position);
        let role = role(op);
        let graph = self.body.graph;
        let space: &'a [Dim] = op.results.first().map_or(&[], |v| graph.ty(*v).shape.as_slice());
        let mut group = Group { kind: Kind::Closed, space, reduced: None, members: vec![position] };
        match role {
            Role::Pointwise | Role::Moving => group.kind = Kind::Pointwise,
            Role::View => group.kind = Kind::View,
            Role::Anchor => group.kind = Kind::Anchor,
            Role::Copy => group.kind = Kind::Copy,
            Role::Alone => {}
            Role::Row => {
                group.kind = Kind::Row(row_axes(graph, op));
                let whole: &[Dim] = op.operands.first().map_or(&[], |v| graph.ty(*v).shape.as_slice());
                if whole != space {
                    (group.space, group.reduced) = (whole, Some(space));
                }
            }
        }
        self.group_of.push(position);
        self.groups.push(group);
        let target = match role {
            Role::Pointwise | Role::Moving | Role::View | Role::Row => self.join_newest(position, role),
            Role::Anchor | Role::Alone | Role::Copy => None,
        };
        if matches!(role, Role::Pointwise | Role::Row) {
            self.merge_producers(position, target.unwrap_or(position));
        }
    }

    /// The groups that `position` reads, newest first.
    fn producer_groups(&self, position: u32) -> Vec<u32> {
        let producers = self.body.predecessors(position).iter().rev();
        let mut groups: Vec<u32> = Vec::new();
        for group in producers.map(|p| self.group_of[*p as usize]) {
            if self.class[group as usize] == self.class[position as usize] && !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    /// Joins `position` to the newest group among its producers that may take it; that group.
    fn join_newest(&mut self, position: u32, role: Role) -> Option<u32> {
        for group in self.producer_groups(position) {
            let Some(kind) = self.kind_after_joining(group, position, role) else { continue };
            if self.groups[group as usize].members.len() >= MAX_GROUP_OPS {
                self.out.full += 1;
                continue;
            }
            // Whatever else the operation reads must not wait for the group.
            if !self.is_acyclic(group, position, position) {
                continue;
            }
            let (space, reduced) =
                (self.groups[position as usize].space, self.groups[position as usize].reduced);
            let joined = &mut self.groups[group as usize];
            if role == Role::Row {
                (joined.space, joined.reduced) = (space, reduced.or(joined.reduced));
            } else if kind != Kind::Closed && !matches!(kind, Kind::Row(_)) {
                joined.space = space;
            }
            joined.kind = kind;
            joined.members.push(position);
            self.group_of[position as usize] = group;
            self.groups[position as usize].members.clear();
            return Some(group);
        }
        None
    }

    /// What `group` becomes if `position` joins it; `None` if it must not.
    fn kind_after_joining(&self, group: u32, position: u32, role: Role) -> Option<Kind> {
        let target = &self.groups[group as usize];
        let own = &self.groups[position as usize];
        let same_space = own.space == target.space;
        match (&target.kind, role) {
            (Kind::Closed | Kind::View | Kind::Copy, _) => None,
            (_, Role::View) if !self.is_used_only_by(group, position) => None,
            (Kind::Row(_), Role::View) => Some(Kind::Closed),
            (kind, Role::View) => Some(kind.clone()),
            (Kind::Pointwise, Role::Pointwise | Role::Moving) => {
                let inlined =
                    (same_space && role == Role::Pointwise) || self.is_used_only_by(group, position);
                inlined.then_some(Kind::Pointwise)
            }
            (Kind::Pointwise, Role::Row) => {
                (same_space && self.reads_first(group, position)).then(|| own.kind.clone())
            }
            (Kind::Anchor, Role::Pointwise) => same_space.then_some(Kind::Anchor),
            (Kind::Row(axes), Role::Pointwise) => {
                // A reduction that drops its axes does not line up with the rows again.
                let lined_up = target.reduced.is_none_or(|r| r.len() == target.space.len());
                let fits = (same_space && lined_up) || Some(own.space) == target.reduced;
                fits.then(|| Kind::Row(axes.clone()))
            }
            (Kind::Row(_), Role::Row) => {
                let same_rows = same_space && own.kind == target.kind && self.reads_first(group, position);
                same_rows.then(|| own.kind.clone())
            }
            (Kind::Anchor, Role::Moving | Role::Row) | (Kind::Row(_), Role::Moving) => None,
            (_, Role::Anchor | Role::Alone | Role::Copy) => None,
        }
    }

    /// Whether the first operand of `position` comes out of `group`.
    fn reads_first(&self, group: u32, position: u32) -> bool {
        let first = self.body.op(position).operands.first();
        let producer = first.and_then(|v| self.body.producer(*v));
        producer.is_some_and(|p| self.group_of[p as usize] == group)
    }

    /// Whether nothing but `position` and the group itself needs what `group` computes.
    fn is_used_only_by(&self, group: u32, position: u32) -> bool {
        let inside = |user: u32| user == position || self.group_of.get(user as usize) == Some(&group);
        self.groups[group as usize].members.iter().all(|m| {
            !self.body.gives_result[*m as usize] && self.body.successors(*m).iter().all(|user| inside(*user))
        })
    }

    /// Merges pointwise groups that `position` reads into `target`, its group.
    fn merge_producers(&mut self, position: u32, target: u32) {
        for group in self.producer_groups(position) {
            let (from, into) = (&self.groups[group as usize], &self.groups[target as usize]);
            let inlined = || self.is_used_only_by(group, position);
            let allowed = group != target
                && from.kind == Kind::Pointwise
                && match into.kind {
                    Kind::Pointwise => from.space == into.space || inlined(),
                    Kind::Anchor | Kind::Row(_) => inlined(),
                    Kind::Closed | Kind::View | Kind::Copy => false,
                };
            if !allowed {
                continue;
            }
            if from.members.len() + into.members.len() > MAX_GROUP_OPS {
                self.out.full += 1;
                continue;
            }
            if !self.is_acyclic(group, target, position) {
                continue;
            }
            let moved = std::mem::take(&mut self.groups[group as usize].members);
            for member in &moved {
                self.group_of[*member as usize] = target;
            }
            let members = &mut self.groups[target as usize].members;
            members.extend(moved);
            members.sort_unstable();
        }
    }

    /// Whether `a` and `b` can become one group: no path leads from one to the other through a third.
    ///
    /// Paths that come back must stay in one class, and end in operations up to `last`.
    fn is_acyclic(&mut self, a: u32, b: u32, last: u32) -> bool {
        self.has_no_path(a, b, last) && self.has_no_path(b, a, last)
    }

    fn has_no_path(&mut self, from: u32, to: u32, last: u32) -> bool {
        self.stamp += 1;
        self.stack.clear();
        let mut visits = 0;
        self.push_users(from, to, from, last, &mut visits);
        let mut found = false;
        while !found
            && visits <= MAX_VISITS
            && let Some(group) = self.stack.pop()
        {
            found = self.push_users(group, to, from, last, &mut visits);
        }
        self.out.cycles += usize::from(found);
        self.out.gave_up += usize::from(!found && visits > MAX_VISITS);
        !found && visits <= MAX_VISITS
    }

    /// Stacks the groups that use what `group` computes, except `from` and `to`; whether `to` is one of them.
    ///
    /// Ends early once there were more than [`MAX_VISITS`] visits.
    fn push_users(&mut self, group: u32, to: u32, from: u32, last: u32, visits: &mut usize) -> bool {
        let body = self.body;
        let mut found = false;
        for member in &self.groups[group as usize].members {
            for user in body.successors(*member).iter().take_while(|u| **u <= last) {
                *visits += 1;
                if *visits > MAX_VISITS {
                    return found;
                }
                let next = self.group_of[*user as usize];
                if next == to {
                    found = true;
                } else if next != from
                    && self.class[next as usize] == self.class[from as usize]
                    && self.visited[next as usize] != self.stamp
                {
                    self.visited[next as usize] = self.stamp;
                    self.stack.push(next);
                }
            }
        }
        found
    }

    /// Gives every view that is alone to the one group that reads it; later ones first, for views of views.
    ///
    /// Between the view and its only reader there is no other group, so no cycle can arise.
    fn place_views(&mut self) {
        for position in (0..self.body.len() as u32).rev() {
            if self.groups[position as usize].kind != Kind::View || self.body.gives_result[position as usize]
            {
                continue;
            }
            let mut readers = self.body.successors(position).iter().map(|u| self.group_of[*u as usize]);
            let Some(reader) = readers.next() else { continue };
            let target = &self.groups[reader as usize];
            let takes = !matches!(target.kind, Kind::View | Kind::Copy)
                && self.class[reader as usize] == self.class[position as usize]
                && role(self.body.op(reader)) != Role::Alone
                && target.members.len() < MAX_GROUP_OPS;
            if takes && readers.all(|r| r == reader) {
                self.group_of[position as usize] = reader;
                self.groups[position as usize].members.clear();
                self.groups[reader as usize].members.push(position);
            }
        }
    }

    fn number(mut self) -> Kernels {
        let mut numbers = vec![None; self.groups.len()];
        for group in &self.group_of {
            let launched = !matches!(self.groups[*group as usize].kind, Kind::View | Kind::Copy);
            let number = &mut numbers[*group as usize];
            if launched && number.is_none() {
                *number = Some(self.out.count as u32);
                self.out.count += 1;
            }
            self.out.kernel.push(*number);
        }
        self.out
    }
}
