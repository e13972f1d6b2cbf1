//! The cost model: a device profile, the symbols of a module and their values, and models of a user's own.

use crate::custom::{OpCost, OpQuery, OwnModels};
use crate::work::{Sizes, Work, flops, op_class, precision, work};
use djinn_device::{Profile, Rates, Route, Target};
use djinn_ir::walk;
use djinn_ir::{Attrs, DType, Dim, Graph, Op, OpId, OpKind, SymbolTable, TensorType, ValueId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a symbol without a value counts as, within its declared range.
pub const UNBOUND_SIZE: i64 = 64;

/// Seconds charged per byte of a value that is computed from weights ahead of time: such work costs no run time; a
/// small charge for the bytes it makes keeps it from growing without need.
const AHEAD_OF_TIME_PER_BYTE: f64 = 1e-18;

static NO_SIZES: BTreeMap<String, i64> = BTreeMap::new();

/// The cost model of one device.
#[derive(Clone, Copy)]
pub struct CostModel<'a> {
    /// The device.
    pub profile: &'a Profile,
    /// What is known of the symbols.
    pub symbols: &'a SymbolTable,
    /// Values of symbols; the others count as [`UNBOUND_SIZE`].
    pub sizes: &'a BTreeMap<String, i64>,
    /// Models of the user's own, asked in order before the built-in one.
    pub custom: &'a [Arc<dyn OpCost>],
}

impl Sizes for CostModel<'_> {
    type Quantity = f64;

    fn size(&self, dim: &Dim) -> f64 {
        if let Some(c) = dim.as_const() {
            return c.max(0) as f64;
        }
        dim.eval(&|s| Some(self.symbol(s))).unwrap_or(UNBOUND_SIZE).max(0) as f64
    }

    fn constant(&self, value: i64) -> f64 {
        value as f64
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn mul(&self, a: &f64, b: &f64) -> f64 {
        a * b
    }
}

impl<'a> CostModel<'a> {
    /// A model of this device, no symbol bound.
    pub fn new(profile: &'a Profile, symbols: &'a SymbolTable) -> Self {
        CostModel { profile, symbols, sizes: &NO_SIZES, custom: &[] }
    }

    /// A model of the built-in profile `generic`, to rank alternatives without a target.
    pub fn generic(symbols: &'a SymbolTable) -> Self {
        CostModel::new(Profile::generic(), symbols)
    }

    /// A model of device number `device` of a target, with its bound symbols and the user's own models; `generic` if it
    /// has no such device.
    pub fn of_target(target: &'a Target, device: usize, symbols: &'a SymbolTable) -> Self {
        let profile = target.topology.devices().get(device).map_or(Profile::generic(), |d| &d.profile);
        let own = target.costs.as_ref().and_then(|c| c.get::<OwnModels>()).map_or(&[][..], |m| &m.0);
        CostModel { sizes: &target.sizes, custom: own, ..CostModel::new(profile, symbols) }
    }

    /// The same model with these symbols bound.
    #[must_use]
    pub fn with_sizes(self, sizes: &'a BTreeMap<String, i64>) -> Self {
        CostModel { sizes, ..self }
    }

    /// The same model, asking these first.
    #[must_use]
    pub fn with_custom(self, custom: &'a [Arc<dyn OpCost>]) -> Self {
        CostModel { custom, ..self }
    }

    /// The same model on another device.
    #[must_use]
    pub fn on(self, profile: &'a Profile) -> Self {
        CostModel { profile, ..self }
    }

    /// The value of a symbol: as bound, else [`UNBOUND_SIZE`] within its declared range.
    pub fn symbol(&self, symbol: &djinn_ir::Symbol) -> i64 {
        if let Some(bound) = self.sizes.get(symbol.name()) {
            return *bound;
        }
        let info = self.symbols.info(symbol);
        UNBOUND_SIZE.max(info.min).min(info.max.unwrap_or(i64::MAX))
    }

    /// Bytes of a value.
    pub fn bytes(&self, ty: &TensorType) -> f64 {
        Sizes::bytes(self, ty)
    }

    /// What an operation asks for.
    pub fn work(
        &self,
        kind: OpKind,
        attrs: &Attrs,
        operands: &[&TensorType],
        results: &[TensorType],
    ) -> Work<f64> {
        work(self, kind, attrs, operands, results)
    }

    /// Multiply-accumulate operations of an operation; 0 for all other work.
    pub fn flops(&self, kind: OpKind, operands: &[&TensorType], results: &[TensorType]) -> f64 {
        flops(self, kind, operands, results)
    }

    /// Seconds of one operation. `ahead` says that it depends on weights only and is computed once, before any run.
    pub fn op(&self, kind: OpKind, operands: &[&TensorType], results: &[TensorType], ahead: bool) -> f64 {
        self.op_with(kind, &Attrs::new(), operands, results, ahead)
    }

