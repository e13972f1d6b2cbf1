//! Random inputs for checks: small values of every type, the same for the same seed.

use djinn_ir::dim::SymbolTable;
use djinn_ir::{ArgumentKind, DType, Dim, Module, TensorData, TensorType};
use std::collections::BTreeMap;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// What an unbounded symbol is bound to, at least.
const SYMBOL_SIZE: i64 = 3;

/// Integers of random inputs are 0 or 1, so that they are valid indices of almost anything.
const INTEGER_VALUES: u64 = 2;

/// Inputs for every argument without an initial value.
pub fn inputs(module: &Module, function: &str, seed: u64) -> BTreeMap<String, TensorData> {
    inputs_within(module, function, seed, &|_| None)
}

/// [`inputs`] where symbols lie within further ranges: least and largest size by name.
pub fn inputs_within(
    module: &Module,
    function: &str,
    seed: u64,
    range: &dyn Fn(&str) -> Option<(i64, i64)>,
) -> BTreeMap<String, TensorData> {
    let mut symbols = module.symbols.clone();
    for symbol in djinn_ir::walk::symbols(module) {
        if let Some((least, most)) = range(symbol.name()) {
            let info = symbols.0.entry(symbol).or_default();
            info.min = info.min.max(least);
            info.max = Some(info.max.unwrap_or(most).min(most));
        }
    }
    let mut random = SplitMix(seed);
    let mut out = BTreeMap::new();
    let Some(f) = module.function(function) else { return out };
    for (i, (name, kind)) in f.arguments.iter().enumerate() {
        if !matches!(kind, ArgumentKind::Input | ArgumentKind::State { initial: None }) {
            continue;
        }
        let ty = f.graph.ty(f.graph.arguments[i]);
        if let Some(t) = tensor(ty, &symbols, &mut random) {
            out.insert(name.to_string(), t);
        }
    }
    out
}

fn size(d: &Dim, symbols: &SymbolTable) -> Option<usize> {
    let value = d.eval(&|s| {
        let info = symbols.info(s);
        let v = SYMBOL_SIZE.max(info.min).min(info.max.unwrap_or(i64::MAX));
        Some(v.div_euclid(info.divisor.max(1)).max(1) * info.divisor.max(1))
    });
    usize::try_from(value?).ok()
}

fn tensor(ty: &TensorType, symbols: &SymbolTable, random: &mut SplitMix) -> Option<TensorData> {
    let shape: Vec<usize> = ty.shape.iter().map(|d| size(d, symbols)).collect::<Option<_>>()?;
    let count = djinn_ir::data::numel(&shape)?;
    let mut bytes = Vec::new();
    for _ in 0..count {
        let value = match ty.dtype {
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => random.unit(),
            _ => (random.next() % INTEGER_VALUES) as f64,
        };
        bytes.extend(djinn_ir::data::encode_f64(ty.dtype, value));
    }
    TensorData::new(ty.dtype, shape, bytes)
}
