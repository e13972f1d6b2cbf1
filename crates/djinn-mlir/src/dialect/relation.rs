//! Constraints of one operation as IRDL text: one position at a time, and relations between two positions.
//!
//! A constraint of IRDL is a variable: the first type or attribute that meets it is its value, and what meets it later must
//! be that same one. This is how "the result has the operand's type" is said. It also says "if x is a tensor of f32, y is
//! not one of i64": put the types of x into classes, and those of y; give every class of y a variable; let a class of x
//! demand, beside membership, the variables of all classes of y that it does not go with, and a class of y its own. If
//! x meets such a variable, its value is x's type, which is never y's; so y cannot be of that class.

use super::facts::{Fact, Position};
use djinn_ir::attr::AttrKind;
use djinn_ir::ops::OpDef;
use djinn_ir::text::counted_name;
use djinn_ir::{DType, TensorType};
use std::collections::BTreeMap;
use std::fmt::Write;

/// An operation with fixed counts of operands and results.
pub(super) struct Operation {
    pub(super) def: &'static OpDef,
    /// Name in text, without the `djinn.` prefix.
    pub(super) name: String,
    pub(super) operands: usize,
    pub(super) results: usize,
}

/// Element type and rank: what constraints tell types apart by.
type Cell = (DType, usize);

/// The text of one operation's constraints.
struct Writer<'a> {
    out: &'a mut String,
    cells: BTreeMap<Cell, Vec<usize>>,
    next: usize,
}

impl Operation {
    pub(super) fn new(def: &'static OpDef, operands: usize, results: usize) -> Self {
        let name = counted_name(def, operands, results).unwrap_or_else(|| def.name.to_owned());
        Self { def, name, operands, results }
    }

    /// Operands and results.
    fn positions(&self) -> Vec<Position> {
        let operands = (0..self.operands).map(Position::Operand);
        operands.chain((0..self.results).map(Position::Result)).collect()
    }

    /// Writes all constraints; types are constrained if `types` holds any.
    pub(super) fn write(&self, facts: &[Fact], types: &[TensorType], out: &mut String) {
        let mut cells: BTreeMap<Cell, Vec<usize>> = BTreeMap::new();
        for (i, ty) in types.iter().enumerate() {
            let _ = writeln!(out, "    %t{i} = irdl.is {ty}");
            cells.entry((ty.dtype, ty.rank())).or_default().push(i);
        }
        let mut writer = Writer { out, cells, next: 0 };
        let mut parts: BTreeMap<Position, Vec<String>> = BTreeMap::new();
        if !types.is_empty() {
            for position in self.positions() {
                let part = writer.membership(position, facts);
                parts.entry(position).or_default().push(part);
            }
            for fact in facts {
                for (position, part) in writer.relate(self, fact) {
                    parts.entry(position).or_default().push(part);
                }
            }
        }
        for (i, attribute) in self.def.attrs.iter().enumerate() {
            let part = writer.attribute(i, attribute.kind, facts);
            parts.entry(Position::Attribute(i)).or_default().insert(0, part);
        }
        self.declare(&mut writer, &parts, facts);
    }

    /// Writes operands, results, attributes and regions.
    fn declare(&self, writer: &mut Writer<'_>, parts: &BTreeMap<Position, Vec<String>>, facts: &[Fact]) {
        let mut names: BTreeMap<Position, String> = BTreeMap::new();
        for position in self.positions().into_iter().chain((0..self.def.attrs.len()).map(Position::Attribute))
        {
            let own = parts.get(&position).map_or(&[][..], Vec::as_slice);
            names.insert(position, writer.all(position, own));
        }
        // The same type means the same variable.
        for fact in facts {
            if let Fact::SameType(a, b) = fact
                && let Some(name) = names.get(a).cloned()
                && parts.contains_key(a)
            {
                names.insert(*b, name);
            }
        }
        let operand = |i: usize| {
            let name = self.def.operands.get(i).copied().unwrap_or("");
            let optional = if name.ends_with('?') { "optional " } else { "" };
            format!("operand{i}: {optional}{}", names[&Position::Operand(i)])
        };
        let operands: Vec<String> = (0..self.operands).map(operand).collect();
        let results = (0..self.results).map(|i| format!("result{i}: {}", names[&Position::Result(i)]));
        let results: Vec<String> = results.collect();
        let attributes = self.def.attrs.iter().enumerate();
        let attributes =
            attributes.map(|(i, a)| format!("\"{}\" = {}", a.name, names[&Position::Attribute(i)]));
        let attributes: Vec<String> = attributes.collect();
        for (what, items, close) in
            [("operands(", operands, ")"), ("results(", results, ")"), ("attributes {", attributes, "}")]
        {
            if !items.is_empty() {
                let _ = writeln!(writer.out, "    irdl.{what}{}{close}", items.join(", "));
            }
        }
        let regions: Vec<String> = (0..self.def.regions).map(|i| format!("region{i}: %region{i}")).collect();
        for i in 0..self.def.regions {
            let _ = writeln!(writer.out, "    %region{i} = irdl.region");
        }
        if !regions.is_empty() {
            let _ = writeln!(writer.out, "    irdl.regions({})", regions.join(", "));
        }
    }
}

