//! From statements to instructions with numbered registers.

use super::alu::{self, Alu};
use super::convert;
use super::kernel::{Instruction, Kernel, Kind, MODULE_WINDOW, ParamLayout, Space, error};
use super::parse::{Entry, Operand, Result, Statement, Variable};
use super::warp_ops;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of special registers and where their numbers come from.
const SPECIAL: [&str; 17] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%lanemask_lt",
    "%lanemask_eq",
];

/// The address of dynamic shared memory: behind all that is declared.
pub(crate) const DYNAMIC: &str = "%dynamic_shared";

pub(crate) fn decode(entry: &Entry, globals: &[Variable]) -> Result<Kernel> {
    let mut decoder = Decoder::default();
    decoder.params(entry)?;
    for variable in globals {
        decoder.variable(variable, entry.line)?;
    }
    for statement in &entry.body {
        decoder.statement(statement)?;
    }
    decoder.finish(entry)
}

#[derive(Default)]
pub(crate) struct Decoder {
    code: Vec<Instruction>,
    /// Registers by name, with their widths in bits.
    names: BTreeMap<String, (u32, u32)>,
    /// Numbered registers: the first's number, how many, and their width.
    families: BTreeMap<String, (u32, u32, u32)>,
    registers: u32,
    constants: BTreeMap<u64, u32>,
    special: BTreeMap<&'static str, u32>,
    /// Variables: space and offset.
    variables: BTreeMap<String, (Space, u64)>,
    labels: BTreeMap<String, usize>,
    /// Branches whose label is to be found: instruction, line, label.
    open: Vec<(usize, u32, String)>,
    params: Vec<ParamLayout>,
    shared: u64,
    local: u64,
    module: Vec<u8>,
    dynamic: Vec<String>,
}

impl Decoder {
    fn params(&mut self, entry: &Entry) -> Result<()> {
        let mut offset = 0;
        for param in &entry.params {
            offset = u64::next_multiple_of(offset, param.align);
            self.variables.insert(param.name.clone(), (Space::Param, offset));
            self.params.push(ParamLayout { offset: offset as usize, size: param.bytes as usize });
            offset += param.bytes;
            if offset > 32764 {
                return error(entry.line, "too many bytes of parameters");
            }
        }
        Ok(())
    }

    fn variable(&mut self, v: &Variable, line: u32) -> Result<()> {
        let place = |used: &mut u64| {
            let at = used.next_multiple_of(v.align);
            *used = at.saturating_add(v.bytes);
            at
        };
        let at = match v.space.as_str() {
            ".shared" if v.external => {
                // It begins behind all that is declared, which is not known yet.
                self.dynamic.push(v.name.clone());
                self.variables.insert(v.name.clone(), (Space::Shared, 0));
                return Ok(());
            }
            ".shared" => (Space::Shared, place(&mut self.shared)),
            ".local" => (Space::Local, place(&mut self.local)),
            ".const" | ".global" if !v.external => {
                let mut used = self.module.len() as u64;
                let at = place(&mut used);
                if used > 1 << 28 {
                    return error(line, format!("'{}' is too large", v.name));
                }
                self.module.resize(used as usize, 0);
                self.module[at as usize..][..v.initial.len()].copy_from_slice(&v.initial);
                (Space::Global, MODULE_WINDOW + at)
            }
            other => return error(line, format!("the variable '{}' in {other} is not supported", v.name)),
        };
        if self.shared > 1 << 20 || self.local > 1 << 19 {
            return error(line, format!("'{}' is too large", v.name));
        }
        self.variables.insert(v.name.clone(), at);
        Ok(())
    }

    pub(crate) fn fresh(&mut self) -> u32 {
        self.registers += 1;
        self.registers - 1
    }

    fn constant(&mut self, value: u64) -> u32 {
        if let Some(known) = self.constants.get(&value) {
            return *known;
        }
        let register = self.fresh();
        self.constants.insert(value, register);
        register
    }

    fn special_register(&mut self, name: &'static str) -> u32 {
        if let Some(known) = self.special.get(name) {
            return *known;
        }
        let register = self.fresh();
        self.special.insert(name, register);
        register
    }

