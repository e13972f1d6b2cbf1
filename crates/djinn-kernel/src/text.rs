//! MLIR text: values are numbered in the order in which they are made.

use crate::dag::{Bin, BufferId, Cmp, Conv, Dag, Expr, Id, Ty, Un};
use crate::fold;
use crate::program::Fold;
use djinn_ir::{DType, Dim};
use std::collections::{BTreeMap, BTreeSet};

/// Writes operations, with the names of what is already computed.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) text: String,
    pub(crate) indent: usize,
    next: u32,
    /// Names of expressions in scope.
    pub(crate) names: BTreeMap<Id, String>,
    /// Names of the registers of tensors.
    pub(crate) registers: BTreeMap<u32, String>,
    /// Names of pointers to buffers.
    pub(crate) pointers: BTreeMap<BufferId, String>,
    /// Names of sizes.
    pub(crate) sizes: BTreeMap<Dim, String>,
}

/// The type of an element in memory.
pub(crate) fn memory_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool | DType::I8 | DType::U8 => "i8",
        DType::I16 | DType::U16 | DType::BF16 => "i16",
        DType::I32 | DType::U32 => "i32",
        DType::I64 | DType::U64 => "i64",
        DType::F16 => "f16",
        DType::F32 => "f32",
        DType::F64 => "f64",
    }
}

/// A float literal that every MLIR reader takes: the bits in hexadecimal.
fn float_literal(ty: Ty, value: f64) -> String {
    match ty {
        Ty::F32 => format!("{:#010x}", (value as f32).to_bits()),
        _ => format!("{:#018x}", value.to_bits()),
    }
}

impl Writer {
    /// A fresh name.
    pub(crate) fn fresh(&mut self) -> String {
        self.next += 1;
        format!("%{}", self.next - 1)
    }

