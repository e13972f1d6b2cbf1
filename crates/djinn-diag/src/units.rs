//! Quantities for people, in messages.

/// Bytes in the largest decimal unit that leaves a number of at least 1.
pub fn bytes(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", b / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", b / 1e6),
        _ => format!("{:.1} GB", b / 1e9),
    }
}

/// Seconds in the largest unit that leaves a number of at least 1, no smaller than microseconds.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.2} µs", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn units_fit_the_quantity() {
        assert_eq!([0, 999, 1_000, 80_000_000_000].map(super::bytes), ["0 B", "999 B", "1.0 kB", "80.0 GB"]);
        assert_eq!([2.0, 0.0015, 4e-6].map(super::seconds), ["2.00 s", "1.50 ms", "4.00 µs"]);
    }
}
