//! Optimisation profiles: the sizes that an engine is built for.

use crate::region::Region;
use djinn_diag::{Result, unsupported};
use djinn_ir::{Dim, Symbol};
use std::collections::BTreeMap;

/// Smallest, usual and largest sizes of the symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    sizes: BTreeMap<String, [i64; 3]>,
}

impl Profile {
    /// Prefill runs at its largest sizes as a rule; the cache of a decoding step grows from nothing to its largest, so the
    /// middle is the usual size there.
    pub(crate) fn of(region: &Region) -> Profile {
        let decodes = region.phase.as_deref().is_some_and(|p| p.contains("decode"));
        let usual = |min: i64, max: i64| if decodes { min + (max - min) / 2 } else { max };
        let sizes = region.symbols.iter().map(|s| (s.name.clone(), [s.min, usual(s.min, s.max), s.max]));
        Profile { sizes: sizes.collect() }
    }

    /// Smallest, usual and largest size of every axis.
    ///
    /// # Errors
    /// `tensorrt.profile` for a size that does not grow with its symbols: its extremes are at no corner.
    pub(crate) fn dims(&self, shape: &[Dim]) -> Result<[Vec<i64>; 3]> {
        let mut out = [Vec::new(), Vec::new(), Vec::new()];
        for dim in shape {
            let at = |which: usize| {
                let size = |s: &Symbol| self.sizes.get(s.name()).map(|sizes| sizes[which]);
                let value = dim.eval(&size);
                value.ok_or_else(|| unsupported("tensorrt.profile", format!("the size {dim} is not bounded")))
            };
            let [low, usual, high] = [at(0)?, at(1)?, at(2)?];
            if low < 0 || !(low <= usual && usual <= high) {
                let message = format!("the size {dim} does not grow with its symbols");
                return Err(unsupported("tensorrt.profile", message));
            }
            out.iter_mut().zip([low, usual, high]).for_each(|(sizes, size)| sizes.push(size));
        }
        Ok(out)
    }
}
