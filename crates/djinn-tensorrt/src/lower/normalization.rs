//! Softmax and norms.

use super::Node;
use crate::network::{Net, Val, layer, no_layer};
use djinn_diag::Result;
use djinn_ir::{DType, Dim, OpKind};
use trtx::{Axes, ElementWiseOperation as E, ReduceOperation as R, UnaryOperation as U};

pub(super) fn lower<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    match node.kind {
        OpKind::Softmax => net.softmax(x, node.axis()),
        OpKind::LogSoftmax => log_softmax(net, x, node.axis()),
        OpKind::LayerNorm => layer_norm(net, node),
        OpKind::RmsNorm => rms_norm(net, node),
        OpKind::GroupNorm => group_norm(net, node),
        OpKind::BatchNorm => batch_norm(net, node),
        _ => Err(no_layer("it is no norm")),
    }
}

fn log_softmax<'n>(net: &mut Net<'n>, x: &Val<'n>, axis: usize) -> Result<Val<'n>> {
    let most = net.reduce(x, R::kMAX, &[axis], true)?;
    let less = net.binary(x, &most, E::kSUB)?;
    let power = net.unary(&less, U::kEXP)?;
    let sum = net.reduce(&power, R::kSUM, &[axis], true)?;
    let log = net.unary(&sum, U::kLOG)?;
    net.binary(&less, &log, E::kSUB)
}

/// (x − mean)/√(var + ε) over axes, with statistics in f32, as one layer.
fn standardised<'n>(net: &mut Net<'n>, x: &Val<'n>, axes: &[usize], epsilon: f64) -> Result<Val<'n>> {
    let shape = |axis: usize| if axes.contains(&axis) { x.shape()[axis].clone() } else { Dim::ONE };
    let shape: Vec<Dim> = (0..x.rank()).map(shape).collect();
    let one = net.number(x.dtype(), x.rank(), 1.0)?;
    let scale = net.broadcast(&one, &shape)?;
    let zero = net.number(x.dtype(), x.rank(), 0.0)?;
    let bias = net.broadcast(&zero, &shape)?;
    normalization(net, x, &scale, &bias, axes, epsilon)
}

fn normalization<'n>(
    net: &mut Net<'n>,
    x: &Val<'n>,
    scale: &Val<'n>,
    bias: &Val<'n>,
    axes: &[usize],
    epsilon: f64,
) -> Result<Val<'n>> {
    let bits: Vec<u32> = axes.iter().map(|a| *a as u32).collect();
    let axes = Axes::from_slice(&bits);
    let made = net.inner.add_normalization_v2(&x.tensor, &scale.tensor, &bias.tensor, axes);
    let mut made = made.map_err(|e| crate::network::refused(&e))?;
    made.set_epsilon(&mut net.inner, epsilon as f32);
    let ty = x.ty.clone();
    Ok(layer!(net, Ok::<_, trtx::Error>(made), ty))
}

/// Scale and bias broadcast to the normalised axes, which the layer wants whole.
fn parameter<'n>(net: &mut Net<'n>, p: &Val<'n>, x: &Val<'n>, axis: usize) -> Result<Val<'n>> {
    let shape: Vec<Dim> =
        std::iter::repeat_n(Dim::ONE, axis).chain(x.shape()[axis..].iter().cloned()).collect();
    net.broadcast(p, &shape)
}

fn layer_norm<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, axis) = (node.x(0)?, node.axis());
    let scale = parameter(net, node.x(1)?, x, axis)?;
    let bias = match node.operands.get(2) {
        Some(bias) => parameter(net, bias, x, axis)?,
        None => {
            let zero = net.number(x.dtype(), x.rank(), 0.0)?;
            parameter(net, &zero, x, axis)?
        }
    };
    let axes: Vec<usize> = (axis..x.rank()).collect();
    normalization(net, x, &scale, &bias, &axes, node.attrs.float("epsilon"))
}

/// x/√(mean(x²) + ε)·scale; the statistics in f32.
fn rms_norm<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (x, axis) = (node.x(0)?, node.axis());
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let wide = net.cast(x, DType::F32)?;
    let square = net.binary(&wide, &wide, E::kPROD)?;
    let mean = net.reduce(&square, R::kAVG, &axes, true)?;
    let moved = net.with_number(&mean, E::kSUM, node.attrs.float("epsilon"))?;
    let root = net.unary(&moved, U::kSQRT)?;
    let normal = net.binary(&wide, &root, E::kDIV)?;
    let scale = net.cast(node.x(1)?, DType::F32)?;
    let scaled = net.binary(&normal, &scale, E::kPROD)?;
    net.cast(&scaled, x.dtype())
}

/// [N, C, …] as [N, groups, everything else]: one axis is normalised.
fn group_norm<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    let groups = Dim::from(node.attrs.int("groups"));
    let elements = djinn_ir::dim::product(&x.shape()[1..]);
    let each = elements.exact_div(&groups).ok_or_else(|| no_layer("the size of a group is not known"))?;
    let grouped = net.reshape(x, &[x.shape()[0].clone(), groups, each])?;
    let normal = standardised(net, &grouped, &[2], node.attrs.float("epsilon"))?;
    let normal = net.reshape(&normal, x.shape())?;
    let scale = per_channel(net, node.x(1)?, x.rank())?;
    let bias = per_channel(net, node.x(2)?, x.rank())?;
    let scaled = net.binary(&normal, &scale, E::kPROD)?;
    net.binary(&scaled, &bias, E::kSUM)
}

/// [channels] as [1, channels, 1, …].
fn per_channel<'n>(net: &mut Net<'n>, p: &Val<'n>, rank: usize) -> Result<Val<'n>> {
    let mut shape = vec![Dim::ONE; rank];
    shape[1] = p.shape()[0].clone();
    net.reshape(p, &shape)
}

/// One factor and one summand a channel.
fn batch_norm<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    let var = net.with_number(node.x(4)?, E::kSUM, node.attrs.float("epsilon"))?;
    let root = net.unary(&var, U::kSQRT)?;
    let factor = net.binary(node.x(1)?, &root, E::kDIV)?;
    let moved = net.binary(node.x(3)?, &factor, E::kPROD)?;
    let summand = net.binary(node.x(2)?, &moved, E::kSUB)?;
    let (factor, summand) = (per_channel(net, &factor, x.rank())?, per_channel(net, &summand, x.rank())?);
    let scaled = net.binary(x, &factor, E::kPROD)?;
    net.binary(&scaled, &summand, E::kSUM)
}
