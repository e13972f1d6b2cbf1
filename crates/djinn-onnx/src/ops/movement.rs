//! Data movement: Transpose, Concat, Expand, Tile, DepthToSpace, SpaceToDepth.

use super::shape::dynamic_broadcast;
use super::{Entry, row};
use crate::node::{Node, Outputs, one, size};
use djinn_diag::Result;
use djinn_ir::infer::is_permutation;
use djinn_ir::{Dim, OpKind as K, attrs};
use djinn_srg::SrgValue;

/// Rows of this family.
pub(crate) const OPS: &[Entry] = &[
    row("Transpose", 1, transpose),
    row("Concat", 4, concat),
    row("Expand", 8, expand),
    row("Tile", 6, tile),
    row("DepthToSpace", 1, depth_to_space),
    row("SpaceToDepth", 1, space_to_depth),
];

fn transpose(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let x = n.x(0)?;
    let rank = n.rank(x);
    let perm = match n.attrs.ints("perm")? {
        Some(p) => p,
        None => (0..rank as i64).rev().collect(),
    };
    if !is_permutation(&perm, rank) {
        return Err(n.invalid(format!("{perm:?} is no permutation of {rank} axes")));
    }
    let perm: Vec<usize> = perm.into_iter().map(|p| p as usize).collect();
    one(n.transpose(x, &perm)?)
}

fn concat(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let mut all = n.all()?;
    let first = n.x(0)?;
    if all.iter().any(|v| n.dtype(*v) != n.dtype(first)) {
        // torch's `cat` promotes element types and its exporter forgets to: the declared type tells what was meant.
        let declared = n.hint(0).map(|h| h.dtype);
        let to = declared.ok_or_else(|| n.invalid("the operands differ in element type"))?;
        for v in &mut all {
            if !n.dtype(*v).fits_in(to) {
                return Err(n.invalid("the operands differ in element type"));
            }
            *v = n.cast(*v, to)?;
        }
        n.imp.report.repairs += 1;
    }
    let axis = n.axis(n.int("axis", 0)?, n.rank(first))?;
    one(n.concat(&all, axis)?)
}

fn expand(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, target) = (n.x(0)?, n.x(1)?);
    let Some(wanted) = n.known(target) else {
        let rank = n.ty(target).shape.first().and_then(Dim::as_const);
        let rank = rank.ok_or_else(|| n.unsupported("the rank of the result is not known"))?;
        return dynamic_broadcast(n, x, target, rank);
    };
    let dims = expanded(n, x, &wanted)?;
    one(n.broadcast(x, dims)?)
}

/// The two-way broadcast of a value against a shape.
fn expanded(n: &Node<'_, '_>, x: SrgValue, wanted: &[Dim]) -> Result<Vec<Dim>> {
    let have = n.shape(x);
    let rank = have.len().max(wanted.len());
    let at =
        |dims: &[Dim], i: usize| (i + dims.len()).checked_sub(rank).map_or(Dim::ONE, |i| dims[i].clone());
    let mut out = Vec::with_capacity(rank);
    for i in 0..rank {
        let (a, b) = (at(&have, i), at(wanted, i));
        let d = match (a.as_const(), b.as_const()) {
            _ if a == b => a,
            (Some(1), _) => b,
            (_, Some(1)) => a,
            (Some(_), Some(_)) => {
                return Err(n.invalid(format!("the size {a} cannot be expanded to {b}")));
            }
            (Some(_), None) => a,
            (None, Some(_)) => b,
            (None, None) => n.hint_dim(i, rank).filter(|h| *h == a).unwrap_or(b),
        };
        out.push(d);
    }
    Ok(out)
}

fn tile(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, repeats) = (n.x(0)?, n.x(1)?);
    let rank = n.rank(x);
    match n.known(repeats) {
        Some(r) if r.iter().all(|d| d.is(1)) && r.len() == rank => one(x),
        Some(r) => one(n.op(K::Tile, &[x], attrs! { repeats: r })?),
        None => {
            let dims: Vec<Dim> = (0..rank).map(|i| n.hint_or_fresh(i, rank)).collect();
            one(n.op(K::DynamicTile, &[x, repeats], attrs! { result_shape: dims })?)
        }
    }
}

/// Operand, block size and the four sizes of an image operator.
fn image(n: &Node<'_, '_>) -> Result<(SrgValue, Dim, [Dim; 4])> {
    let x = n.x(0)?;
    let block = n.attrs.int("blocksize")?.filter(|b| *b >= 1);
    let block = block.ok_or_else(|| n.invalid("the block size must be positive"))?;
    let dims: [Dim; 4] = n.shape(x).try_into().map_err(|_| n.invalid("the operand must have rank 4"))?;
    Ok((x, size(block), dims))
}

fn depth_to_space(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, block, [batch, depth, h, w]) = image(n)?;
    let channels = depth.floor_div(&(&block * &block));
    let (b, out) = (block.clone(), [batch.clone(), channels.clone(), &h * &block, &w * &block]);
    let (split, perm) = match n.text("mode", "DCR")?.as_str() {
        "DCR" => (vec![batch, b.clone(), b, channels, h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => (vec![batch, channels, b.clone(), b, h, w], [0, 1, 4, 2, 5, 3]),
        other => return Err(n.invalid(format!("'{other}' is no mode of DepthToSpace"))),
    };
    let y = n.reshape(x, split)?;
    let y = n.transpose(y, &perm)?;
    one(n.reshape(y, out.to_vec())?)
}

fn space_to_depth(n: &mut Node<'_, '_>) -> Result<Outputs> {
    let (x, b, [batch, c, h, w]) = image(n)?;
    let (rows, columns) = (h.floor_div(&b), w.floor_div(&b));
    let y =
        n.reshape(x, vec![batch.clone(), c.clone(), rows.clone(), b.clone(), columns.clone(), b.clone()])?;
    let perm = match n.text("mode", "DCR")?.as_str() {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => return Err(n.invalid(format!("'{other}' is no mode of SpaceToDepth"))),
    };
    let y = n.transpose(y, &perm)?;
    let depth = &(&c * &b) * &b;
    one(n.reshape(y, vec![batch, depth, rows, columns])?)
}
