//! When building an engine pays.
//!
//! Whether to build is the ski-rental problem: each execution without the engine costs what the engine would save
//! (the rent), building it costs once (the price). Whoever builds as soon as the rents paid reach the price never pays
//! more than twice what somebody who knew the future would have paid, and no deterministic rule guarantees less
//! (Karlin, Manasse, Rudolph and Sleator, "Competitive snoopy caching", Algorithmica 3, 1988, pages 79–119).

use crate::record::{Failure, Record, Timing, nanoseconds};

/// Time to build an engine of which nothing is known, in nanoseconds: TensorRT-RTX builds small models in 2 to 3 s.
const UNKNOWN_BUILD: u64 = 3_000_000_000;

/// How many times faster than its fallback an engine is, of which nothing is known. A guess, until it is measured.
const UNKNOWN_SPEEDUP: u64 = 2;

/// Measured executions that outweigh a prediction.
const SETTLED: u64 = 4;

/// When to build engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// At once.
    Eager,
    /// Not at all.
    Never,
    /// When the executions so far would have paid for it, or the expected ones will.
    BreakEven {
        /// Executions that are surely to come, if the caller knows.
        expected: Option<u64>,
    },
}

/// What to do about an engine that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Build it.
    Build,
    /// Run without it for so many more executions, if nothing changes, and ask again.
    Wait {
        /// Executions until building pays.
        executions: u64,
    },
    /// Run without it.
    Never(Why),
}

/// Why an engine is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The policy says so.
    Policy,
    /// Its builder refused it not long ago.
    Refused(Failure),
    /// It is not faster than what is there without it.
    Slower,
}

impl Policy {
    /// What to do about an engine that is not there. `others` are the builds of other engines, for a guess of how long
    /// this one takes. Depends on nothing else.
    pub fn decide(self, record: &Record, others: Timing) -> Decision {
        if self == Policy::Never {
            return Decision::Never(Why::Policy);
        }
        if let Some(failure) = &record.failure {
            return Decision::Never(Why::Refused(failure.clone()));
        }
        let Policy::BreakEven { expected } = self else { return Decision::Build };
        let Some((price, saving)) = price_and_saving(record, others) else {
            return Decision::Wait { executions: 1 };
        };
        if saving == 0 {
            return Decision::Never(Why::Slower);
        }
        // Executions that pay for the build.
        let enough = price.div_ceil(saving);
        if record.waited >= enough || expected.is_some_and(|n| n >= enough) {
            return Decision::Build;
        }
        Decision::Wait { executions: enough - record.waited }
    }
}

/// Nanoseconds that building costs, and that one execution saves; `None` if nothing is known of the executions.
fn price_and_saving(record: &Record, others: Timing) -> Option<(u64, u64)> {
    let predicted = record.predicted.as_ref();
    let price = record.build.mean().or(predicted.map(|p| nanoseconds(p.build))).or(others.mean());
    let fallback = match (record.fallback.count >= SETTLED, predicted) {
        (false, Some(predicted)) => nanoseconds(predicted.fallback),
        _ => record.fallback.mean()?,
    };
    let saving = fallback.saturating_sub(engine_time(record, fallback));
    Some((price.unwrap_or(UNKNOWN_BUILD), saving))
}

/// Nanoseconds of one execution with the engine, where one without takes so many.
///
/// Sizes differ from run to run, and the first executions include what a library does once: measured times are compared
/// by the fastest execution of either kind.
fn engine_time(record: &Record, fallback: u64) -> u64 {
    let (with, without) = (record.engine, record.fallback);
    match (with.count >= SETTLED, without.count >= SETTLED, &record.predicted) {
        (true, true, _) => scaled(fallback, with.fastest, without.fastest),
        (true, false, _) => with.fastest,
        (false, _, Some(predicted)) => nanoseconds(predicted.engine),
        (false, _, None) => fallback / UNKNOWN_SPEEDUP,
    }
}

