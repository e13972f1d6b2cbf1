//! Symbolic sizes: sympy's `srepr` spelling, and the guards that refine what is known of a symbol.

use djinn_diag::{Result, input, unsupported};
use djinn_ir::Dim;

/// Nesting of one expression, at most.
const MAX_DEPTH: usize = 64;
/// Exponent of a power, at most.
const MAX_EXPONENT: i64 = 16;

/// A rational expression; only the whole of it has to be an integer.
#[derive(Debug, Clone)]
struct Fraction {
    num: Dim,
    den: Dim,
}

impl Fraction {
    fn whole(num: Dim) -> Self {
        Fraction { num, den: Dim::ONE }
    }

    fn floor(&self) -> Dim {
        self.num.floor_div(&self.den)
    }

    fn ceil(&self) -> Dim {
        self.num.ceil_div(&self.den)
    }

    fn add(&self, other: &Fraction) -> Fraction {
        let num = &(&self.num * &other.den) + &(&other.num * &self.den);
        Fraction { num, den: &self.den * &other.den }
    }

    fn mul(&self, other: &Fraction) -> Fraction {
        Fraction { num: &self.num * &other.num, den: &self.den * &other.den }
    }

    fn over(&self, other: &Fraction) -> Fraction {
        Fraction { num: &self.num * &other.den, den: &self.den * &other.num }
    }
}

/// Reads an integer expression such as `Add(Symbol('s0', positive=True, integer=True), Integer(1))`.
///
/// # Errors
/// Malformed text is an input error, a function without an integer meaning here is unsupported.
pub(crate) fn parse(text: &str) -> Result<Dim> {
    let mut parser = Parser { text, pos: 0 };
    let value = parser.expression(0)?;
    parser.skip_space();
    if parser.pos != text.len() {
        return Err(parser.error("unexpected text after the expression"));
    }
    integer(&value, text)
}

