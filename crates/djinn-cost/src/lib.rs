//! What an operation costs on a device: a roofline plus a launch cost per kernel.
//!
//! `time = max(flops / peak, bytes / bandwidth) + launch` (Williams, Waterman, Patterson: "Roofline: an insightful
//! visual performance model for multicore architectures", CACM 52(4), 2009). Work on weights alone costs no run time;
//! a small charge for the bytes it makes keeps it from growing without need. Symbolic sizes are taken at
//! [`Device::symbol_size`], within their declared range.

use djinn_ir::ops::CostClass;
use djinn_ir::{Dim, OpKind, SymbolTable, TensorType};

/// The figures of a device that the model needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Name, for reports.
    pub name: &'static str,
    /// Peak rate of multiply-accumulate work, FLOP/s.
    pub peak_flops: f64,
    /// Memory bandwidth, bytes/s.
    pub bandwidth: f64,
    /// Time to start a kernel, seconds.
    pub launch: f64,
    /// What an unbounded symbol counts as.
    pub symbol_size: i64,
}

impl Device {
    /// A generic accelerator: 100 TFLOP/s, 1 TB/s, 4 µs a launch. Round figures of the order of a data-centre GPU of
    /// the early 2020s, to rank alternatives; not a measurement of any device.
    pub const GENERIC: Device =
        Device { name: "generic", peak_flops: 100e12, bandwidth: 1e12, launch: 4e-6, symbol_size: 64 };
}

/// Seconds charged per byte of a value that is computed from weights ahead of time.
const AHEAD_OF_TIME_PER_BYTE: f64 = 1e-18;

/// The share of a launch that a pure shape change costs: no kernel, but a node that the executor visits.
const VIEW_SHARE: f64 = 0.1;

/// The share of a launch that one slice costs: slices that together partition an axis become one split.
const SLICE_SHARE: f64 = 0.3;

/// The cost model: a device and the symbols of a module.
#[derive(Debug, Clone)]
pub struct CostModel<'a> {
    /// The device.
    pub device: &'a Device,
    /// What is known of the symbols.
    pub symbols: &'a SymbolTable,
}

impl CostModel<'_> {
    fn size(&self, d: &Dim) -> f64 {
        let value = d.eval(&|s| {
            let info = self.symbols.info(s);
            Some(self.device.symbol_size.max(info.min).min(info.max.unwrap_or(i64::MAX)))
        });
        value.unwrap_or(self.device.symbol_size).max(0) as f64
    }

    fn elements(&self, ty: &TensorType) -> f64 {
        ty.shape.iter().map(|d| self.size(d)).product()
    }

    fn bytes(&self, ty: &TensorType) -> f64 {
        self.elements(ty) * ty.dtype.size() as f64
    }

    /// Seconds of one operation. `ahead` says that it depends on weights only and is computed once, before any run.
    pub fn op(&self, kind: OpKind, operands: &[&TensorType], results: &[TensorType], ahead: bool) -> f64 {
        let written: f64 = results.iter().map(|t| self.bytes(t)).sum();
        if ahead {
            return (written + 64.0) * AHEAD_OF_TIME_PER_BYTE;
        }
        let read: f64 = match kind {
            // Indexed and partial reads touch what they give, not the whole operand.
            OpKind::Gather | OpKind::GatherNd | OpKind::GatherElements | OpKind::Slice => written,
            _ => operands.iter().map(|t| self.bytes(t)).sum(),
        };
        let traffic = (read + written) / self.device.bandwidth;
        let launch = self.device.launch;
        match kind.def().cost {
            CostClass::Free => match kind {
                OpKind::Reshape | OpKind::DynamicReshape => launch * VIEW_SHARE,
                _ => 0.0,
            },
            CostClass::Copy if kind == OpKind::Slice => launch * SLICE_SHARE + traffic,
            CostClass::Elementwise | CostClass::Copy | CostClass::Reduction | CostClass::Normalization => {
                launch * effort(kind) + traffic * passes(kind)
            }
            CostClass::Contraction => {
                launch + (self.flops(kind, operands, results) / self.device.peak_flops).max(traffic)
            }
            CostClass::Control => launch + traffic,
        }
    }

    /// Floating-point operations of multiply-accumulate work; 0 for everything else.
    pub fn flops(&self, kind: OpKind, operands: &[&TensorType], results: &[TensorType]) -> f64 {
        let out = results.first().map_or(0.0, |t| self.elements(t));
        let last = |t: &TensorType| t.shape.last().map_or(1.0, |d| self.size(d));
        match kind {
            OpKind::MatMul => 2.0 * out * last(operands[0]),
            OpKind::Conv => {
                let w = operands[1];
                let per_output: f64 = w.shape[1..].iter().map(|d| self.size(d)).product();
                2.0 * out * per_output
            }
            OpKind::ConvTranspose => {
                let per_input: f64 = operands[1].shape[1..].iter().map(|d| self.size(d)).product();
                2.0 * self.elements(operands[0]) * per_input
            }
            OpKind::Sdpa => {
                let rank = operands[1].rank();
                let keys = self.size(&operands[1].shape[rank - 2]);
                // Q·Kᵀ and probabilities·V, each two operations per query element and key.
                4.0 * self.elements(operands[0]) * keys
            }
            OpKind::Lstm => {
                let weights: f64 = operands[1..3].iter().map(|t| self.elements(t)).sum();
                2.0 * weights * operands[0].shape[..2].iter().map(|d| self.size(d)).product::<f64>()
            }
            _ => 0.0,
        }
    }
}

/// Breaks ties between elementwise operations: those with iterative instruction sequences cost a little more.
fn effort(kind: OpKind) -> f64 {
    match kind {
        OpKind::Pow => 1.02,
        OpKind::Div | OpKind::Mod => 1.01,
        _ => 1.0,
    }
}

/// How often an operation goes over its data.
fn passes(kind: OpKind) -> f64 {
    match kind.def().cost {
        CostClass::Normalization => 1.5,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_ir::DType;

    #[test]
    fn merged_products_cost_less_than_separate_ones() {
        let symbols = SymbolTable::default();
        let model = CostModel { device: &Device::GENERIC, symbols: &symbols };
        let t = |s: &[i64]| TensorType::of(DType::F32, s);
        let matmul = |n: i64| {
            let (x, w) = (t(&[16, 64]), t(&[64, n]));
            model.op(OpKind::MatMul, &[&x, &w], &[t(&[16, n])], false)
        };
        let slice = model.op(OpKind::Slice, &[&t(&[16, 192])], &[t(&[16, 64])], false);
        assert!(matmul(192) + 3.0 * slice < 3.0 * matmul(64));
    }

    #[test]
    fn work_on_weights_is_free_at_run_time() {
        let symbols = SymbolTable::default();
        let model = CostModel { device: &Device::GENERIC, symbols: &symbols };
        let w = TensorType::of(DType::F32, &[4096, 4096]);
        let ahead = model.op(OpKind::Transpose, &[&w], std::slice::from_ref(&w), true);
        assert!(ahead < Device::GENERIC.launch / 1000.0);
    }
}
