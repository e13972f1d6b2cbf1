//! Sizes in bytes for a range of symbol values.

use djinn_diag::{Result, input, unsupported};
use djinn_ir::{Dim, SymbolTable, TensorType};

/// Largest number of bytes that values of this type have at any sizes that the symbols admit.
///
/// # Errors
/// `plan.unbound` for sizes without an upper bound, `plan.size` for sizes out of reach.
pub(crate) fn max_bytes(ty: &TensorType, symbols: &SymbolTable) -> Result<u64> {
    let mut bytes = ty.dtype.size() as u64;
    for dim in &ty.shape {
        let size = max_size(dim, symbols)?;
        bytes = bytes.checked_mul(size).ok_or_else(|| {
            unsupported("plan.size", format!("a value of type {ty} has more bytes than fit 64 bits"))
        })?;
    }
    Ok(bytes)
}

/// Largest value of a size; negative ones count as 0.
pub(crate) fn max_size(dim: &Dim, symbols: &SymbolTable) -> Result<u64> {
    if let Some(c) = dim.as_const() {
        return Ok(u64::try_from(c).unwrap_or(0));
    }
    match dim.bounds(symbols).1 {
        Some(high) => Ok(u64::try_from(high).unwrap_or(0)),
        None => Err(unbound(dim, symbols)),
    }
}

fn unbound(dim: &Dim, symbols: &SymbolTable) -> Box<djinn_diag::Diagnostic> {
    let mut open = Vec::new();
    dim.visit_symbols(&mut |s| {
        if symbols.info(s).max.is_none() && !open.contains(&s.name().to_owned()) {
            open.push(s.name().to_owned());
        }
    });
    let Some(first) = open.first() else {
        return unsupported("plan.size", format!("the size {dim} has no bound that fits 64 bits"));
    };
    input("plan.unbound", format!("the size {dim} is not known: nothing bounds {}", open.join(", ")))
        .help(format!("bind it: --bind {first}=128 for one size, --bind {first}=1..2048 for a range"))
}
