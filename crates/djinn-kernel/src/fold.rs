//! How reductions and scans combine values.

use crate::dag::{Bin, Cmp, Dag, Id, Ty};
use crate::program::Fold;
use djinn_ir::DType;

/// What a fold over nothing gives.
pub(crate) fn first(dag: &mut Dag, fold: Fold, dtype: DType) -> Id {
    let ty = Ty::of(dtype);
    if ty.is_float() {
        return match fold {
            Fold::Sum => dag.float(ty, 0.0),
            Fold::Product => dag.float(ty, 1.0),
            Fold::Max | Fold::ArgMax { .. } => dag.float(ty, f64::NEG_INFINITY),
            Fold::Min | Fold::ArgMin { .. } => dag.float(ty, f64::INFINITY),
        };
    }
    let bits = ty.bits();
    let (min, max) = match (dtype.is_signed(), bits) {
        (_, 1) => (0, 1),
        (true, _) => (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)),
        (false, _) => (0, -1),
    };
    let value = match fold {
        Fold::Sum => 0,
        Fold::Product => 1,
        Fold::Max | Fold::ArgMax { .. } => min,
        Fold::Min | Fold::ArgMin { .. } => max,
    };
    dag.int(ty, value)
}

/// The operation that folds two values.
pub(crate) fn operation(fold: Fold, unsigned: bool, ty: Ty) -> Bin {
    match (fold, ty.is_float(), unsigned) {
        (Fold::Sum, true, _) => Bin::AddF,
        (Fold::Product, true, _) => Bin::MulF,
        (Fold::Max | Fold::ArgMax { .. }, true, _) => Bin::MaxF,
        (Fold::Min | Fold::ArgMin { .. }, true, _) => Bin::MinF,
        (Fold::Sum | Fold::Max | Fold::ArgMax { .. }, ..) if ty == Ty::I1 => Bin::Or,
        (Fold::Product | Fold::Min | Fold::ArgMin { .. }, ..) if ty == Ty::I1 => Bin::And,
        (Fold::Sum, ..) => Bin::Add,
        (Fold::Product, ..) => Bin::Mul,
        (Fold::Max | Fold::ArgMax { .. }, _, true) => Bin::MaxU,
        (Fold::Max | Fold::ArgMax { .. }, ..) => Bin::MaxS,
        (Fold::Min | Fold::ArgMin { .. }, _, true) => Bin::MinU,
        (Fold::Min | Fold::ArgMin { .. }, ..) => Bin::MinS,
    }
}

/// Two values folded.
pub(crate) fn combine(dag: &mut Dag, fold: Fold, unsigned: bool, a: Id, b: Id) -> Id {
    let ty = dag.ty(a);
    dag.bin(operation(fold, unsigned, ty), a, b)
}

/// Whether a value beats the best so far; NaN beats everything but NaN.
pub(crate) fn beats(dag: &mut Dag, fold: Fold, unsigned: bool, value: Id, best: Id) -> Id {
    let (largest, last) = match fold {
        Fold::ArgMin { last } => (false, last),
        Fold::ArgMax { last } => (true, last),
        _ => (true, false),
    };
    if !dag.ty(value).is_float() {
        let op = match (largest, last, unsigned) {
            (true, false, false) => Cmp::SGt,
            (true, true, false) => Cmp::SGe,
            (false, false, false) => Cmp::SLt,
            (false, true, false) => Cmp::SLe,
            (true, false, true) => Cmp::UGt,
            (true, true, true) => Cmp::UGe,
            (false, false, true) => Cmp::ULt,
            (false, true, true) => Cmp::ULe,
        };
        return dag.cmp(op, value, best);
    }
    let op = match (largest, last) {
        (true, false) => Cmp::FGt,
        (true, true) => Cmp::FGe,
        (false, false) => Cmp::FLt,
        (false, true) => Cmp::FLe,
    };
    let better = dag.cmp(op, value, best);
    let (nan, best_nan) = (dag.cmp(Cmp::FNan, value, value), dag.cmp(Cmp::FNan, best, best));
    let not_best = dag.not(best_nan);
    let first_nan = if last { nan } else { dag.bin(Bin::And, nan, not_best) };
    dag.bin(Bin::Or, better, first_nan)
}