    fn statement(&mut self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Registers { bits, name, count: None } => {
                let register = self.fresh();
                self.names.insert(name.clone(), (register, *bits));
            }
            Statement::Registers { bits, name, count: Some(n) } => {
                self.families.insert(name.clone(), (self.registers, *n, *bits));
                self.registers += n;
            }
            Statement::Variable(v) => {
                // Shared variables of a function may be used before their declaration by none.
                self.variable(v, 0)?;
            }
            Statement::Label(name) => {
                self.labels.insert(name.clone(), self.code.len());
            }
            Statement::Instruction { line, guard, parts, operands } => {
                let guard = match guard {
                    Some((name, negated)) => Some((self.register(name, *line)?.0, *negated)),
                    None => None,
                };
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let before = self.code.len();
                self.instruction(*line, &parts, operands)?;
                self.code[before..].iter_mut().for_each(|i| i.guard = guard);
            }
        }
        Ok(())
    }

    /// A declared register and its width.
    fn register(&self, name: &str, line: u32) -> Result<(u32, u32)> {
        if let Some(found) = self.names.get(name) {
            return Ok(*found);
        }
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u32>().ok();
        match (self.families.get(stem), number) {
            (Some((first, count, bits)), Some(n)) if n < *count => Ok((first + n, *bits)),
            _ => error(line, format!("'{name}' is not declared")),
        }
    }

    /// A register to write; `_` throws away.
    pub(crate) fn target(&mut self, operand: &Operand, line: u32) -> Result<(u32, u32)> {
        match operand {
            Operand::Name(name, false) if name == "_" => Ok((self.fresh(), 64)),
            Operand::Name(name, false) => self.register(name, line),
            _ => error(line, "a register must stand here"),
        }
    }

    /// A register to read: a declared one, a special one, a number or an address.
    pub(crate) fn source(&mut self, operand: &Operand, line: u32) -> Result<u32> {
        match operand {
            Operand::Number(n) => Ok(self.constant(*n)),
            Operand::Name(name, false) => {
                if let Some((space, at)) = self.variables.get(name) {
                    let at = *at;
                    if *space == Space::Shared && self.dynamic.contains(name) {
                        return Ok(self.special_register(DYNAMIC));
                    }
                    return Ok(self.constant(at));
                }
                if let Some(special) = SPECIAL.iter().find(|s| *s == name) {
                    return Ok(self.special_register(special));
                }
                Ok(self.register(name, line)?.0)
            }
            Operand::Sum(name, offset) => match self.variables.get(name) {
                Some((_, at)) => {
                    let at = at.wrapping_add_signed(*offset);
                    Ok(self.constant(at))
                }
                None => error(line, format!("'{name}' is no variable")),
            },
            _ => error(line, "a register or number must stand here"),
        }
    }

    pub(crate) fn push(&mut self, line: u32, kind: Kind) {
        self.code.push(Instruction { guard: None, line, kind });
    }

    pub(crate) fn alu(&mut self, line: u32, f: Alu, to: u32, from: &[u32]) {
        let mut registers = [to; 5];
        registers[1..=from.len()].copy_from_slice(from);
        self.push(line, Kind::Alu(f, registers));
    }

    fn instruction(&mut self, line: u32, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let unknown = || error(line, format!("the instruction '{}' is not supported", parts.join(".")));
        match (parts[0], operands) {
            ("ld" | "ldu", [to, from]) => self.load(line, parts, to, from),
            ("st", [to, from]) => self.store(line, parts, to, from),
            ("bra", [Operand::Name(label, false)]) => {
                self.open.push((self.code.len(), line, label.clone()));
                self.push(line, Kind::Branch(usize::MAX));
                Ok(())
            }
            ("ret" | "exit", []) => {
                self.push(line, Kind::Exit);
                Ok(())
            }
            ("trap", []) => {
                self.push(line, Kind::Trap);
                Ok(())
            }
            ("bar" | "barrier", [Operand::Number(0)]) if parts.contains(&"sync") => {
                self.push(line, Kind::Barrier);
                Ok(())
            }
            ("bar", [_members]) if parts == ["bar", "warp", "sync"] => {
                self.push(line, Kind::WarpBarrier);
                Ok(())
            }
            ("membar" | "fence", []) | ("nanosleep", [_]) | ("prefetch" | "prefetchu", [_]) => {
                self.push(line, Kind::Nothing);
                Ok(())
            }
            ("mov", [Operand::Vector(to), from]) => self.unpack(line, to, from),
            ("mov", [to, Operand::Vector(from)]) => self.pack(line, to, from),
            ("cvta", [to, from]) => self.cvta(line, parts, to, from),
            ("cvt", [to, rest @ ..]) => {
                let (to, width) = self.target(to, line)?;
                let Some(f) = convert::conversion(&parts[1..], width) else { return unknown() };
                let from = rest.iter().map(|o| self.source(o, line)).collect::<Result<Vec<_>>>()?;
                if from.len()
                    != if parts.last() == Some(&"f32") && parts.iter().any(|p| p.ends_with("x2")) {
                        2
                    } else {
                        1
                    }
                {
                    return unknown();
                }
                self.alu(line, f, to, &from);
                Ok(())
            }
            ("setp", [to, a, b, rest @ ..]) => self.setp(line, parts, to, (a, b), rest),
            ("set", [to, a, b]) => self.set(line, parts, to, (a, b)),
            ("atom" | "red" | "shfl" | "vote" | "redux" | "activemask", _) => {
                if warp_ops::decode(self, line, parts, operands)? { Ok(()) } else { unknown() }
            }
            (_, [to, from @ ..]) if (1..=4).contains(&from.len()) => {
                let Some(f) = alu::alu(parts).filter(|_| arity(parts[0]).contains(&from.len())) else {
                    return unknown();
                };
                let (to, _) = self.target(to, line)?;
                let from = from.iter().map(|o| self.source(o, line)).collect::<Result<Vec<_>>>()?;
                self.alu(line, f, to, &from);
                Ok(())
            }
            _ => unknown(),
        }
    }

    fn setp(
        &mut self,
        line: u32,
        parts: &[&str],
        to: &Operand,
        (a, b): (&Operand, &Operand),
        rest: &[Operand],
    ) -> Result<()> {
        let unknown = || error(line, format!("the instruction '{}' is not supported", parts.join(".")));
        let (Some(name), Some(ty)) = (parts.get(1), parts.last()) else { return unknown() };
        let Some(compare) = alu::comparison(name, ty, parts.contains(&"ftz")) else { return unknown() };
        let (a, b) = (self.source(a, line)?, self.source(b, line)?);
        let (first, second) = match to {
            Operand::Pair(p, q) => (self.target(p, line)?.0, Some(self.target(q, line)?.0)),
            p => (self.target(p, line)?.0, None),
        };
        let mode = parts[2..parts.len() - 1].iter().find(|m| **m != "ftz").copied();
        let (c, negate) = match (mode, rest) {
            (None, []) => (None, false),
            (Some(_), [Operand::Name(name, negate)]) => (Some(self.register(name, line)?.0), *negate),
            _ => return unknown(),
        };
        // The second predicate is that of the opposite comparison; operands are read before either is written.
        let place = self.fresh();
        for (to, opposite) in [(Some(place), false), (second, true)] {
            let Some(to) = to else { continue };
            let flip = move |x: u64| x & 1 ^ u64::from(negate);
            let test = move |a, b| u64::from(compare(a, b) != opposite);
            match (mode, c) {
                (None, _) => self.alu(line, alu::two(test), to, &[a, b]),
                (Some("and"), Some(c)) => {
                    self.alu(line, alu::three(move |a, b, c| test(a, b) & flip(c)), to, &[a, b, c])
                }
                (Some("or"), Some(c)) => {
                    self.alu(line, alu::three(move |a, b, c| test(a, b) | flip(c)), to, &[a, b, c])
                }
                (Some("xor"), Some(c)) => {
                    self.alu(line, alu::three(move |a, b, c| test(a, b) ^ flip(c)), to, &[a, b, c])
                }
                _ => return unknown(),
            }
        }
        self.alu(line, alu::one(|p| p), first, &[place]);
        Ok(())
    }

    /// `set.cmp.dtype.stype`: all ones or 1.0 where the comparison holds.
    fn set(&mut self, line: u32, parts: &[&str], to: &Operand, (a, b): (&Operand, &Operand)) -> Result<()> {
        let [_, name, dtype, stype] = parts else {
            return error(line, "this form of 'set' is not supported");
        };
        let held = match *dtype {
            "u32" | "s32" => u64::from(u32::MAX),
            "f32" => u64::from(1f32.to_bits()),
            _ => return error(line, format!("'set' to {dtype} is not supported")),
        };
        let Some(compare) = alu::comparison(name, stype, false) else {
            return error(line, format!("'set.{name}' of {stype} is not supported"));
        };
        let (a, b) = (self.source(a, line)?, self.source(b, line)?);
        let (to, _) = self.target(to, line)?;
        self.alu(line, alu::two(move |a, b| if compare(a, b) { held } else { 0 }), to, &[a, b]);
        Ok(())
    }

    /// `mov {a, b}, c`: pieces of a word.
    fn unpack(&mut self, line: u32, to: &[Operand], from: &Operand) -> Result<()> {
        let from = self.source(from, line)?;
        let (copy, mut shift) = (self.fresh(), 0);
        self.alu(line, alu::one(|a| a), copy, &[from]);
        let targets = to.iter().map(|t| self.target(t, line)).collect::<Result<Vec<_>>>()?;
        let piece = targets.iter().map(|t| t.1).min().unwrap_or(64).min(32);
        for (register, _) in targets {
            let (at, mask) = (shift, (1u64 << piece) - 1);
            self.alu(line, alu::one(move |a| a >> at & mask), register, &[copy]);
            shift += piece;
        }
        Ok(())
    }

    /// `mov c, {a, b}`: a word of pieces.
    fn pack(&mut self, line: u32, to: &Operand, from: &[Operand]) -> Result<()> {
        let (to, width) = self.target(to, line)?;
        let n = from.len() as u32;
        if !matches!(n, 2 | 4) || width % n != 0 {
            return error(line, "a word of this many pieces is not supported");
        }
        let (piece, joined) = (width / n, self.constant(0));
        let mut joined = joined;
        for (i, operand) in from.iter().enumerate() {
            let (value, next) = (self.source(operand, line)?, self.fresh());
            let (at, mask) = (piece * i as u32, (1u64 << piece) - 1);
            self.alu(line, alu::two(move |a, b| a | (b & mask) << at), next, &[joined, value]);
            joined = next;
        }
        self.alu(line, alu::one(|a| a), to, &[joined]);
        Ok(())
    }

    fn finish(mut self, entry: &Entry) -> Result<Kernel> {
        for (at, line, label) in &self.open {
            let Some(target) = self.labels.get(label) else {
                return error(*line, format!("the label '{label}' is not there"));
            };
            self.code[*at].kind = Kind::Branch(*target);
        }
        self.code.push(Instruction { guard: None, line: entry.line, kind: Kind::Exit });
        let has_barrier = self.code.iter().any(|i| matches!(i.kind, Kind::Barrier));
        Ok(Kernel {
            name: entry.name.clone(),
            params: self.params,
            code: self.code,
            registers: self.registers as usize,
            constants: self.constants.into_iter().map(|(value, register)| (register, value)).collect(),
            special: self.special.into_iter().map(|(name, register)| (register, name)).collect(),
            shared: self.shared,
            local: self.local,
            module: Arc::from(self.module),
            has_barrier,
        })
    }
}

/// How many operands an instruction that only computes may have.
fn arity(name: &str) -> std::ops::RangeInclusive<usize> {
    match name {
        "mov" | "neg" | "abs" | "not" | "cnot" | "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos"
        | "tanh" | "popc" | "clz" | "brev" | "bfind" | "testp" => 1..=1,
        "mad" | "fma" | "selp" | "bfe" | "sad" | "prmt" | "shf" => 3..=3,
        "bfi" | "lop3" => 4..=4,
        _ => 2..=2,
    }
}
