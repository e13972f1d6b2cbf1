//! Control flow: If, Loop and Scan.

use super::{Entry, row};
use crate::model::{Importer, LoopParts};
use crate::node::{Node, Outputs, proves_ge};
use djinn_diag::Result;
use djinn_ir::{Attrs, DType, Dim, OpKind as K, TensorType, attrs};
use djinn_onnx_proto::{GraphProto, NodeProto};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] =
    &[row("If", 1, branch), row("Loop", 1, repeat), row("Scan", 8, scan_batched), row("Scan", 9, scan)];

/// The graph attribute `name`.
fn graph(n: &Node<'_, '_>, name: &str) -> Result<GraphProto> {
    let found = n.attrs.graph(name)?.cloned();
    found.ok_or_else(|| n.invalid(format!("the attribute '{name}' is missing")))
}

fn branch(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let cond = n.x(0)?;
    let cond = n.as_scalar(cond)?;
    let (then, other) = (graph(n, "then_branch")?, graph(n, "else_branch")?);
    if let Some(c) = n.consts(cond).and_then(|c| c.first().copied()) {
        return n.imp.inline(if c != 0 { &then } else { &other });
    }
    let captured = n.imp.captures(&[&then, &other])?;
    let mut regions = Vec::new();
    for g in [&then, &other] {
        regions.push(n.imp.region(g, &[], &captured, |_, _| Ok(Vec::new()), |_, _, out| Ok(out))?);
    }
    let types = |g: &djinn_srg::SrgGraph| -> Vec<TensorType> {
        g.results.iter().map(|v| g.graph[v.node].types[v.result as usize].clone()).collect()
    };
    let (a, b) = (types(&regions[0]), types(&regions[1]));
    let agree = a.len() == b.len()
        && a.iter().zip(&b).all(|(a, b)| {
            let same = |x: &Dim, y: &Dim| (x - y).as_const().is_none_or(|d| d == 0);
            a.rank() == b.rank() && a.shape.iter().zip(&b.shape).all(|(x, y)| same(x, y))
        });
    if !agree {
        // The declared result types tell which branch can be taken at all.
        match (is_declared(n, &a), is_declared(n, &b)) {
            (true, false) => return n.imp.inline(&then),
            (false, true) => return n.imp.inline(&other),
            _ => {}
        }
        return Err(n.unsupported("the branches give tensors of different rank or size"));
    }
    let mut operands = vec![cond];
    operands.extend(captured.iter().map(|(_, v)| *v));
    let out = n.imp.b.op_with_regions(K::If, &operands, Attrs::new(), regions)?;
    Ok(out.into_iter().map(Some).collect())
}

/// Does the file declare result types, and can values of these types have them?
fn is_declared(n: &Node<'_, '_>, types: &[TensorType]) -> bool {
    types.iter().enumerate().all(|(i, ty)| {
        n.hint(i).is_some_and(|h| {
            let fits = |shape: &Vec<Option<Dim>>| {
                let may_be = |d: &Dim, s: &Dim| (d - s).as_const().is_none_or(|c| c == 0);
                shape.len() == ty.rank()
                    && shape.iter().zip(&ty.shape).all(|(d, s)| d.as_ref().is_none_or(|d| may_be(d, s)))
            };
            h.dtype == ty.dtype && h.shape.as_ref().is_some_and(fits)
        })
    })
}

fn repeat(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let body = graph(n, "body")?;
    let trip_count = match n.opt(0) {
        Some(v) => {
            let v = n.as_scalar(v)?;
            n.cast(v, DType::I64)?
        }
        None => n.scalar(DType::I64, i64::MAX as f64)?,
    };
    let cond = match n.opt(1) {
        Some(v) => n.as_scalar(v)?,
        None => n.scalar(DType::Bool, 1.0)?,
    };
    let carried: Vec<SrgValue> = (2..n.inputs.len()).map(|i| n.x(i)).collect::<Result<_>>()?;
    let count = carried.len();
    let always = n.consts(cond).is_some_and(|c| c == [1]) && keeps_going(&body);
    let count_known = n.known(trip_count).and_then(|k| k.first().cloned());
    let steps = match count_known.filter(|d| always && n.opt(0).is_some() && proves_ge(d, &Dim::ZERO)) {
        Some(d) => d,
        None => n.imp.b.fresh_symbol(),
    };
    let start = move |imp: &mut Importer<'_>, args: &[SrgValue]| {
        let cond = reshape_like(imp, &[], args[1])?;
        let mut inputs = vec![args[0], cond];
        inputs.extend_from_slice(&args[2..2 + count]);
        Ok(inputs)
    };
    let finish = |imp: &mut Importer<'_>, _: &[SrgValue], mut out: Vec<SrgValue>| {
        if let Some(first) = out.first_mut() {
            *first = reshape_like(imp, &[], *first)?;
        }
        Ok(out)
    };
    let parts = LoopParts {
        trip_count,
        cond,
        carried: &carried,
        invariant: &[],
        steps,
        start: &start,
        finish: &finish,
    };
    let out = n.imp.run_loop(&body, &parts)?;
    Ok(out.into_iter().map(Some).collect())
}

