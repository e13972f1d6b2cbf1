//! Matrix products and losses.

use super::{Entry, row};
use crate::node::{Node, Outputs, one};
use djinn_diag::Result;
use djinn_ir::{DType, OpKind as K, TensorData};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("MatMul", 1, matmul),
    row("Gemm", 7, gemm),
    row("NegativeLogLikelihoodLoss", 12, nll_loss),
    row("SoftmaxCrossEntropyLoss", 12, cross_entropy_loss),
];

fn matmul(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (a, b) = (n.x(0)?, n.x(1)?);
    one(n.plain(K::MatMul, &[a, b])?)
}

/// `alpha · A' · B' + beta · C`.
fn gemm(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (mut a, mut b) = (n.x(0)?, n.x(1)?);
    if n.rank(a) != 2 || n.rank(b) != 2 {
        return Err(n.invalid("the factors must have rank 2"));
    }
    if n.flag("transA", false)? {
        a = n.swap_last(a)?;
    }
    if n.flag("transB", false)? {
        b = n.swap_last(b)?;
    }
    let mut y = n.plain(K::MatMul, &[a, b])?;
    let (alpha, beta) = (n.float("alpha", 1.0)?, n.float("beta", 1.0)?);
    if alpha != 1.0 {
        y = n.with_scalar(K::Mul, y, alpha)?;
    }
    if let Some(mut c) = n.opt(2).filter(|_| beta != 0.0) {
        if beta != 1.0 {
            c = n.with_scalar(K::Mul, c, beta)?;
        }
        y = n.plain(K::Add, &[y, c])?;
    }
    one(y)
}

fn nll_loss(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, target, weight) = (n.x(0)?, n.x(1)?, n.opt(2));
    one(loss(n, x, target, weight)?)
}

fn cross_entropy_loss(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, target, weight) = (n.x(0)?, n.x(1)?, n.opt(2));
    if n.rank(x) < 2 {
        return Err(n.invalid("the scores must have rank 2 or more"));
    }
    let log_prob = n.along(K::LogSoftmax, &[x], 1)?;
    let y = loss(n, log_prob, target, weight)?;
    Ok(vec![Some(y), Some(log_prob)])
}

/// Minus the log-probability of every target class, weighted and reduced.
fn loss(n: &mut Node<'_, '_>, x: SrgValue, target: SrgValue, weight: Option<SrgValue>) -> Result<SrgValue> {
    if n.rank(x) < 2 || n.rank(target) + 1 != n.rank(x) {
        return Err(n.invalid("the scores must have one axis more than the targets"));
    }
    let dtype = n.dtype(x);
    let target = n.cast(target, DType::I64)?;
    let ignored = match n.attrs.int("ignore_index")? {
        Some(i) => {
            let data = TensorData::from_i64(&[], &[i]).ok_or_else(|| n.invalid("no index"))?;
            let index = n.imp.b.constant(data)?;
            Some(n.compare("eq", target, index)?)
        }
        None => None,
    };
    let zero = n.scalar(dtype, 0.0)?;
    let class = match ignored {
        Some(mask) => {
            let first = n.scalar(DType::I64, 0.0)?;
            n.plain(K::Select, &[mask, first, target])?
        }
        None => target,
    };
    let shape = n.shape(target);
    let column = n.unsqueeze(class, 1)?;
    let picked = n.along(K::GatherElements, &[x, column], 1)?;
    let picked = n.reshape(picked, shape.clone())?;
    let mut y = n.plain(K::Neg, &[picked])?;
    let mut weights = match weight {
        Some(w) => Some(n.along(K::Gather, &[w, class], 0)?),
        None => None,
    };
    if let Some(mask) = ignored {
        let each = match weights {
            Some(w) => w,
            None => n.scalar(dtype, 1.0)?,
        };
        let each = n.plain(K::Select, &[mask, zero, each])?;
        weights = Some(n.broadcast(each, shape)?);
    }
    if let Some(w) = weights {
        y = n.plain(K::Mul, &[y, w])?;
    }
    let axes: Vec<i64> = (0..n.rank(y) as i64).collect();
    match (n.text("reduction", "mean")?.as_str(), weights) {
        ("none", _) => Ok(y),
        ("sum", _) => n.reduce(K::ReduceSum, y, &axes, false),
        ("mean", None) => n.reduce(K::ReduceMean, y, &axes, false),
        ("mean", Some(w)) => {
            let (sum, total) =
                (n.reduce(K::ReduceSum, y, &axes, false)?, n.reduce(K::ReduceSum, w, &axes, false)?);
            n.plain(K::Div, &[sum, total])
        }
        (other, _) => Err(n.invalid(format!("'{other}' is no reduction"))),
    }
}