    /// Seconds of one operation with its attributes, regions not counted.
    pub fn op_with(
        &self,
        kind: OpKind,
        attrs: &Attrs,
        operands: &[&TensorType],
        results: &[TensorType],
        ahead: bool,
    ) -> f64 {
        if ahead {
            let written: f64 = results.iter().map(|t| self.bytes(t)).sum();
            return (written + 64.0) * AHEAD_OF_TIME_PER_BYTE;
        }
        let work = self.work(kind, attrs, operands, results);
        if !self.custom.is_empty() {
            let query = OpQuery { kind, attrs, operands, results, profile: self.profile, work: &work };
            if let Some(seconds) = query.ask(self.custom) {
                return seconds;
            }
        }
        work.seconds(self.profile, kind, operands.first().map(|t| t.dtype))
    }

    /// Seconds of one operation of a graph, regions included; callees of a `call` are not.
    ///
    /// A loop counts its region once per trip: the trip count is that of a constant operand, or [`UNBOUND_SIZE`] if it is not
    /// known or no bound.
    /// An `if` counts the dearer of its regions.
    pub fn graph_op(&self, graph: &Graph, id: OpId, ahead: bool) -> f64 {
        graph.get_op(id).map_or(0.0, |op| self.op_of(graph, op, ahead))
    }

    pub(crate) fn op_of(&self, graph: &Graph, op: &Op, ahead: bool) -> f64 {
        let operands: Vec<&TensorType> = op.operands.iter().map(|v| graph.ty(*v)).collect();
        let results: Vec<TensorType> = op.results.iter().map(|v| graph.ty(*v).clone()).collect();
        let own = self.op_with(op.kind, &op.attrs, &operands, &results, ahead);
        if op.regions.is_empty() {
            return own;
        }
        let regions = op.regions.iter().map(|r| self.graph(r));
        let inside = match op.kind {
            OpKind::Loop => regions.sum::<f64>() * self.trips(graph, op),
            OpKind::If => regions.fold(0.0, f64::max),
            _ => regions.sum(),
        };
        own + inside
    }

    /// Seconds of all operations of a graph one after the other, regions included; callees are not.
    pub fn graph(&self, graph: &Graph) -> f64 {
        let ahead = walk::ahead_of_time(graph, |_| false);
        let is_ahead = |op: &Op| op.results.first().is_some_and(|v| ahead[v.0 as usize]);
        graph.ops().map(|(_, op)| self.op_of(graph, op, is_ahead(op))).sum()
    }

    /// Seconds of the transfer of a value over a route.
    pub fn transfer(&self, ty: &TensorType, route: &Route) -> f64 {
        // The cast saturates.
        route.seconds(self.bytes(ty) as u64)
    }

    fn trips(&self, graph: &Graph, op: &Op) -> f64 {
        let known = |v: &ValueId| {
            let (source, _) = graph.definition(*v)?;
            let source = graph.get_op(source)?;
            match source.kind {
                OpKind::Constant => {
                    let value = djinn_ir::SymbolicValue::from_data(source.attrs.tensor("value")?)?;
                    let trips = value.as_scalar()?.as_const()?.max(0);
                    // Loops that only their condition ends are written with the largest number (ONNX, `Loop`).
                    (trips < i64::from(i32::MAX)).then_some(trips as f64)
                }
                OpKind::DimExpr => source.attrs.dims("exprs").first().map(|d| self.size(d)),
                _ => None,
            }
        };
        op.operands.first().and_then(known).unwrap_or(UNBOUND_SIZE as f64)
    }
}

impl Work<f64> {
    /// Seconds of this work as one kernel for operation `kind`; `dtype` of the first operand is the precision.
    pub fn seconds(&self, profile: &Profile, kind: OpKind, dtype: Option<DType>) -> f64 {
        let Some(class) = op_class(kind) else {
            let own = profile.ops.get(kind.name()).map_or(0.0, |rates| rates.overhead_seconds);
            return profile.launch_seconds * self.launches + own;
        };
        let rates = profile.rates(kind.name(), class);
        self.floor(profile, rates, dtype) + extra(profile, rates, self)
    }

    /// Launch and roofline.
    pub(crate) fn floor(&self, profile: &Profile, rates: &Rates, dtype: Option<DType>) -> f64 {
        let launch = profile.launch_seconds * self.launches;
        if !profile.roofline {
            return launch;
        }
        // Only multiply-accumulate work has a precision of its own.
        let peak = match dtype {
            Some(dtype) if self.flops > 0.0 => profile.peaks.of(precision(dtype)),
            _ => 1.0,
        };
        let traffic = (self.bytes_read + self.bytes_written) / (profile.memory_bandwidth * rates.memory);
        let busy = (self.flops / (peak * rates.compute)).max(traffic * self.passes);
        launch + busy
    }
}

/// Seconds on top of launch and roofline.
pub(crate) fn extra(profile: &Profile, rates: &Rates, work: &Work<f64>) -> f64 {
    rates.overhead_seconds
        + rates.per_element * work.elements
        + rates.per_flop * work.flops
        + rates.per_byte * (work.bytes_read + work.bytes_written)
        + profile.half_seconds_per_byte * work.half_bytes
}