    pub(crate) fn line(&mut self, text: &str) {
        (0..self.indent).for_each(|_| self.text.push_str("  "));
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// An operation with one result; its name.
    pub(crate) fn op(&mut self, text: &str) -> String {
        let name = self.fresh();
        self.line(&format!("{name} = {text}"));
        name
    }

    pub(crate) fn open(&mut self, text: &str) {
        self.line(text);
        self.indent += 1;
    }

    pub(crate) fn close(&mut self, text: &str) {
        self.indent -= 1;
        self.line(text);
    }

    pub(crate) fn int(&mut self, ty: &str, value: i64) -> String {
        self.op(&format!("arith.constant {value} : {ty}"))
    }

    /// The address of an element.
    pub(crate) fn address(&mut self, pointer: &str, index: &str, ty: &str) -> String {
        self.op(&format!(
            "llvm.getelementptr inbounds {pointer}[{index}] : (!llvm.ptr, i64) -> !llvm.ptr, {ty}"
        ))
    }

    /// Literals and sizes among these expressions, which are needed in every scope.
    pub(crate) fn constants(&mut self, dag: &Dag, ids: &BTreeSet<Id>) {
        for id in ids {
            let name = match dag.expr(*id) {
                Expr::Int(Ty::I1, v) => self.op(&format!("arith.constant {}", *v != 0)),
                Expr::Int(ty, v) => {
                    let bits = ty.bits();
                    let v = if bits < 64 { *v << (64 - bits) >> (64 - bits) } else { *v };
                    self.int(ty.mlir(), v)
                }
                Expr::Float(ty, bits) => {
                    let literal = float_literal(*ty, f64::from_bits(*bits));
                    self.op(&format!("arith.constant {literal} : {}", ty.mlir()))
                }
                Expr::Size(dim) => self.sizes[dim].clone(),
                _ => continue,
            };
            self.names.insert(*id, name);
        }
    }

    /// Computes an expression whose operands have names.
    pub(crate) fn expression(&mut self, dag: &Dag, id: Id) {
        if self.names.contains_key(&id) {
            return;
        }
        let ty = dag.ty(id).mlir();
        let name = match dag.expr(id).clone() {
            Expr::Register(node, _) => self.registers[&node].clone(),
            Expr::Load { buffer, index, guard, dtype } => self.load(buffer, index, guard, dtype),
            Expr::Un(op, a) => self.unary(op, a, ty),
            Expr::Bin(op, a, b) => {
                let text =
                    format!("{} {}, {}{} : {ty}", bin_name(op), self.names[&a], self.names[&b], flags(op));
                self.op(&text)
            }
            Expr::Cmp(op, a, b) => {
                let of = dag.ty(a);
                let (class, word) = cmp_name(op);
                let text =
                    format!("arith.{class} {word}, {}, {} : {}", self.names[&a], self.names[&b], of.mlir());
                self.op(&text)
            }
            Expr::Select(c, a, b) => {
                let text =
                    format!("arith.select {}, {}, {} : {ty}", self.names[&c], self.names[&a], self.names[&b]);
                self.op(&text)
            }
            Expr::Conv(op, to, a) => {
                let text =
                    format!("{} {} : {} to {}", conv_name(op), self.names[&a], dag.ty(a).mlir(), to.mlir());
                self.op(&text)
            }
            Expr::Int(..) | Expr::Float(..) | Expr::Size(_) | Expr::Var(_) => return,
        };
        self.names.insert(id, name);
    }

    fn unary(&mut self, op: Un, a: Id, ty: &str) -> String {
        let a = self.names[&a].clone();
        match op {
            Un::NegF => self.op(&format!("arith.negf {a} : {ty}")),
            Un::AbsF => self.op(&format!("math.absf {a} : {ty}")),
            Un::Sqrt => self.op(&format!("math.sqrt {a} : {ty}")),
            Un::Floor => self.op(&format!("math.floor {a} : {ty}")),
            Un::Ceil => self.op(&format!("math.ceil {a} : {ty}")),
            Un::RoundEven => self.op(&format!("math.roundeven {a} : {ty}")),
            Un::Round(DType::F16) => {
                let narrow = self.op(&format!("arith.truncf {a} : f32 to f16"));
                self.op(&format!("arith.extf {narrow} : f16 to f32"))
            }
            Un::Round(_) => {
                let bits = self.bf16_bits(&a);
                self.op(&format!("arith.bitcast {bits} : i32 to f32"))
            }
        }
    }

    /// The bits of an `f32` rounded to nearest, halves to even, with 16 bits less of mantissa.
    fn bf16_bits(&mut self, value: &str) -> String {
        let bits = self.op(&format!("arith.bitcast {value} : f32 to i32"));
        let (width, one, half) = (self.int("i32", 16), self.int("i32", 1), self.int("i32", 0x7fff));
        let (mask, quiet) = (self.int("i32", -65536), self.int("i32", 0x7fc0_0000));
        let odd = self.op(&format!("arith.shrui {bits}, {width} : i32"));
        let odd = self.op(&format!("arith.andi {odd}, {one} : i32"));
        let sum = self.op(&format!("arith.addi {bits}, {half} : i32"));
        let sum = self.op(&format!("arith.addi {sum}, {odd} : i32"));
        let kept = self.op(&format!("arith.andi {sum}, {mask} : i32"));
        let nan = self.op(&format!("arith.cmpf uno, {value}, {value} : f32"));
        self.op(&format!("arith.select {nan}, {quiet}, {kept} : i32"))
    }

    fn load(&mut self, buffer: BufferId, index: Id, guard: Option<Id>, dtype: DType) -> String {
        let ty = memory_type(dtype);
        let (pointer, index) = (self.pointers[&buffer].clone(), self.names[&index].clone());
        let raw = match guard {
            None => {
                let address = self.address(&pointer, &index, ty);
                self.op(&format!("llvm.load {address} : !llvm.ptr -> {ty}"))
            }
            Some(guard) => {
                let (name, guard) = (self.fresh(), self.names[&guard].clone());
                self.open(&format!("{name} = scf.if {guard} -> ({ty}) {{"));
                let address = self.address(&pointer, &index, ty);
                let value = self.op(&format!("llvm.load {address} : !llvm.ptr -> {ty}"));
                self.line(&format!("scf.yield {value} : {ty}"));
                self.close("} else {");
                self.indent += 1;
                let zero = if matches!(dtype, DType::F16 | DType::F32 | DType::F64) { "0.0" } else { "0" };
                let zero = self.op(&format!("arith.constant {zero} : {ty}"));
                self.line(&format!("scf.yield {zero} : {ty}"));
                self.close("}");
                name
            }
        };
        self.loaded(dtype, &raw)
    }

    /// A value as it is computed with, from what stands in memory.
    fn loaded(&mut self, dtype: DType, raw: &str) -> String {
        match dtype {
            DType::Bool => {
                let zero = self.int("i8", 0);
                self.op(&format!("arith.cmpi ne, {raw}, {zero} : i8"))
            }
            DType::F16 => self.op(&format!("arith.extf {raw} : f16 to f32")),
            DType::BF16 => {
                let wide = self.op(&format!("arith.extui {raw} : i16 to i32"));
                let width = self.int("i32", 16);
                let bits = self.op(&format!("arith.shli {wide}, {width} : i32"));
                self.op(&format!("arith.bitcast {bits} : i32 to f32"))
            }
            _ => raw.to_owned(),
        }
    }

    /// Whether a named value beats another, by an expression over two registers.
    pub(crate) fn beats(&mut self, fold: Fold, unsigned: bool, ty: Ty, value: &str, best: &str) -> String {
        let mut dag = Dag::default();
        let (a, b) = (dag.register(0, ty), dag.register(1, ty));
        let better = fold::beats(&mut dag, fold, unsigned, a, b);
        let names = std::mem::take(&mut self.names);
        let registers = std::mem::take(&mut self.registers);
        self.registers.insert(0, value.to_owned());
        self.registers.insert(1, best.to_owned());
        let all: BTreeSet<Id> = (0..dag.len() as u32).map(Id).collect();
        self.constants(&dag, &all);
        all.iter().for_each(|id| self.expression(&dag, *id));
        let name = self.names[&better].clone();
        self.names = names;
        self.registers = registers;
        name
    }

    /// Writes a value to an element of a buffer.
    pub(crate) fn store(&mut self, buffer: BufferId, index: &str, dtype: DType, value: &str) {
        let ty = memory_type(dtype);
        let raw = match dtype {
            DType::Bool => self.op(&format!("arith.extui {value} : i1 to i8")),
            DType::F16 => self.op(&format!("arith.truncf {value} : f32 to f16")),
            DType::BF16 => {
                let bits = self.bf16_bits(value);
                let width = self.int("i32", 16);
                let high = self.op(&format!("arith.shrui {bits}, {width} : i32"));
                self.op(&format!("arith.trunci {high} : i32 to i16"))
            }
            _ => value.to_owned(),
        };
        let address = self.address(&self.pointers[&buffer].clone(), index, ty);
        self.line(&format!("llvm.store {raw}, {address} : {ty}, !llvm.ptr"));
    }
}

/// Flags that let sums of expansions be fused.
fn flags(op: Bin) -> &'static str {
    match op {
        Bin::AddFused | Bin::MulFused => " fastmath<contract>",
        _ => "",
    }
}