impl Writer<'_> {
    /// A new variable with this constraint.
    fn variable(&mut self, constraint: &str) -> String {
        let name = format!("%c{}", self.next);
        self.next += 1;
        let _ = writeln!(self.out, "    {name} = irdl.{constraint}");
        name
    }

    /// Met by what meets all parts.
    fn all(&mut self, position: Position, parts: &[String]) -> String {
        match (parts, position) {
            ([], Position::Attribute(_)) => self.variable("any"),
            ([], _) => self.variable("base \"!builtin.tensor\""),
            ([one], _) => one.clone(),
            (many, _) => self.variable(&format!("all_of({})", many.join(", "))),
        }
    }

    /// Met by what meets one of the parts; by nothing, if there is none.
    fn one_of(&mut self, parts: &[String]) -> String {
        match parts {
            [] => {
                // Never met; an alternative makes MLIR say "does not satisfy the constraint".
                let none = self.variable("is \"nothing\"");
                self.variable(&format!("any_of({none}, {none})"))
            }
            [one] => one.clone(),
            many => self.variable(&format!("any_of({})", many.join(", "))),
        }
    }

    /// The variable that the types of these cells meet at a position.
    fn cells(&mut self, cells: &[Cell]) -> String {
        let types: Vec<String> =
            cells.iter().flat_map(|c| &self.cells[c]).map(|i| format!("%t{i}")).collect();
        self.one_of(&types)
    }

    /// The types that may stand at a position by themselves.
    fn membership(&mut self, position: Position, facts: &[Fact]) -> String {
        let cells: Vec<Cell> =
            self.cells.keys().copied().filter(|cell| allowed(position, *cell, facts)).collect();
        self.cells(&cells)
    }

    /// The constraint of an attribute by itself.
    fn attribute(&mut self, index: usize, kind: AttrKind, facts: &[Fact]) -> String {
        let base = match kind {
            AttrKind::Int => "base \"#builtin.integer\"",
            AttrKind::Float => "base \"#builtin.float\"",
            AttrKind::Str | AttrKind::Dim => "base \"#builtin.string\"",
            AttrKind::Ints | AttrKind::Floats => "base \"#builtin.dense_array\"",
            AttrKind::Dims | AttrKind::Types => "base \"#builtin.array\"",
            AttrKind::Tensor => "base \"#builtin.dense_int_or_fp_elements\"",
            AttrKind::Bool => return self.literals(["true", "false"].map(str::to_owned)),
            AttrKind::Word(words) => return self.literals(words.iter().map(|word| format!("\"{word}\""))),
            AttrKind::DType => {
                let wanted = facts.iter().find_map(|fact| match fact {
                    Fact::DType(Position::Attribute(i), set) if *i == index => Some(*set),
                    _ => None,
                });
                let all = DType::ALL.into_iter().filter(|d| wanted.is_none_or(|set| set.has(*d)));
                return self.literals(all.map(|d| d.mlir().to_owned()));
            }
        };
        self.variable(base)
    }

    fn literals(&mut self, values: impl IntoIterator<Item = String>) -> String {
        let parts: Vec<String> =
            values.into_iter().map(|value| self.variable(&format!("is {value}"))).collect();
        self.one_of(&parts)
    }

    /// The parts that a fact about two or more positions adds to each.
    fn relate(&mut self, operation: &Operation, fact: &Fact) -> Vec<(Position, String)> {
        match fact {
            Fact::DType(..) | Fact::Rank(..) | Fact::SameType(..) => Vec::new(),
            Fact::SameDType(a, b) => self.pair(operation, (*a, *b), |a, b| a.0 == b.0, |c| (Some(c.0), None)),
            Fact::SameWidth(a, b) => {
                self.pair(operation, (*a, *b), |a, b| a.0.size() == b.0.size(), |c| (Some(c.0), None))
            }
            Fact::DTypeOrBool(a, b) => {
                self.pair(operation, (*a, *b), |a, b| b.0 == DType::Bool || a.0 == b.0, |c| (Some(c.0), None))
            }
            Fact::SameRank(a, b) => self.pair(operation, (*a, *b), |a, b| a.1 == b.1, |c| (None, Some(c.1))),
            Fact::RankAtMost(a, b) => {
                self.pair(operation, (*a, *b), |a, b| a.1 <= b.1, |c| (None, Some(c.1)))
            }
            Fact::AttributeIsDType(attribute, b) => self.dtype_attribute(*attribute, *b),
            Fact::AxisOf(attribute, b) => self.axis(*attribute, *b),
        }
    }

    /// The relation `goes` between the types of two positions, which looks at the part of a cell that `key` keeps.
    fn pair(
        &mut self,
        operation: &Operation,
        (a, b): (Position, Position),
        goes: impl Fn(Cell, Cell) -> bool,
        key: impl Fn(Cell) -> (Option<DType>, Option<usize>),
    ) -> Vec<(Position, String)> {
        if !operation.has(a) || !operation.has(b) {
            return Vec::new();
        }
        let mut classes: BTreeMap<(Option<DType>, Option<usize>), Vec<Cell>> = BTreeMap::new();
        for cell in self.cells.keys() {
            classes.entry(key(*cell)).or_default().push(*cell);
        }
        let classes: Vec<Vec<Cell>> = classes.into_values().collect();
        let marks: Vec<String> = classes.iter().map(|_| self.variable("any")).collect();
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        for class in &classes {
            let mut parts = vec![self.cells(class)];
            parts.extend(
                classes.iter().zip(&marks).filter(|(c, _)| !goes(class[0], c[0])).map(|(_, m)| m.clone()),
            );
            of_a.push(self.all(a, &parts));
        }
        for (class, mark) in classes.iter().zip(&marks) {
            let parts = [self.cells(class), mark.clone()];
            of_b.push(self.all(b, &parts));
        }
        vec![(a, self.one_of(&of_a)), (b, self.one_of(&of_b))]
    }

    /// The types of `b` have the element type that the attribute names.
    fn dtype_attribute(&mut self, attribute: usize, b: Position) -> Vec<(Position, String)> {
        let marks: Vec<(DType, String)> = DType::ALL.into_iter().map(|d| (d, self.variable("any"))).collect();
        let mut words = Vec::new();
        for dtype in DType::ALL {
            let mut parts = vec![self.variable(&format!("is {}", dtype.mlir()))];
            parts.extend(marks.iter().filter(|(other, _)| *other != dtype).map(|(_, mark)| mark.clone()));
            words.push(self.all(b, &parts));
        }
        let mut types = Vec::new();
        for (dtype, mark) in &marks {
            let cells: Vec<Cell> = self.cells.keys().copied().filter(|cell| cell.0 == *dtype).collect();
            if !cells.is_empty() {
                let parts = [self.cells(&cells), mark.clone()];
                types.push(self.all(b, &parts));
            }
        }
        vec![(Position::Attribute(attribute), self.one_of(&words)), (b, self.one_of(&types))]
    }

    /// The integer is an axis of the types of `b`.
    fn axis(&mut self, attribute: usize, b: Position) -> Vec<(Position, String)> {
        let mut ranks: Vec<usize> = self.cells.keys().map(|cell| cell.1).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let marks: Vec<(usize, String)> = ranks.iter().map(|rank| (*rank, self.variable("any"))).collect();
        let mut axes = Vec::new();
        for axis in 0..ranks.last().copied().unwrap_or(0) {
            let mut parts = vec![self.variable(&format!("is {axis} : i64"))];
            parts.extend(marks.iter().filter(|(rank, _)| *rank <= axis).map(|(_, mark)| mark.clone()));
            axes.push(self.all(b, &parts));
        }
        let mut types = Vec::new();
        for (rank, mark) in marks.iter().filter(|(rank, _)| *rank > 0) {
            let cells: Vec<Cell> = self.cells.keys().copied().filter(|cell| cell.1 == *rank).collect();
            let parts = [self.cells(&cells), mark.clone()];
            types.push(self.all(b, &parts));
        }
        vec![(Position::Attribute(attribute), self.one_of(&axes)), (b, self.one_of(&types))]
    }
}

impl Operation {
    /// Has the operation this operand or result?
    pub(super) fn has(&self, position: Position) -> bool {
        match position {
            Position::Operand(i) => i < self.operands,
            Position::Result(i) => i < self.results,
            Position::Attribute(i) => i < self.def.attrs.len(),
        }
    }
}

/// May a type of this cell stand there, by the facts about this position alone?
fn allowed(position: Position, (dtype, rank): Cell, facts: &[Fact]) -> bool {
    facts.iter().all(|fact| match fact {
        Fact::DType(p, set) if *p == position => set.has(dtype),
        Fact::Rank(p, least, most) if *p == position => (*least..=*most).contains(&rank),
        _ => true,
    })
}
