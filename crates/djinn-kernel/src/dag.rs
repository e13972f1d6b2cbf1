//! Scalar expressions: a hash-consed graph of typed operations on one point of an index space.
//!
//! Equal expressions are one node, so that whatever is asked for twice at the same point is computed once. Nodes are
//! numbered in the order in which they are made: operands always come before their users.

use crate::affine::{Affine, Atom, AtomId, AtomKind};
use djinn_ir::{DType, Dim};
use std::collections::HashMap;

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u32);

/// Type of a node. Narrow floats are computed as `F32` and rounded by [`Un::Round`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ty {
    I1,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
}

impl Ty {
    /// The type in which elements of `dtype` are computed.
    pub(crate) fn of(dtype: DType) -> Ty {
        match dtype {
            DType::Bool => Ty::I1,
            DType::I8 | DType::U8 => Ty::I8,
            DType::I16 | DType::U16 => Ty::I16,
            DType::I32 | DType::U32 => Ty::I32,
            DType::I64 | DType::U64 => Ty::I64,
            DType::F16 | DType::BF16 | DType::F32 => Ty::F32,
            DType::F64 => Ty::F64,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Ty::F32 | Ty::F64)
    }

    /// MLIR's spelling.
    pub(crate) fn mlir(self) -> &'static str {
        match self {
            Ty::I1 => "i1",
            Ty::I8 => "i8",
            Ty::I16 => "i16",
            Ty::I32 => "i32",
            Ty::I64 => "i64",
            Ty::F32 => "f32",
            Ty::F64 => "f64",
        }
    }

    /// Width in bits.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Ty::I1 => 1,
            Ty::I8 => 8,
            Ty::I16 => 16,
            Ty::I32 | Ty::F32 => 32,
            Ty::I64 | Ty::F64 => 64,
        }
    }
}

/// Operations of one operand that keep the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Un {
    NegF,
    AbsF,
    Sqrt,
    Floor,
    Ceil,
    RoundEven,
    /// An `f32` rounded to this narrower type and back.
    Round(DType),
}

/// Operations of two operands of one type that keep the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bin {
    Add,
    Sub,
    Mul,
    DivS,
    DivU,
    RemS,
    RemU,
    And,
    Or,
    Xor,
    Shl,
    ShrS,
    ShrU,
    MinS,
    MaxS,
    MinU,
    MaxU,
    AddF,
    SubF,
    MulF,
    DivF,
    RemF,
    /// NaN if either is.
    MaxF,
    /// NaN if either is.
    MinF,
    /// Like `AddF` and `MulF`, but may be fused with one another: inside expansions of functions.
    AddFused,
    MulFused,
    CopySign,
}

/// Comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    SLt,
    SLe,
    SGt,
    SGe,
    ULt,
    ULe,
    UGt,
    UGe,
    FEq,
    FNe,
    FLt,
    FLe,
    FGt,
    FGe,
    /// Either is NaN.
    FNan,
}

/// Conversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Conv {
    SignExtend,
    ZeroExtend,
    Truncate,
    SignedToFloat,
    UnsignedToFloat,
    FloatToSigned,
    FloatToUnsigned,
    Widen,
    Narrow,
    Bits,
}

/// Memory that expressions read and stages write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BufferId(pub(crate) u32);

/// A node's operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Expr {
    /// An integer of this type (0 or 1 for `I1`).
    Int(Ty, i64),
    /// A float of this type, by the bits of the nearest `f64`.
    Float(Ty, u64),
    /// A size that is not constant.
    Size(Dim),
    /// A loop's variable.
    Var(AtomId),
    /// The result of a reduction of the same nest, kept in a register: the number of the program's node.
    Register(u32, Ty),
    /// An element of a buffer; zero, and no access, where the guard is false.
    Load {
        buffer: BufferId,
        index: Id,
        guard: Option<Id>,
        dtype: DType,
    },
    Un(Un, Id),
    Bin(Bin, Id, Id),
    Cmp(Cmp, Id, Id),
    Select(Id, Id, Id),
    Conv(Conv, Ty, Id),
}