fn integer(value: &Fraction, text: &str) -> Result<Dim> {
    if value.den.is(1) {
        return Ok(value.num.clone());
    }
    value.num.exact_div(&value.den).ok_or_else(|| {
        unsupported("pt2.symbol", format!("the size expression '{text}' is not a whole number"))
            .help("export the model with sizes that are polynomials, floor divisions, minima or maxima")
    })
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, what: &str) -> Box<djinn_diag::Diagnostic> {
        input("pt2.symbol", format!("{what} at byte {} of the size expression '{}'", self.pos, self.text))
            .help("the file is damaged or written by an unknown exporter: export the model again")
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        self.pos += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, c: char) -> bool {
        self.skip_space();
        let hit = self.rest().starts_with(c);
        self.pos += if hit { c.len_utf8() } else { 0 };
        hit
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let len = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.pos += len;
        &rest[..len]
    }

    fn int(&mut self) -> Result<i64> {
        let negative = self.eat('-');
        let digits = self.take_while(|c| c.is_ascii_digit());
        let value: i64 = digits.parse().map_err(|_| self.error("expected an integer"))?;
        Ok(if negative { -value } else { value })
    }

    fn expression(&mut self, depth: usize) -> Result<Fraction> {
        if depth > MAX_DEPTH {
            return Err(self.error("the expression is nested too deeply"));
        }
        let name = self.take_while(|c| c.is_alphanumeric() || c == '_' || c == '.');
        let name = name.rsplit('.').next().unwrap_or(name);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error("expected a function"));
        }
        if !self.eat('(') {
            return match name {
                "One" => Ok(Fraction::whole(Dim::ONE)),
                "Zero" => Ok(Fraction::whole(Dim::ZERO)),
                "NegativeOne" => Ok(Fraction::whole(Dim::from(-1i64))),
                _ => Err(self.error("expected '('")),
            };
        }
        match name {
            "Symbol" => self.symbol(),
            "Integer" => {
                let v = self.int()?;
                self.close()?;
                Ok(Fraction::whole(Dim::from(v)))
            }
            "Rational" => {
                let num = Dim::from(self.int()?);
                if !self.eat(',') {
                    return Err(self.error("expected ','"));
                }
                let den = self.int()?;
                self.close()?;
                if den == 0 {
                    Err(self.error("division by zero"))
                } else {
                    Ok(Fraction { num, den: Dim::from(den) })
                }
            }
            _ => {
                let args = self.arguments(depth)?;
                self.apply(name, &args)
            }
        }
    }

    fn close(&mut self) -> Result<()> {
        if self.eat(')') { Ok(()) } else { Err(self.error("expected ')'")) }
    }

    fn symbol(&mut self) -> Result<Fraction> {
        if !self.eat('\'') {
            return Err(self.error("expected a symbol name"));
        }
        let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
        if name.is_empty() || !self.eat('\'') {
            return Err(self.error("expected a symbol name"));
        }
        while self.eat(',') {
            self.take_while(|c| c.is_alphanumeric() || c == '_' || c == '=');
        }
        self.close()?;
        Ok(Fraction::whole(Dim::symbol(name)))
    }

    fn arguments(&mut self, depth: usize) -> Result<Vec<Fraction>> {
        let mut args = Vec::new();
        while !self.eat(')') {
            if !args.is_empty() && !self.eat(',') {
                return Err(self.error("expected ','"));
            }
            args.push(self.expression(depth + 1)?);
        }
        Ok(args)
    }

    fn apply(&self, name: &str, args: &[Fraction]) -> Result<Fraction> {
        let whole = |f: &Fraction| integer(f, self.text);
        let fold = |step: fn(&Dim, &Dim) -> Dim| -> Result<Fraction> {
            let dims: Vec<Dim> = args.iter().map(whole).collect::<Result<_>>()?;
            dims.into_iter()
                .reduce(|a, b| step(&a, &b))
                .map(Fraction::whole)
                .ok_or_else(|| self.error("no arguments"))
        };
        let checked = match (name, args) {
            ("Add", [first, rest @ ..]) => rest.iter().fold(first.clone(), |a, b| a.add(b)),
            ("Mul", [first, rest @ ..]) => rest.iter().fold(first.clone(), |a, b| a.mul(b)),
            ("Pow", [base, exponent]) => self.power(base, &whole(exponent)?)?,
            ("Max", [_, ..]) => fold(Dim::max_of)?,
            ("Min", [_, ..]) => fold(Dim::min_of)?,
            ("floor" | "FloorToInt" | "TruncToInt", [a]) => Fraction::whole(a.floor()),
            ("ceiling" | "CeilToInt", [a]) => Fraction::whole(a.ceil()),
            ("FloorDiv" | "CleanDiv", [a, b]) => Fraction::whole(a.over(b).floor()),
            ("CeilDiv", [a, b]) => Fraction::whole(a.over(b).ceil()),
            ("IntTrueDiv" | "FloatTrueDiv", [a, b]) => a.over(b),
            ("Mod" | "PythonMod", [a, b]) => Fraction::whole(whole(a)?.modulo(&whole(b)?)),
            ("ModularIndexing", [a, b, c]) => Fraction::whole(a.over(b).floor().modulo(&whole(c)?)),
            ("Identity" | "ToFloat", [a]) => a.clone(),
            _ => {
                let message =
                    format!("the size expression '{}' uses {name} with {} arguments", self.text, args.len());
                return Err(unsupported("pt2.symbol", message).help(
                    "export the model with sizes that are polynomials, floor divisions, minima or maxima",
                ));
            }
        };
        if checked.num.is_overflow() || checked.den.is_overflow() || checked.den.is(0) {
            return Err(self.error("arithmetic overflows or divides by zero"));
        }
        Ok(checked)
    }

    fn power(&self, base: &Fraction, exponent: &Dim) -> Result<Fraction> {
        let exponent = exponent.as_const().filter(|e| e.abs() <= MAX_EXPONENT);
        let exponent = exponent.ok_or_else(|| self.error("an exponent is not a small constant"))?;
        let mut out = Fraction::whole(Dim::ONE);
        for _ in 0..exponent.abs() {
            out = if exponent > 0 { out.mul(base) } else { out.over(base) };
        }
        Ok(out)
    }
}

