//! Samples of a time, summarised so that summaries of several runs can be merged.
//!
//! A summary is a histogram whose buckets grow by a constant factor, so that every quantile is known to a relative error of
//! [`ACCURACY`] (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
//! PVLDB 12(12), 2019, section 2). Counts add up: merging is associative and commutative to the last bit.

use djinn_diag::{Result, input};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Relative error of quantiles, at most.
pub const ACCURACY: f64 = 0.005;

/// Growth from one bucket to the next: (1 + [`ACCURACY`]) / (1 − [`ACCURACY`]).
const GROWTH: f64 = (1.0 + ACCURACY) / (1.0 - ACCURACY);

/// The shortest time that is told from shorter ones: a clock's tick.
const SHORTEST: f64 = 1e-9;

/// The longest time that is believed.
pub const LONGEST: f64 = 1e6;

/// Times in seconds, summarised.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Samples {
    /// The shortest; infinite without samples.
    min: f64,
    buckets: BTreeMap<i32, u64>,
}

/// As written: figures for the reader beside the buckets that they follow from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    count: u64,
    min: f64,
    median: f64,
    p90: f64,
    buckets: BTreeMap<i32, u64>,
}

impl From<Samples> for Text {
    fn from(s: Samples) -> Text {
        // To four digits: the figures are no finer than that.
        let short = |v: f64| format!("{v:.3e}").parse().unwrap_or(v);
        let min = if s.count() == 0 { 0.0 } else { s.min };
        Text {
            count: s.count(),
            min,
            median: short(s.median()),
            p90: short(s.quantile(0.9)),
            buckets: s.buckets,
        }
    }
}

impl TryFrom<Text> for Samples {
    type Error = String;

    fn try_from(text: Text) -> std::result::Result<Samples, String> {
        let samples = Samples { min: text.min, buckets: text.buckets };
        let fits = |v: f64| v.is_finite() && (0.0..=LONGEST).contains(&v);
        if ![text.min, text.median, text.p90].into_iter().all(fits) {
            return Err(format!("a measured time is not from 0 to {LONGEST:e} seconds"));
        }
        let known = |b: &i32| (bucket(SHORTEST)..=bucket(LONGEST)).contains(b);
        if !samples.buckets.keys().all(known) || samples.buckets.values().any(|n| *n == 0) {
            return Err("a histogram of times has a bucket that no time falls into".into());
        }
        if samples.count() != text.count {
            return Err(format!("{} samples are said to be {}", samples.count(), text.count));
        }
        Ok(samples)
    }
}

/// The bucket of a time: `GROWTH^(b − 1) < seconds ≤ GROWTH^b`.
fn bucket(seconds: f64) -> i32 {
    (seconds.max(SHORTEST).ln() / GROWTH.ln()).ceil() as i32
}

impl Samples {
    /// Adds a time.
    ///
    /// # Errors
    /// `profile.seconds` if it is no time: negative, not a number, or beyond [`LONGEST`].
    pub fn add(&mut self, seconds: f64) -> Result<()> {
        if !(0.0..=LONGEST).contains(&seconds) {
            return Err(input("profile.seconds", format!("{seconds} seconds were measured"))
                .help("measure again: the clock of this machine is wrong"));
        }
        let seconds = super::written(seconds);
        let min = if self.count() == 0 { seconds } else { self.min.min(seconds) };
        *self = Samples { min, buckets: std::mem::take(&mut self.buckets) };
        let slot = self.buckets.entry(bucket(seconds)).or_default();
        *slot = slot.saturating_add(1);
        Ok(())
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The shortest; 0 without samples.
    pub fn min(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.min }
    }

    /// The middle one; 0 without samples.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Of the samples this share is at most so long, to a relative error of [`ACCURACY`].
    pub fn quantile(&self, share: f64) -> f64 {
        let count = self.count();
        let rank = ((count.saturating_sub(1)) as f64 * share).floor() as u64;
        let mut seen = 0u64;
        for (bucket, n) in &self.buckets {
            seen = seen.saturating_add(*n);
            if seen > rank {
                return 2.0 * GROWTH.powi(*bucket) / (GROWTH + 1.0);
            }
        }
        0.0
    }

    /// Adds the samples of another summary.
    pub fn merge(&mut self, other: &Samples) {
        if other.count() == 0 {
            return;
        }
        self.min = if self.count() == 0 { other.min } else { self.min.min(other.min) };
        for (bucket, n) in &other.buckets {
            let slot = self.buckets.entry(*bucket).or_default();
            *slot = slot.saturating_add(*n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut s = Samples::default();
        values.iter().for_each(|v| s.add(*v).expect("a time"));
        s
    }

    #[test]
    fn quantiles_are_as_exact_as_they_say() {
        let values: Vec<f64> = (1..=1001).map(|i| 1e-6 * 1.01f64.powi(i)).collect();
        let s = samples(&values);
        for (share, at) in [(0.0, 0), (0.5, 500), (0.9, 900), (1.0, 1000)] {
            let error = (s.quantile(share) / values[at] - 1.0).abs();
            assert!(error <= ACCURACY * 1.001, "{share}: {error}");
        }
        assert_eq!(s.count(), 1001);
        assert!((s.min() / values[0] - 1.0).abs() < 1e-8);
        assert_eq!((Samples::default().median(), Samples::default().min()), (0.0, 0.0));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let mut s = samples(&[0.0, 1e-12]);
        for wrong in [-1.0, f64::NAN, f64::INFINITY, 1e7] {
            assert_eq!(s.add(wrong).expect_err("no time").code, "profile.seconds");
        }
        assert_eq!(s.count(), 2);
    }

    #[test]
    fn merging_is_associative_and_survives_text() {
        let parts = [samples(&[1e-3, 2e-3]), samples(&[5e-4]), samples(&[]), samples(&[1e-3, 1.0, 7e-9])];
        let merged = |order: &[usize]| {
            let mut all = Samples::default();
            order.iter().for_each(|i| all.merge(&parts[*i]));
            all
        };
        let all = merged(&[0, 1, 2, 3]);
        assert_eq!(all, merged(&[3, 2, 0, 1]));
        let mut tail = parts[1].clone();
        tail.merge(&parts[3]);
        let mut head = parts[0].clone();
        head.merge(&tail);
        assert_eq!((head, all.count()), (all.clone(), 6));
        let text = serde_json::to_string(&all).expect("written");
        assert_eq!(serde_json::from_str::<Samples>(&text).expect("read"), all);
    }
}