pub(crate) fn bin_name(op: Bin) -> &'static str {
    match op {
        Bin::Add => "arith.addi",
        Bin::Sub => "arith.subi",
        Bin::Mul => "arith.muli",
        Bin::DivS => "arith.divsi",
        Bin::DivU => "arith.divui",
        Bin::RemS => "arith.remsi",
        Bin::RemU => "arith.remui",
        Bin::And => "arith.andi",
        Bin::Or => "arith.ori",
        Bin::Xor => "arith.xori",
        Bin::Shl => "arith.shli",
        Bin::ShrS => "arith.shrsi",
        Bin::ShrU => "arith.shrui",
        Bin::MinS => "arith.minsi",
        Bin::MaxS => "arith.maxsi",
        Bin::MinU => "arith.minui",
        Bin::MaxU => "arith.maxui",
        Bin::AddF | Bin::AddFused => "arith.addf",
        Bin::SubF => "arith.subf",
        Bin::MulF | Bin::MulFused => "arith.mulf",
        Bin::DivF => "arith.divf",
        Bin::RemF => "arith.remf",
        Bin::MaxF => "arith.maximumf",
        Bin::MinF => "arith.minimumf",
        Bin::CopySign => "math.copysign",
    }
}

fn cmp_name(op: Cmp) -> (&'static str, &'static str) {
    match op {
        Cmp::Eq => ("cmpi", "eq"),
        Cmp::Ne => ("cmpi", "ne"),
        Cmp::SLt => ("cmpi", "slt"),
        Cmp::SLe => ("cmpi", "sle"),
        Cmp::SGt => ("cmpi", "sgt"),
        Cmp::SGe => ("cmpi", "sge"),
        Cmp::ULt => ("cmpi", "ult"),
        Cmp::ULe => ("cmpi", "ule"),
        Cmp::UGt => ("cmpi", "ugt"),
        Cmp::UGe => ("cmpi", "uge"),
        Cmp::FEq => ("cmpf", "oeq"),
        Cmp::FNe => ("cmpf", "une"),
        Cmp::FLt => ("cmpf", "olt"),
        Cmp::FLe => ("cmpf", "ole"),
        Cmp::FGt => ("cmpf", "ogt"),
        Cmp::FGe => ("cmpf", "oge"),
        Cmp::FNan => ("cmpf", "uno"),
    }
}

fn conv_name(op: Conv) -> &'static str {
    match op {
        Conv::SignExtend => "arith.extsi",
        Conv::ZeroExtend => "arith.extui",
        Conv::Truncate => "arith.trunci",
        Conv::SignedToFloat => "arith.sitofp",
        Conv::UnsignedToFloat => "arith.uitofp",
        Conv::FloatToSigned => "arith.fptosi",
        Conv::FloatToUnsigned => "arith.fptoui",
        Conv::Widen => "arith.extf",
        Conv::Narrow => "arith.truncf",
        Conv::Bits => "arith.bitcast",
    }
}
