//! Products, convolutions, pools and interpolation.

use super::{Node, movement};
use crate::network::{Net, Val, layer, no_layer, refused};
use djinn_diag::Result;
use djinn_ir::{Dim, OpKind, TensorType};
use trtx::{
    ElementWiseOperation as E, InterpolationMode, PaddingMode, PoolingType, ResizeCoordinateTransformation,
    ResizeRoundMode, ResizeSelector,
};

pub(super) fn lower<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    match node.kind {
        OpKind::MatMul => matmul(net, node),
        OpKind::Conv => conv(net, node),
        OpKind::ConvTranspose => conv_transpose(net, node),
        OpKind::MaxPool | OpKind::AvgPool => pool(net, node),
        _ => resize(net, node),
    }
}

/// numpy matmul: a vector is a row on the left and a column on the right.
fn matmul<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let (a, b) = (node.x(0)?.clone(), node.x(1)?.clone());
    let row = if a.rank() == 1 { net.at_least_rank(&a, 2)? } else { a };
    let column = match b.rank() {
        1 => net.reshape(&b, &[b.shape()[0].clone(), Dim::ONE])?,
        _ => b,
    };
    let product = net.matmul(&row, &column, false)?;
    net.reshape(&product, &node.types[0].shape)
}

/// Entries of an attribute for two spatial axes; one axis becomes the second of two.
fn pair(values: &[i64], neutral: i64) -> Result<[i64; 2]> {
    match values {
        [one] => Ok([neutral, *one]),
        [a, b] => Ok([*a, *b]),
        _ => Err(no_layer("the bindings have windows of one and two axes")),
    }
}

/// With a spatial axis of size 1 put in, if there is only one.
fn planar<'n>(net: &mut Net<'n>, x: &Val<'n>) -> Result<Val<'n>> {
    if x.rank() != 3 {
        return Ok(x.clone());
    }
    let mut shape = x.shape().to_vec();
    shape.insert(2, Dim::ONE);
    net.reshape(x, &shape)
}

/// What a window takes in, for two spatial axes.
struct Window {
    kernel: [i64; 2],
    strides: [i64; 2],
    dilations: [i64; 2],
    low: [i64; 2],
    high: [i64; 2],
}

impl Window {
    fn of(node: &Node<'_, '_>, kernel: &[i64]) -> Result<Window> {
        let pads = node.attrs.ints("pads");
        let (low, high) = pads.split_at(pads.len() / 2);
        let window = Window {
            kernel: pair(kernel, 1)?,
            strides: pair(node.attrs.ints("strides"), 1)?,
            dilations: pair(node.attrs.ints("dilations"), 1)?,
            low: pair(low, 0)?,
            high: pair(high, 0)?,
        };
        if window.low.iter().chain(&window.high).any(|p| *p < 0) {
            return Err(no_layer("padding is negative"));
        }
        Ok(window)
    }

    /// The size that comes out, rounded down, of two spatial axes.
    fn result(&self, shape: &[Dim]) -> [Dim; 2] {
        [0, 1].map(|i| {
            let extent = self.dilations[i].saturating_mul(self.kernel[i].saturating_sub(1)).saturating_add(1);
            let padded = &shape[2 + i] + &Dim::from(self.low[i].saturating_add(self.high[i]));
            let steps = (&padded - &Dim::from(extent)).floor_div(&Dim::from(self.strides[i]));
            &steps + &Dim::ONE
        })
    }
}

/// Sizes of the kernel of a weight, which are constant.
fn kernel_sizes(weight: &Val<'_>) -> Result<Vec<i64>> {
    let sizes = weight.shape()[2..].iter().map(Dim::as_const);
    sizes.collect::<Option<_>>().ok_or_else(|| no_layer("the size of the kernel is not known"))
}

fn constant(dim: &Dim) -> Result<i64> {
    dim.as_const().ok_or_else(|| no_layer("the number of channels is not known"))
}

