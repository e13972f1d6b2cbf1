//! Numbers with units, three digits long.

/// A duration: `12.3 µs`.
pub(crate) fn seconds(value: f64) -> String {
    scaled(value, &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")])
}

/// A number of bytes, in powers of 1,000: `1.04 MB`.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, &[(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")])
}

/// Work in floating-point operations: `2.10 GFLOP`.
pub(crate) fn flops(value: f64) -> String {
    let units = [(1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP")];
    scaled(value, &[&units[..], &[(1.0, "FLOP")]].concat())
}

/// A share of a whole: `12.3 %`.
pub(crate) fn percent(part: f64, whole: f64) -> String {
    let share = if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
    match share {
        s if !s.is_finite() => "?".into(),
        s if s > 0.0 && s < 0.05 => "<0.1 %".into(),
        s => format!("{s:.1} %"),
    }
}

/// A count with commas: `12,345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number of things: `1 kernel`, `2,000 kernels`.
pub(crate) fn things(number: usize, name: &str) -> String {
    let plural = match name {
        _ if number == 1 => name.to_owned(),
        _ if name.ends_with("py") || name.ends_with("ry") => format!("{}ies", name.trim_end_matches('y')),
        _ => format!("{name}s"),
    };
    format!("{} {plural}", count(number as u64))
}

/// The number in the largest unit that it reaches.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let Some(&(smallest, smallest_name)) = units.last() else { return value.to_string() };
    if !value.is_finite() {
        return "?".into();
    }
    if value == 0.0 {
        return format!("0 {smallest_name}");
    }
    // A value that rounds up to 1,000 of a unit is 1 of the next.
    let (scale, name) =
        *units.iter().find(|(scale, _)| value.abs() >= scale * 0.9995).unwrap_or(&(smallest, smallest_name));
    let number = value / scale;
    if smallest_name == "B" && name == "B" {
        return format!("{number:.0} B");
    }
    match number.abs() {
        n if n >= 99.95 => format!("{number:.0} {name}"),
        n if n >= 9.995 => format!("{number:.1} {name}"),
        _ => format!("{number:.2} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_the_right_unit() {
        let cases = [(0.0, "0 ns"), (4.0037e-6, "4.00 µs"), (999.9e-6, "1.00 ms"), (0.0123, "12.3 ms")];
        for (value, expected) in cases {
            assert_eq!(seconds(value), expected);
        }
        assert_eq!([12.0, 1044.0, 80e9].map(bytes), ["12 B", "1.04 kB", "80.0 GB"]);
        assert_eq!(seconds(f64::NAN), "?");
        assert_eq!((flops(2.1e9), percent(1.0, 3.0)), ("2.10 GFLOP".into(), "33.3 %".into()));
        assert_eq!(
            (count(1234567), things(1, "copy"), things(2, "copy")),
            ("1,234,567".into(), "1 copy".into(), "2 copies".into())
        );
    }
}