/// A guard that says `input.size()[axis]` is a multiple of `divisor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Divisibility {
    /// The input's name in the graph.
    pub(crate) input: String,
    /// The axis.
    pub(crate) axis: usize,
    /// The divisor, at least 2.
    pub(crate) divisor: i64,
}

/// Reads the forms `L['x'].size()[0] % 8 == 0`, `Mod(L['x'].size()[0], 8) == 0` and `Eq(Mod(…, 8), 0)`; others give `None`.
pub(crate) fn divisibility(guard: &str) -> Option<Divisibility> {
    let text: String = guard.chars().filter(|c| !c.is_whitespace()).collect();
    let condition = match text.strip_prefix("Eq(") {
        Some(inner) => inner.strip_suffix(",0)")?.to_string(),
        None => match text.strip_suffix("==0") {
            Some(left) => left.to_string(),
            None => text.strip_prefix("0==")?.to_string(),
        },
    };
    let (place, divisor) = match condition.strip_prefix("Mod(") {
        Some(inner) => inner.strip_suffix(')')?.rsplit_once(',')?,
        None => condition.trim_start_matches('(').trim_end_matches(')').rsplit_once('%')?,
    };
    let divisor: i64 = divisor.parse().ok().filter(|d| *d >= 2)?;
    let (path, axis) = place.strip_prefix("L[")?.split_once("].size()[")?;
    let axis = axis.strip_suffix(']')?.parse().ok()?;
    let parts: Vec<&str> = path.split("][").map(|p| p.trim_matches('\'')).collect();
    if parts.iter().any(|p| p.is_empty() || !p.chars().all(|c| c.is_alphanumeric() || c == '_')) {
        return None;
    }
    Some(Divisibility { input: parts.join("_"), axis, divisor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dim(text: &str) -> std::result::Result<String, String> {
        parse(text).map(|d| d.to_string()).map_err(|e| e.code)
    }

    const S0: &str = "Symbol('s0', positive=True, integer=True)";

    #[test]
    fn polynomials_and_divisions() {
        assert_eq!(dim(&format!("Add({S0}, Integer(1))")), Ok("s0 + 1".into()));
        assert_eq!(dim(&format!("Pow({S0}, Integer(2))")), Ok("s0*s0".into()));
        assert_eq!(
            dim(&format!("Mul(Integer(4), Pow({S0}, Integer(2)), Pow({S0}, Integer(-1)))")),
            Ok("4*s0".into())
        );
        assert_eq!(dim(&format!("FloorDiv({S0}, Integer(2))")), Ok("floordiv(s0, 2)".into()));
        assert_eq!(dim(&format!("floor(Mul(Rational(1, 2), {S0}))")), Ok("floordiv(s0, 2)".into()));
        assert_eq!(dim(&format!("Min(Integer(48), Mul(Integer(48), {S0}))")), Ok("min(48, 48*s0)".into()));
        assert_eq!(dim("CeilDiv(Integer(7), Integer(2))"), Ok("4".into()));
    }

    #[test]
    fn damage_is_reported() {
        for bad in [
            "",
            "Add(",
            "Symbol(s0)",
            "Integer(99999999999999999999)",
            "Integer(1) x",
            "Rational(1, 0)",
            "Add()",
        ] {
            assert!(dim(bad).is_err(), "{bad}");
        }
        assert_eq!(dim(&format!("Pow({S0}, Integer(1000))")), Err("pt2.symbol".into()));
        assert!(dim(&"Add(".repeat(100_000)).is_err());
        assert!(dim(&format!("Mul(Rational(1, 2), {S0})")).is_err());
        assert!(dim("FloorDiv(Integer(1), Integer(0))").is_err());
    }

    #[test]
    fn guards_give_divisors() {
        let want = Some(Divisibility { input: "past_0_1".into(), axis: 2, divisor: 8 });
        assert_eq!(divisibility("L['past'][0][1].size()[2] % 8 == 0"), want);
        assert_eq!(divisibility("Eq(Mod(L['past'][0][1].size()[2], 8), 0)"), want);
        assert_eq!(divisibility("0 == (L['past'][0][1].size()[2] % 8)"), want);
        assert_eq!(divisibility("L['x'].size()[0] <= 4"), None);
    }
}