impl Expr {
    /// Calls `f` with every operand.
    pub(crate) fn operands(&self, mut f: impl FnMut(Id)) {
        match self {
            Expr::Int(..) | Expr::Float(..) | Expr::Size(_) | Expr::Var(_) | Expr::Register(..) => {}
            Expr::Load { index, guard, .. } => {
                f(*index);
                guard.iter().for_each(|g| f(*g));
            }
            Expr::Un(_, a) | Expr::Conv(_, _, a) => f(*a),
            Expr::Bin(_, a, b) | Expr::Cmp(_, a, b) => {
                f(*a);
                f(*b);
            }
            Expr::Select(a, b, c) => {
                f(*a);
                f(*b);
                f(*c);
            }
        }
    }
}

/// The graph.
#[derive(Debug, Default)]
pub(crate) struct Dag {
    nodes: Vec<(Expr, Ty)>,
    known: HashMap<Expr, Id>,
    pub(crate) atoms: Vec<Atom>,
    known_atoms: HashMap<AtomKind, AtomId>,
    /// Loops that should be split by these factors, so that their variables need not be divided.
    pub(crate) splits: Vec<(AtomId, Dim)>,
    /// Linear forms that expressions are made from.
    pub(crate) forms: Vec<Affine>,
}

impl Dag {
    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn expr(&self, id: Id) -> &Expr {
        &self.nodes[id.0 as usize].0
    }

    pub(crate) fn ty(&self, id: Id) -> Ty {
        self.nodes[id.0 as usize].1
    }

    fn push(&mut self, expr: Expr, ty: Ty) -> Id {
        if let Some(id) = self.known.get(&expr) {
            return *id;
        }
        let id = Id(self.nodes.len() as u32);
        self.nodes.push((expr.clone(), ty));
        self.known.insert(expr, id);
        id
    }

    /// An atom of linear forms; equal ones are one.
    pub(crate) fn atom(&mut self, kind: AtomKind, extent: Option<Dim>) -> AtomId {
        if let Some(id) = self.known_atoms.get(&kind) {
            return *id;
        }
        let id = AtomId(self.atoms.len() as u32);
        self.atoms.push(Atom { kind: kind.clone(), extent });
        self.known_atoms.insert(kind, id);
        id
    }

    /// A new loop variable of this extent.
    pub(crate) fn variable(&mut self, extent: &Dim) -> AtomId {
        let kind = AtomKind::Var(self.atoms.len() as u32);
        self.atom(kind, Some(extent.clone()))
    }

    pub(crate) fn int(&mut self, ty: Ty, value: i64) -> Id {
        self.push(Expr::Int(ty, value), ty)
    }

    pub(crate) fn bool(&mut self, value: bool) -> Id {
        self.int(Ty::I1, i64::from(value))
    }

    pub(crate) fn float(&mut self, ty: Ty, value: f64) -> Id {
        let value = if ty == Ty::F32 { f64::from(value as f32) } else { value };
        self.push(Expr::Float(ty, value.to_bits()), ty)
    }

    /// A number of this type.
    pub(crate) fn number(&mut self, ty: Ty, value: i64) -> Id {
        if ty.is_float() { self.float(ty, value as f64) } else { self.int(ty, value) }
    }

    /// A size as `i64`.
    pub(crate) fn size(&mut self, dim: &Dim) -> Id {
        match dim.as_const() {
            Some(c) => self.int(Ty::I64, c),
            None => self.push(Expr::Size(dim.clone()), Ty::I64),
        }
    }

    pub(crate) fn register(&mut self, node: u32, ty: Ty) -> Id {
        self.push(Expr::Register(node, ty), ty)
    }

    pub(crate) fn var(&mut self, atom: AtomId) -> Id {
        self.push(Expr::Var(atom), Ty::I64)
    }

    pub(crate) fn load(&mut self, buffer: BufferId, dtype: DType, index: Id, guard: Option<Id>) -> Id {
        let guard = guard.filter(|g| self.as_int(*g) != Some(1));
        self.push(Expr::Load { buffer, index, guard, dtype }, Ty::of(dtype))
    }

    /// The value of an integer literal.
    pub(crate) fn as_int(&self, id: Id) -> Option<i64> {
        match self.expr(id) {
            Expr::Int(_, v) => Some(*v),
            _ => None,
        }
    }