/// Kernel and bias are tensors of the network, so that they may be its inputs.
fn conv<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let weight = node.x(1)?;
    let window = Window::of(node, &kernel_sizes(weight)?)?;
    let mut x = planar(net, node.x(0)?)?;
    let weight = planar(net, weight)?;
    if window.low != window.high {
        x = zero_padded(net, &x, window.low, window.high)?;
    }
    let maps = i32::try_from(constant(&weight.shape()[0])?).map_err(|_| no_layer("too many channels"))?;
    let kernel = window.kernel.map(|k| i32::try_from(k).unwrap_or(i32::MAX));
    let made = net.inner.add_convolution_deferrred_weights(&x.tensor, maps, &kernel);
    let mut made = made.map_err(|e| refused(&e))?;
    made.set_input(&mut net.inner, 1, &weight.tensor).map_err(|e| refused(&e))?;
    made.set_stride(&mut net.inner, &window.strides);
    made.set_dilation(&mut net.inner, &window.dilations);
    made.set_num_groups(&mut net.inner, node.attrs.int("groups"));
    if window.low == window.high {
        made.set_padding(&mut net.inner, &window.low);
    }
    let shape = [&node.types[0].shape[..2], &window.result(node_planar(node)?.as_slice())].concat();
    let y = layer!(net, Ok::<_, trtx::Error>(made), TensorType::new(x.dtype(), shape));
    finish(net, node, &y, 2)
}

/// The shape of the first operand with two spatial axes.
fn node_planar(node: &Node<'_, '_>) -> Result<Vec<Dim>> {
    let mut shape = node.x(0)?.shape().to_vec();
    if shape.len() == 3 {
        shape.insert(2, Dim::ONE);
    }
    Ok(shape)
}

/// Adds the bias and takes the spatial axis out that was put in.
fn finish<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>, y: &Val<'n>, bias: usize) -> Result<Val<'n>> {
    let mut y = y.clone();
    if let Some(bias) = node.operands.get(bias) {
        let channels = bias.shape()[0].clone();
        let bias = net.reshape(bias, &[Dim::ONE, channels, Dim::ONE, Dim::ONE])?;
        y = net.binary(&y, &bias, E::kSUM)?;
    }
    if node.types[0].rank() == 3 {
        y = net.reshape(&y, &node.types[0].shape)?;
    }
    Ok(y)
}

/// Zeros around the spatial axes.
fn zero_padded<'n>(net: &mut Net<'n>, x: &Val<'n>, low: [i64; 2], high: [i64; 2]) -> Result<Val<'n>> {
    let mut x = x.clone();
    let zero = net.number(x.dtype(), 0, 0.0)?;
    for axis in [2, 3] {
        let mut parts = vec![x.clone()];
        for (amount, place) in [(low[axis - 2], 0), (high[axis - 2], usize::MAX)] {
            if amount > 0 {
                let mut shape = x.shape().to_vec();
                shape[axis] = Dim::from(amount);
                let border = movement::filled(net, &zero, &shape)?;
                parts.insert(place.min(parts.len()), border);
            }
        }
        x = net.concat(&parts, axis)?;
    }
    Ok(x)
}

fn conv_transpose<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let weight = node.x(1)?;
    let window = Window::of(node, &kernel_sizes(weight)?)?;
    let more = pair(node.attrs.ints("output_padding"), 0)?;
    // What the layer trims at the end is what is padded less what is added.
    let high = [window.high[0] - more[0], window.high[1] - more[1]];
    if high.iter().any(|p| *p < 0) {
        return Err(no_layer("more is added to the result than is trimmed"));
    }
    let (x, weight) = (planar(net, node.x(0)?)?, planar(net, weight)?);
    let groups = node.attrs.int("groups");
    let maps = constant(&weight.shape()[1])?.saturating_mul(groups);
    let kernel = window.kernel;
    let empty = trtx::ConvWeights {
        kernel_weights: &[],
        kernel_dtype: crate::network::data_type(x.dtype())?,
        kernel_name: None,
        bias_weights: None,
        bias_dtype: None,
        bias_name: None,
    };
    let made = net.inner.add_deconvolution(&x.tensor, maps, &kernel, &empty);
    let mut made = made.map_err(|e| refused(&e))?;
    let mut set = || -> trtx::Result<()> {
        made.set_input(&mut net.inner, 1, &weight.tensor)?;
        made.set_stride(&mut net.inner, &window.strides)?;
        made.set_dilation(&mut net.inner, &window.dilations)?;
        made.set_num_groups(&mut net.inner, groups)?;
        made.set_pre_padding(&mut net.inner, &window.low)?;
        made.set_post_padding(&mut net.inner, &high)
    };
    set().map_err(|e| refused(&e))?;
    let mut shape = node.types[0].shape.clone();
    if shape.len() == 3 {
        shape.insert(2, Dim::ONE);
    }
    let y = layer!(net, Ok::<_, trtx::Error>(made), TensorType::new(x.dtype(), shape));
    finish(net, node, &y, 2)
}

