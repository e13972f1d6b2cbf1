//! Matrix products, convolutions, pools and recurrent cells.

use super::{Cx, elementwise};
use crate::proto::{flag, int, ints, string};
use djinn_diag::{Result, unsupported};
use djinn_ir::types::broadcast;
use djinn_ir::{Dim, Op, OpKind, ValueId};

/// An operand of a rank-2 product, with a transpose that only serves it.
struct Factor {
    value: ValueId,
    transposed: bool,
}

fn factor(cx: &Cx<'_, '_>, v: ValueId) -> Factor {
    match cx.def(v, OpKind::Transpose) {
        Some(t) if cx.single_use(v) && t.attrs.ints("perm") == [1, 0] => {
            Factor { value: t.operands[0], transposed: true }
        }
        _ => Factor { value: v, transposed: false },
    }
}

/// The product of two float matrices, for which ONNX has Gemm.
fn is_gemm(cx: &Cx<'_, '_>, product: &Op) -> bool {
    let (a, b) = (cx.operand_ty(product, 0), cx.operand_ty(product, 1));
    a.dtype.is_float() && a.rank() == 2 && b.rank() == 2
}

fn gemm(cx: &mut Cx<'_, '_>, op: &Op, product: &Op, bias: Option<ValueId>) -> Result<String> {
    let (a, b) = (factor(cx, product.operands[0]), factor(cx, product.operands[1]));
    let bias = bias.map_or(Ok(String::new()), |v| cx.name(v))?;
    let mut attrs = Vec::new();
    if a.transposed {
        attrs.push(int("transA", 1));
    }
    if b.transposed {
        attrs.push(int("transB", 1));
    }
    let (a, b) = (cx.name(a.value)?, cx.name(b.value)?);
    cx.result_node(op, "Gemm", &[&a, &b, &bias], attrs)
}

/// MatMul; with an operand transposed for it alone, Gemm.
pub(super) fn matmul(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let serves = |cx: &Cx<'_, '_>, i: usize| factor(cx, op.operands[i]).transposed;
    if is_gemm(cx, op) && (serves(cx, 0) || serves(cx, 1)) {
        return gemm(cx, op, op, None);
    }
    cx.simple(op, "MatMul", vec![]).map(|mut names| names.swap_remove(0))
}

/// Addition; of a rank-2 product that nothing else reads and what broadcasts to it, Gemm.
pub(super) fn add(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    for (product, bias) in [(0, 1), (1, 0)] {
        let v = op.operands[product];
        let Some(matmul) = cx.def(v, OpKind::MatMul).filter(|m| cx.single_use(v) && is_gemm(cx, m)) else {
            continue;
        };
        let (shape, bias) = (&cx.graph.ty(v).shape, op.operands[bias]);
        let spread = broadcast([shape.as_slice(), cx.graph.ty(bias).shape.as_slice()]);
        if cx.graph.ty(bias).rank() <= 2 && spread.as_ref() == Ok(shape) {
            return gemm(cx, op, matmul, Some(bias));
        }
    }
    elementwise::binary(cx, op, "Add")
}

/// Pushes an attribute unless all its values are the operator's default.
fn push_unless(attrs: &mut Vec<djinn_onnx_proto::AttributeProto>, name: &str, values: &[i64], default: i64) {
    if values.iter().any(|v| *v != default) {
        attrs.push(ints(name, values));
    }
}

pub(super) fn conv(cx: &mut Cx<'_, '_>, op: &Op, onnx_op: &str) -> Result<String> {
    let a = &op.attrs;
    let mut attrs = Vec::new();
    push_unless(&mut attrs, "dilations", a.ints("dilations"), 1);
    if a.int("groups") != 1 {
        attrs.push(int("group", a.int("groups")));
    }
    let kernel = &cx.operand_ty(op, 1).shape[2..];
    if let Some(kernel) = kernel.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() {
        attrs.push(ints("kernel_shape", &kernel));
    }
    let (pads, output_padding) = positive_pads(op)?;
    push_unless(&mut attrs, "output_padding", &output_padding, 0);
    push_unless(&mut attrs, "pads", &pads, 0);
    attrs.push(ints("strides", a.ints("strides")));
    let inputs = cx.operands(op)?;
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    cx.result_node(op, onnx_op, &inputs, attrs)
}

