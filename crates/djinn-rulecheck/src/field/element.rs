//! Elements of the pair of finite fields in which both sides of a rule are compared.
//!
//! After Wu et al., "Mirage: A Multi-Level Superoptimizer for Tensor Programs" (OSDI 2025): a value is a pair of
//! its residue modulo p and, as long as it may stand in an exponent, modulo q, where q divides p − 1. The
//! exponential takes the exponent modulo q to ωˣ modulo p, where ω has order q, so that eˣ⁺ʸ = eˣ·eʸ holds.
//! Agreement of random elements proves the identity of two such expressions with high probability
//! (Schwartz and Zippel).

use crate::rng::scatter;

/// The base field: p = 2q + 1.
pub(crate) const P: u64 = 2_147_483_579;
/// The field of exponents.
pub(crate) const Q: u64 = 1_073_741_789;
/// An element of order q modulo p: a square other than 1.
const OMEGA: u64 = 4;

/// A value modulo p and, unless an exponential has been taken, modulo q.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) p: u64,
    pub(crate) q: Option<u64>,
}

fn power(base: u64, exponent: u64, modulus: u64) -> u64 {
    let (mut result, mut square, mut rest) = (1u64, base % modulus, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result * square % modulus;
        }
        square = square * square % modulus;
        rest >>= 1;
    }
    result
}

fn inverse(value: u64, modulus: u64) -> Option<u64> {
    (value != 0).then(|| power(value, modulus - 2, modulus))
}

impl Element {
    /// The image of an integer.
    pub(crate) fn int(value: i64) -> Element {
        let residue = |m: u64| i128::from(value).rem_euclid(i128::from(m)) as u64;
        Element { p: residue(P), q: Some(residue(Q)) }
    }

    /// A random element.
    pub(crate) fn random(seed: u64) -> Element {
        Element { p: scatter(seed) % P, q: Some(scatter(!seed) % Q) }
    }

    fn zip(self, other: Element, f: impl Fn(u64, u64, u64) -> u64) -> Element {
        let q = self.q.zip(other.q).map(|(a, b)| f(a, b, Q));
        Element { p: f(self.p, other.p, P), q }
    }

    pub(crate) fn add(self, other: Element) -> Element {
        self.zip(other, |a, b, m| (a + b) % m)
    }

    pub(crate) fn sub(self, other: Element) -> Element {
        self.zip(other, |a, b, m| (a + m - b) % m)
    }

    pub(crate) fn mul(self, other: Element) -> Element {
        self.zip(other, |a, b, m| a * b % m)
    }

    /// The quotient; `None` where the divisor is zero in one of the fields.
    pub(crate) fn div(self, other: Element) -> Option<Element> {
        let inverted = Element {
            p: inverse(other.p, P)?,
            q: other.q.map(|q| inverse(q, Q).ok_or(())).transpose().ok()?,
        };
        Some(self.mul(inverted))
    }

    /// The exponential; `None` if the value itself stems from one.
    pub(crate) fn exp(self) -> Option<Element> {
        Some(Element { p: power(OMEGA, self.q?, P), q: None })
    }

    /// An uninterpreted function: random, but the same for the same name and arguments.
    pub(crate) fn opaque(name: &str, seed: u64, arguments: &[Element]) -> Element {
        let mut h = name.bytes().fold(scatter(seed), |h, b| scatter(h ^ u64::from(b)));
        for a in arguments {
            h = scatter(h ^ a.p);
            h = scatter(h ^ a.q.map_or(u64::MAX, |q| q));
        }
        Element::random(h)
    }

    /// The image of a finite float: of the fraction that it is nearest to if that is a simple one, else of its exact
    /// value. Constants of rules such as 0.1 thus stand for what their author meant.
    pub(crate) fn float(value: f64) -> Option<Element> {
        if !value.is_finite() {
            return None;
        }
        if let Some((n, d)) = simple_fraction(value) {
            return Element::int(n).div(Element::int(d));
        }
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i64;
        let fraction = (bits & ((1 << 52) - 1)) as i64;
        let (mantissa, exponent) =
            if exponent == 0 { (fraction, -1074) } else { (fraction | (1 << 52), exponent - 1075) };
        let magnitude = Element::int(mantissa);
        let scale = (0..exponent.abs()).fold(Element::int(1), |e, _| e.mul(Element::int(2)));
        let magnitude = if exponent < 0 { magnitude.div(scale)? } else { magnitude.mul(scale) };
        Some(if value < 0.0 { Element::int(0).sub(magnitude) } else { magnitude })
    }
}

/// Largest denominator of a simple fraction.
const MAX_DENOMINATOR: f64 = 100_000.0;

/// The fraction with a small denominator that differs from `value` by rounding only, by continued fractions.
fn simple_fraction(value: f64) -> Option<(i64, i64)> {
    let (mut h0, mut h1, mut k0, mut k1) = (0.0, 1.0, 1.0, 0.0);
    let mut rest = value;
    for _ in 0..24 {
        let a = rest.floor();
        (h0, h1) = (h1, a * h1 + h0);
        (k0, k1) = (k1, a * k1 + k0);
        if k1 > MAX_DENOMINATOR || h1.abs() > 1e15 {
            return None;
        }
        if (h1 / k1 - value).abs() <= 4.0 * f64::EPSILON * value.abs() {
            return Some((h1 as i64, k1 as i64));
        }
        rest = 1.0 / (rest - a);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_prime(n: u64) -> bool {
        n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
    }

    #[test]
    fn the_fields_are_a_safe_prime_pair() {
        assert!(is_prime(P) && is_prime(Q));
        assert_eq!(P, 2 * Q + 1);
        assert_eq!(power(OMEGA, Q, P), 1);
    }

    #[test]
    fn exponentials_turn_sums_into_products() {
        let (a, b) = (Element::random(1), Element::random(2));
        assert_eq!(a.add(b).exp(), a.exp().zip(b.exp()).map(|(x, y)| x.mul(y)));
        assert_eq!(a.exp().and_then(Element::exp), None);
    }

    #[test]
    fn floats_are_the_fractions_that_they_stand_for() {
        let third = Element::float(1.0 / 3.0).expect("finite");
        assert_eq!(third.mul(Element::int(3)), Element::int(1));
        let sum = Element::float(0.1).zip(Element::float(0.2)).map(|(a, b)| a.add(b));
        assert_eq!(sum, Element::float(0.3));
        assert_eq!(Element::float(-2.5).map(|e| e.mul(Element::int(2))), Some(Element::int(-5)));
        assert_eq!(Element::float(f64::NAN), None);
    }
}