/// Does the body hand its condition on unchanged?
fn keeps_going(body: &GraphProto) -> bool {
    let (Some(cond), Some(out)) = (body.input.get(1), body.output.first()) else { return false };
    let copies = |node: &NodeProto| {
        node.op_type == "Identity"
            && node.output.first() == Some(&out.name)
            && node.input.first() == Some(&cond.name)
    };
    cond.name == out.name || body.node.iter().any(copies)
}

/// A reshape, unless the shape is right already.
fn reshape_like(imp: &mut Importer<'_>, shape: &[Dim], v: SrgValue) -> Result<SrgValue> {
    if imp.b.ty(v).shape == shape {
        return Ok(v);
    }
    imp.b.op(K::Reshape, &[v], attrs! { shape: shape.to_vec() })
}

fn scan_batched(n: &mut Node<'_, '_>) -> Result<Outputs> {
    Err(n.unsupported("Scan before operator set 9 is not supported"))
}

/// A loop over slices of the scanned operands.
fn scan(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let body = graph(n, "body")?;
    let all = n.all()?;
    let scanned = n.attrs.int("num_scan_inputs")?.and_then(|c| usize::try_from(c).ok());
    let scanned = scanned.filter(|c| *c >= 1 && *c <= all.len());
    let scanned = scanned.ok_or_else(|| n.invalid("'num_scan_inputs' does not fit the operands"))?;
    let (carried, sources) = all.split_at(all.len() - scanned);
    let outputs = body.output.len().saturating_sub(carried.len());
    let list = |name: &str, count: usize| -> Result<Vec<i64>> {
        let values = n.attrs.ints(name)?.unwrap_or_else(|| vec![0; count]);
        if values.len() == count {
            Ok(values)
        } else {
            Err(n.invalid(format!("'{name}' must hold {count} numbers")))
        }
    };
    let (in_axes, in_back) = (list("scan_input_axes", scanned)?, list("scan_input_directions", scanned)?);
    let (out_axes, out_back) = (list("scan_output_axes", outputs)?, list("scan_output_directions", outputs)?);
    let mut axes = Vec::new();
    for (v, a) in sources.iter().zip(&in_axes) {
        axes.push(n.axis(*a, n.rank(*v))?);
    }
    let steps = n.shape(sources[0])[axes[0]].clone();
    let trip_count = n.imp.b.dim(steps.clone())?;
    let cond = n.scalar(DType::Bool, 1.0)?;
    let count = carried.len();
    let last = &steps - &Dim::ONE;
    let start = |imp: &mut Importer<'_>, args: &[SrgValue]| {
        let mut inputs = args[2..2 + count].to_vec();
        for (i, axis) in axes.iter().enumerate() {
            let mut at = args[0];
            if in_back[i] != 0 {
                let last = imp.b.dim(last.clone())?;
                at = imp.b.op(K::Sub, &[last, at], Attrs::new())?;
            }
            let operands = [args[2 + count + i], at];
            inputs.push(imp.b.op(K::Gather, &operands, attrs! { axis: *axis as i64 })?);
        }
        Ok(inputs)
    };
    let finish = |_: &mut Importer<'_>, args: &[SrgValue], out: Vec<SrgValue>| {
        let mut results = vec![args[1]];
        results.extend(out);
        Ok(results)
    };
    let parts =
        LoopParts { trip_count, cond, carried, invariant: sources, steps, start: &start, finish: &finish };
    let mut out = n.imp.run_loop(&body, &parts)?;
    for (i, v) in out.iter_mut().skip(count).enumerate() {
        if out_back[i] != 0 {
            *v = n.op(K::Reverse, &[*v], attrs! { axes: vec![0i64] })?;
        }
        let rank = n.rank(*v);
        let axis = n.axis(out_axes[i], rank)?;
        let mut perm: Vec<usize> = (1..rank).collect();
        perm.insert(axis, 0);
        *v = n.transpose(*v, &perm)?;
    }
    Ok(out.into_iter().map(Some).collect())
}