/// Pools over one or two axes.
fn pool<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let window = Window::of(node, node.attrs.ints("kernel"))?;
    if window.dilations != [1, 1] {
        return Err(no_layer("pooling layers have no dilation"));
    }
    let x = planar(net, node.x(0)?)?;
    let down = window.result(&node_planar(node)?);
    let declared = &node.types[0].shape;
    let spatial = [declared.get(declared.len() - 2), declared.last()];
    let same = spatial[1] == Some(&down[1]) && (declared.len() == 3 || spatial[0] == Some(&down[0]));
    if node.attrs.bool("ceil_mode") && !same {
        return Err(no_layer("windows beyond the padding are counted differently"));
    }
    let kind = match node.kind {
        OpKind::MaxPool => PoolingType::kMAX,
        _ => PoolingType::kAVERAGE,
    };
    let made = net.inner.add_pooling(&x.tensor, kind, &window.kernel);
    let mut made = made.map_err(|e| refused(&e))?;
    made.set_stride_nd(&mut net.inner, &window.strides);
    made.set_pre_padding(&mut net.inner, &window.low);
    made.set_post_padding(&mut net.inner, &window.high);
    made.set_padding_mode(&mut net.inner, PaddingMode::kEXPLICIT_ROUND_DOWN);
    if node.kind == OpKind::AvgPool {
        let excludes = !node.attrs.bool("count_include_pad");
        made.set_average_count_excludes_padding(&mut net.inner, excludes);
    }
    let shape = [&declared[..2], &down].concat();
    let y = layer!(net, Ok::<_, trtx::Error>(made), TensorType::new(x.dtype(), shape));
    net.reshape(&y, declared)
}

fn resize<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    let sizes = &node.types[0].shape;
    let scales = node.attrs.floats("scales");
    for ((from, to), scale) in x.shape().iter().zip(sizes).zip(&scales) {
        let (from, to) = from.as_const().zip(to.as_const()).ok_or_else(|| no_layer("sizes are not known"))?;
        // The layer derives its scale from the sizes.
        if (from as f64 * scale - to as f64).abs() > 1e-6 * to as f64 {
            return Err(no_layer("the scale is not the ratio of the sizes"));
        }
    }
    let coordinates = match node.attrs.str("coordinates") {
        "half_pixel" => ResizeCoordinateTransformation::kHALF_PIXEL,
        "asymmetric" => ResizeCoordinateTransformation::kASYMMETRIC,
        "align_corners" => ResizeCoordinateTransformation::kALIGN_CORNERS,
        // They differ where the result has size 1, and where sizes are rounded.
        "pytorch_half_pixel" if sizes.iter().all(|d| !d.is(1)) => ResizeCoordinateTransformation::kHALF_PIXEL,
        "half_pixel_symmetric" => ResizeCoordinateTransformation::kHALF_PIXEL,
        _ => return Err(no_layer("there is no such transformation of coordinates")),
    };
    let mode = match node.attrs.str("mode") {
        "nearest" => InterpolationMode::kNEAREST,
        "linear" => InterpolationMode::kLINEAR,
        _ => InterpolationMode::kCUBIC,
    };
    let rounding = match node.attrs.str("nearest") {
        "round_prefer_floor" => ResizeRoundMode::kHALF_DOWN,
        "round_prefer_ceil" => ResizeRoundMode::kHALF_UP,
        "floor" => ResizeRoundMode::kFLOOR,
        _ => ResizeRoundMode::kCEIL,
    };
    let mut made = net.inner.add_resize(&x.tensor).map_err(|e| refused(&e))?;
    made.set_output_dimensions(&mut net.inner, &crate::network::plain(sizes));
    made.set_resize_mode(&mut net.inner, mode);
    made.set_coordinate_transformation(&mut net.inner, coordinates);
    made.set_selector_for_single_pixel(&mut net.inner, ResizeSelector::kFORMULA);
    made.set_nearest_rounding(&mut net.inner, rounding);
    if mode == InterpolationMode::kCUBIC {
        made.set_cubic_coeff(&mut net.inner, node.attrs.float("cubic_a") as f32);
        made.set_exclude_outside(&mut net.inner, node.attrs.bool("exclude_outside"));
    }
    Ok(layer!(net, Ok::<_, trtx::Error>(made), node.types[0].clone()))
}