/// Pads and output padding of a convolution without negative pads, which ONNX's checker refuses: a transposed
/// convolution that is larger than its windows reach at the high end has output padding instead.
fn positive_pads(op: &Op) -> Result<(Vec<i64>, Vec<i64>)> {
    let mut pads = op.attrs.ints("pads").to_vec();
    let mut output_padding = op.attrs.ints("output_padding").to_vec();
    let n = pads.len() / 2;
    for (i, extra) in output_padding.iter_mut().enumerate() {
        if pads[n + i] < 0 {
            *extra = extra.saturating_sub(pads[n + i]);
            pads[n + i] = 0;
        }
    }
    let strides = op.attrs.ints("strides");
    let too_much = output_padding.iter().zip(strides).any(|(extra, stride)| extra >= stride && *extra > 0);
    if pads.iter().any(|p| *p < 0) || (too_much && output_padding != op.attrs.ints("output_padding")) {
        let message = format!("a '{}' with negative pads {:?}", op.kind.name(), op.attrs.ints("pads"));
        return Err(
            unsupported("onnx.negative-pads", message).help("pad or slice in an operation of its own")
        );
    }
    Ok((pads, output_padding))
}

/// Pads without what no window reaches, and whether rounding up still matters.
///
/// Before opset 22 ONNX's shape inference lets a last window begin in the high padding, which neither the IR nor
/// onnxruntime does; without the unreached padding the formulas agree.
fn trimmed_pads(cx: &Cx<'_, '_>, op: &Op) -> (Vec<i64>, bool) {
    let (from, to) = (cx.operand_ty(op, 0), cx.result_ty(op));
    let mut pads = op.attrs.ints("pads").to_vec();
    let n = pads.len() / 2;
    let mut ceil = false;
    for i in 0..n {
        let (stride, kernel) = (op.attrs.ints("strides")[i], op.attrs.ints("kernel")[i]);
        let reach = (kernel - 1) * op.attrs.ints("dilations")[i] + 1;
        let (Some(size), Some(out)) = (from.shape[2 + i].as_const(), to.shape[2 + i].as_const()) else {
            ceil = true;
            continue;
        };
        let span = size + pads[i] + pads[n + i] - reach;
        let unreached = span - (out - 1) * stride;
        if unreached > 0 && unreached <= pads[n + i] {
            pads[n + i] -= unreached;
        } else if unreached < 0 {
            ceil = true;
        }
    }
    (pads, ceil)
}

pub(super) fn pool(cx: &mut Cx<'_, '_>, op: &Op, onnx_op: &str) -> Result<String> {
    let a = &op.attrs;
    let mut attrs = vec![];
    let (pads, ceil) =
        if a.bool("ceil_mode") { trimmed_pads(cx, op) } else { (a.ints("pads").to_vec(), false) };
    if ceil {
        attrs.push(flag("ceil_mode", true));
    }
    if a.bool("count_include_pad") {
        attrs.push(flag("count_include_pad", true));
    }
    push_unless(&mut attrs, "dilations", a.ints("dilations"), 1);
    attrs.push(ints("kernel_shape", a.ints("kernel")));
    push_unless(&mut attrs, "pads", &pads, 0);
    attrs.push(ints("strides", a.ints("strides")));
    cx.simple(op, onnx_op, attrs).map(|mut names| names.swap_remove(0))
}

pub(super) fn lstm(cx: &mut Cx<'_, '_>, op: &Op) -> Result<Vec<String>> {
    let n = cx.operands(op)?;
    let attrs =
        vec![string("direction", op.attrs.str("direction")), int("hidden_size", op.attrs.int("hidden"))];
    let types: Vec<_> = op.results.iter().map(|v| cx.graph.ty(*v).clone()).collect();
    cx.e.nodes("LSTM", &[&n[0], &n[1], &n[2], &n[3], "", &n[4], &n[5]], attrs, &types)
}