    /// The value of a float literal.
    pub(crate) fn as_float(&self, id: Id) -> Option<f64> {
        match self.expr(id) {
            Expr::Float(_, bits) => Some(f64::from_bits(*bits)),
            _ => None,
        }
    }

    pub(crate) fn un(&mut self, op: Un, a: Id) -> Id {
        let ty = self.ty(a);
        self.push(Expr::Un(op, a), ty)
    }

    pub(crate) fn bin(&mut self, op: Bin, a: Id, b: Id) -> Id {
        let ty = self.ty(a);
        if let Some(known) = self.fold(op, a, b, ty) {
            return known;
        }
        self.push(Expr::Bin(op, a, b), ty)
    }

    /// Integer arithmetic that needs no instruction.
    fn fold(&mut self, op: Bin, a: Id, b: Id, ty: Ty) -> Option<Id> {
        let (x, y) = (self.as_int(a), self.as_int(b));
        if let (Some(x), Some(y), Ty::I64 | Ty::I1) = (x, y, ty) {
            let value = match op {
                Bin::Add if ty == Ty::I64 => x.checked_add(y),
                Bin::Sub if ty == Ty::I64 => x.checked_sub(y),
                Bin::Mul if ty == Ty::I64 => x.checked_mul(y),
                Bin::MinS if ty == Ty::I64 => Some(x.min(y)),
                Bin::MaxS if ty == Ty::I64 => Some(x.max(y)),
                Bin::And => Some(x & y),
                Bin::Or => Some(x | y),
                _ => None,
            };
            return value.map(|v| self.int(ty, v));
        }
        match (op, x, y) {
            (Bin::Add | Bin::Sub, _, Some(0)) => Some(a),
            (Bin::Add, Some(0), _) => Some(b),
            (Bin::Mul, _, Some(1)) | (Bin::DivS, _, Some(1)) => Some(a),
            (Bin::Mul, Some(1), _) => Some(b),
            (Bin::And, Some(1), _) | (Bin::Or, Some(0), _) if ty == Ty::I1 => Some(b),
            (Bin::And, _, Some(1)) | (Bin::Or, _, Some(0)) if ty == Ty::I1 => Some(a),
            (Bin::And, Some(0), _) | (Bin::Or, Some(1), _) if ty == Ty::I1 => Some(a),
            (Bin::And, _, Some(0)) | (Bin::Or, _, Some(1)) if ty == Ty::I1 => Some(b),
            _ => None,
        }
    }

    pub(crate) fn cmp(&mut self, op: Cmp, a: Id, b: Id) -> Id {
        if let (Some(x), Some(y)) = (self.as_int(a), self.as_int(b)) {
            let known = match op {
                Cmp::Eq => Some(x == y),
                Cmp::Ne => Some(x != y),
                Cmp::SLt => Some(x < y),
                Cmp::SLe => Some(x <= y),
                Cmp::SGt => Some(x > y),
                Cmp::SGe => Some(x >= y),
                _ => None,
            };
            if let (Some(known), Ty::I64) = (known, self.ty(a)) {
                return self.bool(known);
            }
        }
        self.push(Expr::Cmp(op, a, b), Ty::I1)
    }

    pub(crate) fn select(&mut self, cond: Id, a: Id, b: Id) -> Id {
        match self.as_int(cond) {
            Some(0) => return b,
            Some(_) => return a,
            None if a == b => return a,
            None => {}
        }
        let ty = self.ty(a);
        self.push(Expr::Select(cond, a, b), ty)
    }

    pub(crate) fn conv(&mut self, op: Conv, to: Ty, a: Id) -> Id {
        self.push(Expr::Conv(op, to, a), to)
    }

    pub(crate) fn not(&mut self, a: Id) -> Id {
        let one = self.bool(true);
        match self.as_int(a) {
            Some(v) => self.bool(v == 0),
            None => self.bin(Bin::Xor, a, one),
        }
    }

    /// Both guards; `None` is true.
    pub(crate) fn both(&mut self, a: Option<Id>, b: Option<Id>) -> Option<Id> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.bin(Bin::And, a, b)),
            (a, b) => a.or(b),
        }
    }
}
