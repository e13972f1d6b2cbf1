//! Values of symbols, and how they follow from concrete shapes.

use djinn_diag::{Result, input};
use djinn_ir::{Attr, Attrs, Dim, Symbol, SymbolTable, TensorType};
use std::collections::{BTreeMap, BTreeSet};

/// The values of symbols.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env {
    values: BTreeMap<Symbol, i64>,
    /// Regions around what is being evaluated.
    pub(crate) depth: usize,
}

/// A declared type, the concrete shape it met, and a name for messages (`argument 'x'`).
pub(crate) struct Binding<'a> {
    pub(crate) what: &'a str,
    pub(crate) ty: &'a TensorType,
    pub(crate) shape: &'a [usize],
}

impl Env {
    /// No symbol has a value.
    pub fn new() -> Self {
        Env::default()
    }

    /// The value of a symbol.
    pub fn get(&self, symbol: &Symbol) -> Option<i64> {
        self.values.get(symbol).copied()
    }

    /// Gives a symbol a value, whatever it was before.
    pub fn set(&mut self, symbol: Symbol, value: i64) {
        self.values.insert(symbol, value);
    }

    /// Symbols that have a value, sorted, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&Symbol, i64)> {
        self.values.iter().map(|(s, v)| (s, *v))
    }

    /// The value of a size; `None` if a symbol has no value or the arithmetic leaves `i64`.
    pub fn eval(&self, dim: &Dim) -> Option<i64> {
        dim.as_const().or_else(|| dim.eval(&|s| self.get(s)))
    }

    /// The concrete shape of a type.
    ///
    /// # Errors
    /// `interp.symbol` if a size has no value or is negative.
    pub fn shape(&self, ty: &TensorType) -> Result<Vec<usize>> {
        let size = |d: &Dim| self.eval(d).and_then(|v| usize::try_from(v).ok()).ok_or_else(|| no_value(d));
        ty.shape.iter().map(size).collect()
    }

    /// Solves the sizes of `ty` for symbols without a value, such that they become `shape`; checks all others.
    ///
    /// A size that is one unknown symbol, or linear in one (`2*s + 1`), gives the symbol its value. Sizes that
    /// cannot be solved are left unchecked. `what` names the value in messages, as in `argument 'x'`.
    ///
    /// # Errors
    /// `interp.input` if the shape contradicts the type.
    pub fn bind_shape(&mut self, what: &str, ty: &TensorType, shape: &[usize]) -> Result<()> {
        self.bind_all(&[Binding { what, ty, shape }])
    }

    /// [`Env::bind_shape`] for several values whose types share symbols.
    pub(crate) fn bind_all(&mut self, bindings: &[Binding]) -> Result<()> {
        for b in bindings {
            if b.ty.rank() != b.shape.len() {
                return Err(self.mismatch(b));
            }
        }
        let mut progress = true;
        while progress {
            progress = false;
            for b in bindings {
                for (dim, size) in b.ty.shape.iter().zip(b.shape) {
                    progress |= self.solve(dim, *size).map_err(|()| self.mismatch(b))?;
                }
            }
        }
        for b in bindings {
            let differs = |(d, n): (&Dim, &usize)| self.eval(d).is_some_and(|v| usize::try_from(v) != Ok(*n));
            if b.ty.shape.iter().zip(b.shape).any(differs) {
                return Err(self.mismatch(b));
            }
        }
        Ok(())
    }

    /// Gives the only unknown symbol of `dim` a value if `dim` is linear in it; `Err` if no value fits.
    fn solve(&mut self, dim: &Dim, size: usize) -> std::result::Result<bool, ()> {
        if self.eval(dim).is_some() {
            return Ok(false);
        }
        let open = dim.substitute(&|s| self.get(s).map(Dim::from));
        let mut unknown = BTreeSet::new();
        open.visit_symbols(&mut |s| {
            unknown.insert(s.clone());
        });
        let Some(symbol) = unknown.pop_first().filter(|_| unknown.is_empty()) else { return Ok(false) };
        let at = |v: i64| open.eval(&|s| (*s == symbol).then_some(v));
        let Some(constant) = at(0) else { return Ok(false) };
        let slope = (&open - &Dim::from(constant)).exact_div(&Dim::symbol(symbol.name()));
        let Some(slope) = slope.and_then(|s| s.as_const()) else { return Ok(false) };
        let rest = i64::try_from(size).ok().and_then(|n| n.checked_sub(constant)).ok_or(())?;
        match rest.checked_rem(slope) {
            Some(0) if rest / slope >= 0 => {
                self.set(symbol, rest / slope);
                Ok(true)
            }
            _ => Err(()),
        }
    }

    fn mismatch(&self, b: &Binding) -> Box<djinn_diag::Diagnostic> {
        let declared: Vec<String> = b.ty.shape.iter().map(ToString::to_string).collect();
        let mut known = BTreeSet::new();
        for dim in &b.ty.shape {
            dim.visit_symbols(&mut |s| {
                if let Some(v) = self.get(s) {
                    known.insert(format!("{} = {v}", s.name()));
                }
            });
        }
        let known: Vec<String> = known.into_iter().collect();
        let known = if known.is_empty() { String::new() } else { format!(" where {}", known.join(", ")) };
        let declared = declared.join(", ");
        input(
            "interp.input",
            format!("shape of {} is {:?}, but its type says [{declared}]{known}", b.what, b.shape),
        )
    }

    /// Takes the values away from all symbols of a type.
    pub(crate) fn forget(&mut self, ty: &TensorType) {
        for dim in &ty.shape {
            dim.visit_symbols(&mut |s| {
                self.values.remove(s);
            });
        }
    }

    /// Checks the values against what the module promises of its symbols.
    pub(crate) fn check(&self, symbols: &SymbolTable) -> Result<()> {
        for (symbol, info) in &symbols.0 {
            let Some(v) = self.get(symbol) else { continue };
            let name = symbol.name();
            if v < info.min || info.max.is_some_and(|max| v > max) {
                let max = info.max.map_or("∞".to_owned(), |m| m.to_string());
                return Err(input(
                    "interp.input",
                    format!("size '{name}' is {v}, not within {}..={max}", info.min),
                ));
            }
            if info.divisor > 1 && v % info.divisor != 0 {
                let message = format!("size '{name}' is {v}, which is no multiple of {}", info.divisor);
                return Err(input("interp.input", message));
            }
        }
        Ok(())
    }

    /// The attributes with every size evaluated, but for `result_shape`, whose symbols may be fresh.
    pub(crate) fn concretize(&self, attrs: &Attrs) -> Result<Attrs> {
        let value = |d: &Dim| self.eval(d).map(Dim::from).ok_or_else(|| no_value(d));
        let mut out = attrs.clone();
        for (name, attr) in attrs.iter() {
            match attr {
                Attr::Dim(d) => out.set(name.to_owned(), value(d)?),
                Attr::Dims(dims) if name != "result_shape" => {
                    out.set(name.to_owned(), dims.iter().map(value).collect::<Result<Vec<Dim>>>()?);
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

fn no_value(dim: &Dim) -> Box<djinn_diag::Diagnostic> {
    input("interp.symbol", format!("the size {dim} has no value here"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_ir::{DType, SymbolInfo};

    fn ty(dims: &[&str]) -> TensorType {
        TensorType::new(DType::F32, dims.iter().map(|d| d.parse().expect("dimension")))
    }

    #[test]
    fn linear_sizes_are_solved_in_any_order() {
        let mut env = Env::new();
        env.bind_shape("argument 'x'", &ty(&["2*s + t", "t", "floordiv(s, 2)"]), &[9, 3, 1]).expect("fits");
        assert_eq!(env.get(&Symbol::new("s")), Some(3));
        assert_eq!(env.get(&Symbol::new("t")), Some(3));
        let e = env.bind_shape("argument 'y'", &ty(&["s + 1"]), &[5]).expect_err("s is 3");
        assert_eq!(e.message, "shape of argument 'y' is [5], but its type says [s + 1] where s = 3");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Env::new().bind_shape("x", &ty(&["2*s"]), &[3]).is_err());
        assert!(Env::new().bind_shape("x", &ty(&["s + 4"]), &[3]).is_err());
        assert!(Env::new().bind_shape("x", &ty(&["3"]), &[4]).is_err());
        assert!(Env::new().bind_shape("x", &ty(&["3"]), &[3, 1]).is_err());
        assert!(Env::new().bind_shape("x", &ty(&["s*t", "floordiv(s, 2)"]), &[3, 1]).is_ok());
    }

    #[test]
    fn promises_about_symbols_are_checked() {
        let mut env = Env::new();
        env.set(Symbol::new("s"), 6);
        let info =
            |min, max, divisor| SymbolTable([(Symbol::new("s"), SymbolInfo { min, max, divisor })].into());
        assert!(env.check(&info(1, Some(6), 3)).is_ok());
        assert!(env.check(&info(7, None, 1)).is_err());
        assert!(env.check(&info(0, Some(5), 1)).is_err());
        assert!(env.check(&info(0, None, 4)).is_err());
    }
}
