//! Functions of one float as polynomials, so that loops over them are vectorised and no library is needed on a GPU.
//!
//! The `f32` polynomials are those of Cephes (S. Moshier, netlib.org/cephes, files `single/expf.c`, `logf.c`, `sinf.c`,
//! `tanhf.c`); `erf` is the rational minimax approximation that XLA uses (`xla/hlo/builder/lib/math.cc`). Functions that
//! are rare in models are computed in `f64` and rounded.

use crate::dag::{Bin, Cmp, Conv, Dag, Id, Ty, Un};

/// Builds expressions of one float type.
pub(crate) struct Math<'a> {
    pub(crate) dag: &'a mut Dag,
    pub(crate) ty: Ty,
}

impl Math<'_> {
    pub(crate) fn c(&mut self, value: f64) -> Id {
        self.dag.float(self.ty, value)
    }

    pub(crate) fn add(&mut self, a: Id, b: Id) -> Id {
        self.dag.bin(Bin::AddFused, a, b)
    }

    pub(crate) fn sub(&mut self, a: Id, b: Id) -> Id {
        self.dag.bin(Bin::SubF, a, b)
    }

    pub(crate) fn mul(&mut self, a: Id, b: Id) -> Id {
        self.dag.bin(Bin::MulFused, a, b)
    }

    pub(crate) fn div(&mut self, a: Id, b: Id) -> Id {
        self.dag.bin(Bin::DivF, a, b)
    }

    pub(crate) fn less(&mut self, a: Id, b: Id) -> Id {
        self.dag.cmp(Cmp::FLt, a, b)
    }

    pub(crate) fn abs(&mut self, a: Id) -> Id {
        self.dag.un(Un::AbsF, a)
    }

    fn is_nan(&mut self, a: Id) -> Id {
        self.dag.cmp(Cmp::FNan, a, a)
    }

    /// Horner's scheme, highest coefficient first.
    fn poly(&mut self, x: Id, coefficients: &[f64]) -> Id {
        let mut sum = self.c(coefficients[0]);
        for c in &coefficients[1..] {
            let (product, c) = (self.mul(sum, x), self.c(*c));
            sum = self.add(product, c);
        }
        sum
    }

    /// `x` kept within bounds; NaN stays.
    fn within(&mut self, x: Id, low: f64, high: f64) -> Id {
        let (low, high) = (self.c(low), self.c(high));
        let below = self.less(x, low);
        let x = self.dag.select(below, low, x);
        let above = self.less(high, x);
        self.dag.select(above, high, x)
    }

    /// The integer type as wide as the float type.
    fn bits(&self) -> Ty {
        if self.ty == Ty::F32 { Ty::I32 } else { Ty::I64 }
    }

    /// Adding and subtracting 1.5·2^(mantissa bits) rounds to an integer, which the low bits of the sum hold.
    fn round_to_integer(&mut self, x: Id) -> (Id, Id) {
        let magic = self.c(if self.ty == Ty::F32 { 12_582_912.0 } else { 6_755_399_441_055_744.0 });
        let bits = self.bits();
        let sum = self.dag.bin(Bin::AddF, x, magic);
        let rounded = self.dag.bin(Bin::SubF, sum, magic);
        let (sum, zero) = (self.dag.conv(Conv::Bits, bits, sum), self.dag.conv(Conv::Bits, bits, magic));
        (rounded, self.dag.bin(Bin::Sub, sum, zero))
    }

    /// 2 to the n, for n within the range of normal exponents.
    fn power_of_two(&mut self, n: Id) -> Id {
        let bits = self.bits();
        let (bias, shift) = if self.ty == Ty::F32 { (127, 23) } else { (1023, 52) };
        let (bias, shift) = (self.dag.int(bits, bias), self.dag.int(bits, shift));
        let exponent = self.dag.bin(Bin::Add, n, bias);
        let exponent = self.dag.bin(Bin::Shl, exponent, shift);
        self.dag.conv(Conv::Bits, self.ty, exponent)
    }

    /// eˣ: x = n·ln 2 + r, then a polynomial in r (Cephes `expf.c`; Taylor's series for `f64`).
    pub(crate) fn exp(&mut self, x: Id) -> Id {
        let f32 = self.ty == Ty::F32;
        let x = if f32 { self.within(x, -104.0, 89.0) } else { self.within(x, -746.0, 710.0) };
        let per_ln2 = self.c(std::f64::consts::LOG2_E);
        let scaled = self.dag.bin(Bin::MulF, x, per_ln2);
        let (n, n_bits) = self.round_to_integer(scaled);
        let (high, low) = if f32 {
            (-0.693_359_375, 2.121_944_4e-4)
        } else {
            (-6.931_457_519_531_25e-1, -1.428_606_820_309_417_2e-6)
        };
        let (high, low) = (self.c(high), self.c(low));
        let part = self.mul(n, high);
        let r = self.add(x, part);
        let part = self.mul(n, low);
        let r = self.add(r, part);
        let y = if f32 {
            const P: [f64; 6] = [
                1.987_569_15e-4,
                1.398_199_950_7e-3,
                8.333_451_907_3e-3,
                4.166_579_589_4e-2,
                1.666_666_545_9e-1,
                5.000_000_120_1e-1,
            ];
            let (p, square) = (self.poly(r, &P), self.mul(r, r));
            let y = self.mul(p, square);
            let y = self.add(y, r);
            let one = self.c(1.0);
            self.add(y, one)
        } else {
            // 1/k! for k = 13, …, 0: |r| ≤ ½·ln 2.
            let mut factorials = vec![1.0f64];
            (1..=13).for_each(|k| factorials.push(factorials[k - 1] / k as f64));
            factorials.reverse();
            self.poly(r, &factorials)
        };
        // In two steps, since 2ⁿ itself may be too small or too large for a normal number.
        let one = self.dag.int(self.bits(), 1);
        let half = self.dag.bin(Bin::ShrS, n_bits, one);
        let other = self.dag.bin(Bin::Sub, n_bits, half);
        let (a, b) = (self.power_of_two(half), self.power_of_two(other));
        let y = self.mul(y, a);
        self.mul(y, b)
    }

    /// Mantissa in [√½, √2) and exponent of a positive number.
    fn split(&mut self, x: Id) -> (Id, Id) {
        let f32 = self.ty == Ty::F32;
        let bits = self.bits();
        let (smallest, up, up_exponent, width) = if f32 {
            (f64::from(f32::MIN_POSITIVE), 8_388_608.0, -23.0, 23)
        } else {
            (f64::MIN_POSITIVE, 4_503_599_627_370_496.0, -52.0, 52)
        };
        let (smallest, up, zero, up_exponent) =
            (self.c(smallest), self.c(up), self.c(0.0), self.c(up_exponent));
        let subnormal = self.less(x, smallest);
        let scaled = self.mul(x, up);
        let x = self.dag.select(subnormal, scaled, x);
        let offset = self.dag.select(subnormal, up_exponent, zero);
        let raw = self.dag.conv(Conv::Bits, bits, x);
        let (mask, half) =
            if f32 { (0x007f_ffff, 0x3f00_0000) } else { (0x000f_ffff_ffff_ffff, 0x3fe0_0000_0000_0000) };
        let (width, mask, half) =
            (self.dag.int(bits, width), self.dag.int(bits, mask), self.dag.int(bits, half));
        let bias = self.dag.int(bits, if f32 { 126 } else { 1022 });
        let exponent = self.dag.bin(Bin::ShrU, raw, width);
        let exponent = self.dag.bin(Bin::Sub, exponent, bias);
        let exponent = self.dag.conv(Conv::SignedToFloat, self.ty, exponent);
        let exponent = self.add(exponent, offset);
        let mantissa = self.dag.bin(Bin::And, raw, mask);
        let mantissa = self.dag.bin(Bin::Or, mantissa, half);
        let mantissa = self.dag.conv(Conv::Bits, self.ty, mantissa);
        let root = self.c(std::f64::consts::FRAC_1_SQRT_2);
        let small = self.less(mantissa, root);
        let (one, twice) = (self.c(1.0), self.add(mantissa, mantissa));
        let lower = self.sub(exponent, one);
        (self.dag.select(small, twice, mantissa), self.dag.select(small, lower, exponent))
    }

    /// Natural logarithm (Cephes `logf.c`; for `f64` the series of artanh).
    pub(crate) fn log(&mut self, x: Id) -> Id {
        let (m, e) = self.split(x);
        let one = self.c(1.0);
        let m1 = self.sub(m, one);
        let y = if self.ty == Ty::F32 { self.log_f32(m1, e) } else { self.log_f64(m, m1, e) };
        self.log_special(x, y)
    }

    fn log_f32(&mut self, m1: Id, e: Id) -> Id {
        const P: [f64; 9] = [
            7.037_683_629_2e-2,
            -1.151_461_031e-1,
            1.167_699_874e-1,
            -1.242_014_084_6e-1,
            1.424_932_278_7e-1,
            -1.666_805_766_5e-1,
            2.000_071_476_5e-1,
            -2.499_999_399_3e-1,
            3.333_333_117_4e-1,
        ];
        let z = self.mul(m1, m1);
        let y = self.poly(m1, &P);
        let y = self.mul(y, m1);
        let y = self.mul(y, z);
        let (low, high, half) = (self.c(-2.121_944_4e-4), self.c(0.693_359_375), self.c(-0.5));
        let part = self.mul(e, low);
        let y = self.add(y, part);
        let part = self.mul(z, half);
        let y = self.add(y, part);
        let y = self.add(m1, y);
        let part = self.mul(e, high);
        self.add(y, part)
    }

    fn log_f64(&mut self, m: Id, m1: Id, e: Id) -> Id {
        let one = self.c(1.0);
        let sum = self.add(m, one);
        let s = self.div(m1, sum);
        let z = self.mul(s, s);
        // 2/(2k + 1) for k = 11, …, 0: |s| ≤ 0.172.
        let series: Vec<f64> = (0..12).rev().map(|k| 2.0 / f64::from(2 * k + 1)).collect();
        let y = self.poly(z, &series);
        let y = self.mul(y, s);
        let ln2 = self.c(std::f64::consts::LN_2);
        let part = self.mul(e, ln2);
        self.add(part, y)
    }

    fn log_special(&mut self, x: Id, y: Id) -> Id {
        let (zero, lowest, infinity) = (self.c(0.0), self.c(f64::NEG_INFINITY), self.c(f64::INFINITY));
        let nan = self.c(f64::NAN);
        let is_zero = self.dag.cmp(Cmp::FEq, x, zero);
        let y = self.dag.select(is_zero, lowest, y);
        let negative = self.less(x, zero);
        let y = self.dag.select(negative, nan, y);
        let is_infinite = self.dag.cmp(Cmp::FEq, x, infinity);
        let y = self.dag.select(is_infinite, infinity, y);
        let is_nan = self.is_nan(x);
        self.dag.select(is_nan, x, y)
    }

    /// Hyperbolic tangent (Cephes `tanhf.c`; for `f64` by e²ˣ and, near 0, its series).
    pub(crate) fn tanh(&mut self, x: Id) -> Id {
        let a = self.abs(x);
        let (one, two) = (self.c(1.0), self.c(2.0));
        let twice = self.add(a, a);
        let e = self.exp(twice);
        let sum = self.add(e, one);
        let quotient = self.div(two, sum);
        let large = self.sub(one, quotient);
        let large = self.dag.bin(Bin::CopySign, large, x);
        let z = self.mul(x, x);
        let (limit, p) = if self.ty == Ty::F32 {
            const P: [f64; 5] = [
                -5.704_988_727_45e-3,
                2.063_908_879_54e-2,
                -5.373_971_555_31e-2,
                1.333_144_220_36e-1,
                -3.333_281_942_2e-1,
            ];
            (0.625, self.poly(z, &P))
        } else {
            // Taylor's series up to x¹³.
            const T: [f64; 6] = [
                21844.0 / 6_081_075.0,
                -1382.0 / 155_925.0,
                62.0 / 2835.0,
                -17.0 / 315.0,
                2.0 / 15.0,
                -1.0 / 3.0,
            ];
            (0.05, self.poly(z, &T))
        };
        let near = self.mul(p, z);
        let near = self.mul(near, x);
        let near = self.add(near, x);
        let limit = self.c(limit);
        let small = self.less(a, limit);
        self.dag.select(small, near, large)
    }

    /// Error function: x·P(x²)/Q(x²) where the result is not ±1 (`f32` accuracy).
    pub(crate) fn erf(&mut self, x: Id) -> Id {
        const P: [f64; 5] = [
            0.000_229_050_658_613_506_46,
            0.003_408_291_010_710_950_6,
            0.050_955_695_062_380_86,
            0.185_208_322_399_761_45,
            1.128_379_143_519_084,
        ];
        const Q: [f64; 7] = [
            -1.179_160_295_436_169_7e-7,
            0.000_023_547_966_471_313_185,
            0.001_017_962_527_891_488_5,
            0.014_070_470_171_167_667,
            0.110_985_051_782_853_62,
            0.497_469_251_100_675_38,
            1.0,
        ];
        if self.ty == Ty::F64 {
            return self.erf_f64(x);
        }
        let x = self.within(x, -3.743_921_162_776_799_4, 3.743_921_162_776_799_4);
        let z = self.mul(x, x);
        let (p, q) = (self.poly(z, &P), self.poly(z, &Q));
        let p = self.mul(x, p);
        self.div(p, q)
    }

    /// The series 2/√π · e^(−x²) · Σ 2ⁿx²ⁿ⁺¹/(2n + 1)!! (Abramowitz and Stegun 7.1.6), |x| ≤ 6.
    fn erf_f64(&mut self, x: Id) -> Id {
        let x = self.within(x, -6.0, 6.0);
        let z = self.mul(x, x);
        let mut coefficients = vec![1.0f64];
        (1..=110).for_each(|n: usize| coefficients.push(coefficients[n - 1] * 2.0 / (2 * n + 1) as f64));
        coefficients.reverse();
        let p = self.poly(z, &coefficients);
        let minus = self.dag.un(Un::NegF, z);
        let e = self.exp(minus);
        let p = self.mul(p, e);
        let p = self.mul(p, x);
        let factor = self.c(std::f64::consts::FRAC_2_SQRT_PI);
        self.mul(p, factor)
    }

    /// 1/(1 + e⁻ˣ).
    pub(crate) fn sigmoid(&mut self, x: Id) -> Id {
        let one = self.c(1.0);
        let minus = self.dag.un(Un::NegF, x);
        let e = self.exp(minus);
        let sum = self.add(e, one);
        self.div(one, sum)
    }

    /// Sine (`quarter` 0) or cosine (1): range reduction in `f64`, then Cephes `sinf.c`, or Taylor's series for `f64`.
    pub(crate) fn sine(&mut self, x: Id, quarter: i64) -> Id {
        let f32 = self.ty == Ty::F32;
        let wide = if f32 { self.dag.conv(Conv::Widen, Ty::F64, x) } else { x };
        let mut m = Math { dag: self.dag, ty: Ty::F64 };
        let per = m.c(std::f64::consts::FRAC_2_PI);
        let scaled = m.dag.bin(Bin::MulF, wide, per);
        let (n, bits) = m.round_to_integer(scaled);
        // π/2 in two parts, the first with 33 bits (fdlibm, `e_rem_pio2.c`).
        let (high, low) = (m.c(-1.570_796_326_734_125_6), m.c(-6.077_100_506_506_192e-11));
        let part = m.mul(n, high);
        let r = m.add(wide, part);
        let part = m.mul(n, low);
        let r = m.add(r, part);
        let quarter = self.dag.int(Ty::I64, quarter);
        let turn = self.dag.bin(Bin::Add, bits, quarter);
        let r = if f32 { self.dag.conv(Conv::Narrow, Ty::F32, r) } else { r };
        let turn = if f32 { self.dag.conv(Conv::Truncate, Ty::I32, turn) } else { turn };
        let (sine, cosine) = self.sine_and_cosine(r);
        let ty = self.bits();
        let (one, two, zero) = (self.dag.int(ty, 1), self.dag.int(ty, 2), self.dag.int(ty, 0));
        let odd = self.dag.bin(Bin::And, turn, one);
        let odd = self.dag.cmp(Cmp::Ne, odd, zero);
        let y = self.dag.select(odd, cosine, sine);
        let back = self.dag.bin(Bin::And, turn, two);
        let back = self.dag.cmp(Cmp::Ne, back, zero);
        let minus = self.dag.un(Un::NegF, y);
        self.dag.select(back, minus, y)
    }

    /// Both for |r| ≤ π/4.
    fn sine_and_cosine(&mut self, r: Id) -> (Id, Id) {
        const S: [f64; 3] = [-1.951_529_589_1e-4, 8.332_160_873_6e-3, -1.666_665_461_1e-1];
        const C: [f64; 3] = [2.443_315_711_809_948e-5, -1.388_731_625_493_765e-3, 4.166_664_568_298_827e-2];
        let z = self.mul(r, r);
        let (s, c) = if self.ty == Ty::F32 {
            (self.poly(z, &S), self.poly(z, &C))
        } else {
            let term = |k: u32| (1..=k).fold(1.0, |f, i| f / f64::from(i));
            let sign = |k: u32| if k % 4 < 2 { 1.0 } else { -1.0 };
            let series = |first: u32| -> Vec<f64> {
                (0..8).rev().map(|i| first + 2 * i).map(|k| sign(k) * term(k)).collect()
            };
            (self.poly(z, &series(3)), self.poly(z, &series(4)))
        };
        let s = self.mul(s, z);
        let s = self.mul(s, r);
        let sine = self.add(s, r);
        let c = self.mul(c, z);
        let c = self.mul(c, z);
        let (half, one) = (self.c(-0.5), self.c(1.0));
        let part = self.mul(z, half);
        let c = self.add(c, part);
        (sine, self.add(c, one))
    }

    /// `f` computed in `f64`.
    pub(crate) fn in_f64(&mut self, x: Id, f: impl FnOnce(&mut Math, Id) -> Id) -> Id {
        if self.ty == Ty::F64 {
            return f(self, x);
        }
        let wide = self.dag.conv(Conv::Widen, Ty::F64, x);
        let y = f(&mut Math { dag: self.dag, ty: Ty::F64 }, wide);
        self.dag.conv(Conv::Narrow, Ty::F32, y)
    }

    /// log(1 + eˣ) without overflow.
    pub(crate) fn softplus(&mut self, x: Id) -> Id {
        self.in_f64(x, |m, x| {
            let a = m.abs(x);
            let minus = m.dag.un(Un::NegF, a);
            let e = m.exp(minus);
            let l = m.log1p(e);
            let zero = m.c(0.0);
            let positive = m.dag.bin(Bin::MaxF, x, zero);
            m.add(positive, l)
        })
    }

    /// log(1 + x): log(u)·x/(u − 1) with u = 1 + x rounded (Kahan).
    pub(crate) fn log1p(&mut self, x: Id) -> Id {
        let one = self.c(1.0);
        let u = self.dag.bin(Bin::AddF, one, x);
        let back = self.sub(u, one);
        let l = self.log(u);
        let product = self.mul(l, x);
        let quotient = self.div(product, back);
        let zero = self.c(0.0);
        let exact = self.dag.cmp(Cmp::FEq, back, zero);
        let plain = self.dag.cmp(Cmp::FEq, back, x);
        let y = self.dag.select(plain, l, quotient);
        self.dag.select(exact, x, y)
    }

    /// eˣ − 1: (u − 1)·x/log(u) with u = eˣ rounded (Kahan).
    pub(crate) fn expm1(&mut self, x: Id) -> Id {
        let one = self.c(1.0);
        let u = self.exp(x);
        let difference = self.sub(u, one);
        let l = self.log(u);
        let product = self.mul(difference, x);
        let quotient = self.div(product, l);
        let half = self.c(0.5);
        let a = self.abs(x);
        let small = self.less(a, half);
        let y = self.dag.select(small, quotient, difference);
        let exact = self.dag.cmp(Cmp::FEq, u, one);
        self.dag.select(exact, x, y)
    }

    /// The angle whose tangent is x, by three halvings of the argument and its series.
    pub(crate) fn atan(&mut self, x: Id) -> Id {
        let (one, zero) = (self.c(1.0), self.c(0.0));
        let a = self.abs(x);
        let large = self.less(one, a);
        let inverse = self.div(one, a);
        let mut r = self.dag.select(large, inverse, a);
        // atan r = 2·atan(r/(1 + √(1 + r²))).
        for _ in 0..3 {
            let z = self.mul(r, r);
            let z = self.add(z, one);
            let root = self.dag.un(Un::Sqrt, z);
            let root = self.add(root, one);
            r = self.div(r, root);
        }
        let z = self.mul(r, r);
        let series: Vec<f64> =
            (0..10).rev().map(|k| if k % 2 == 0 { 8.0 } else { -8.0 } / f64::from(2 * k + 1)).collect();
        let y = self.poly(z, &series);
        let y = self.mul(y, r);
        let quarter = self.c(std::f64::consts::FRAC_PI_2);
        let other = self.sub(quarter, y);
        let y = self.dag.select(large, other, y);
        let signed = self.dag.bin(Bin::CopySign, y, x);
        let is_zero = self.dag.cmp(Cmp::FEq, x, zero);
        self.dag.select(is_zero, x, signed)
    }

    /// a to the b, by e^(b·log |a|) in `f64`.
    pub(crate) fn pow(&mut self, a: Id, b: Id) -> Id {
        let (zero, one) = (self.c(0.0), self.c(1.0));
        let magnitude = self.abs(a);
        let l = self.log(magnitude);
        let product = self.dag.bin(Bin::MulF, l, b);
        let y = self.exp(product);
        let floor = self.dag.un(Un::Floor, b);
        let is_integer = self.dag.cmp(Cmp::FEq, floor, b);
        let half = self.c(0.5);
        let halved = self.mul(b, half);
        let floor = self.dag.un(Un::Floor, halved);
        let is_odd = self.dag.cmp(Cmp::FNe, floor, halved);
        let is_odd = self.dag.bin(Bin::And, is_odd, is_integer);
        let signed = self.dag.bin(Bin::CopySign, y, a);
        let y2 = self.dag.select(is_odd, signed, y);
        let negative = self.less(a, zero);
        let infinity = self.c(f64::INFINITY);
        let finite = self.less(magnitude, infinity);
        let fraction = self.dag.not(is_integer);
        let undefined = self.dag.bin(Bin::And, negative, fraction);
        let undefined = self.dag.bin(Bin::And, undefined, finite);
        let nan = self.c(f64::NAN);
        let y = self.dag.select(undefined, nan, y2);
        let b_size = self.abs(b);
        let (unit, endless) =
            (self.dag.cmp(Cmp::FEq, magnitude, one), self.dag.cmp(Cmp::FEq, b_size, infinity));
        let unit = self.dag.bin(Bin::And, unit, endless);
        let y = self.dag.select(unit, one, y);
        let (base_one, no_power) = (self.dag.cmp(Cmp::FEq, a, one), self.dag.cmp(Cmp::FEq, b, zero));
        let one_anyway = self.dag.bin(Bin::Or, base_one, no_power);
        self.dag.select(one_anyway, one, y)
    }
}