fn scaled(time: u64, by: u64, over: u64) -> u64 {
    let scaled = u128::from(time) * u128::from(by) / u128::from(over.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Predicted;
    use djinn_diag::unsupported;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);
    const BREAK_EVEN: Policy = Policy::BreakEven { expected: None };
    const NONE: Timing = Timing { count: 0, nanoseconds: 0, fastest: 0 };

    fn record(waited: u64) -> Record {
        let predicted = Predicted { build: 100 * MS, fallback: 3 * MS, engine: MS };
        let mut record = Record { predicted: Some(predicted), ..Record::default() };
        record.ran_fallback(waited, 3 * MS * waited as u32);
        record
    }

    #[test]
    fn it_waits_until_the_rents_reach_the_price() {
        for waited in 0..50 {
            let left = Decision::Wait { executions: 50 - waited };
            assert_eq!(BREAK_EVEN.decide(&record(waited), NONE), left);
        }
        assert_eq!(BREAK_EVEN.decide(&record(50), NONE), Decision::Build);
        let long = Record { waited: u64::MAX, ..record(1) };
        assert_eq!(BREAK_EVEN.decide(&long, NONE), Decision::Build);
    }

    #[test]
    fn it_never_pays_more_than_twice_what_hindsight_would() {
        let (price, saving) = (100u64, 2u64);
        for executions in 0..300 {
            let built = (0..executions).find(|&n| BREAK_EVEN.decide(&record(n), NONE) == Decision::Build);
            let paid = built.map_or(executions * saving, |n| n * saving + price);
            assert!(paid <= 2 * price.min(executions * saving), "{executions} executions cost {paid}");
        }
    }

    #[test]
    fn expected_executions_count_like_past_ones() {
        let with = |n| Policy::BreakEven { expected: Some(n) }.decide(&record(0), NONE);
        assert_eq!((with(49), with(50)), (Decision::Wait { executions: 50 }, Decision::Build));
    }

    #[test]
    fn measurements_outweigh_predictions() {
        let mut slow = record(50);
        slow.engine = Timing::new(3, 30 * MS);
        assert_eq!(BREAK_EVEN.decide(&slow, NONE), Decision::Build);
        slow.engine = Timing::new(4, 40 * MS);
        assert_eq!(BREAK_EVEN.decide(&slow, NONE), Decision::Never(Why::Slower));
        let mut dear = record(50);
        dear.build = Timing::new(2, 2000 * MS);
        assert_eq!(BREAK_EVEN.decide(&dear, NONE), Decision::Wait { executions: 450 });
    }

    #[test]
    fn a_slow_first_execution_does_not_condemn_an_engine() {
        let mut jitted = record(49);
        jitted.engine = Timing::new(1, 500 * MS);
        jitted.engine.add(Timing::new(10, 10 * MS));
        assert!(jitted.engine.mean() > jitted.fallback.mean());
        assert_eq!(BREAK_EVEN.decide(&jitted, NONE), Decision::Wait { executions: 1 });
    }

    #[test]
    fn what_is_unknown_is_guessed_or_waited_for() {
        assert_eq!(BREAK_EVEN.decide(&Record::default(), NONE), Decision::Wait { executions: 1 });
        let mut once = Record::default();
        once.ran_fallback(1, 2 * MS);
        assert_eq!(BREAK_EVEN.decide(&once, NONE), Decision::Wait { executions: 2999 });
        assert_eq!(BREAK_EVEN.decide(&once, Timing::new(2, 20 * MS)), Decision::Wait { executions: 9 });
    }

    #[test]
    fn options_override_and_refusals_are_not_retried() {
        assert_eq!(Policy::Eager.decide(&Record::default(), NONE), Decision::Build);
        assert_eq!(Policy::Never.decide(&record(1000), NONE), Decision::Never(Why::Policy));
        let failure = Failure::new(&unsupported("trt.op", "no such layer"), 0);
        let refused = Record { failure: Some(failure.clone()), ..record(1000) };
        for policy in [Policy::Eager, BREAK_EVEN] {
            assert_eq!(policy.decide(&refused, NONE), Decision::Never(Why::Refused(failure.clone())));
        }
    }
}
