//! The independent check of a packing: simple, and sharing no code with the search.

use std::collections::BTreeMap;
use std::fmt;

use crate::problem::{Lifetimes, Problem};

/// What is wrong with a packing. Buffers are given by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// There is not one offset for each buffer.
    WrongCount {
        /// The number of buffers.
        buffers: usize,
        /// The number of offsets.
        offsets: usize,
    },
    /// A buffer is not at a multiple of its alignment.
    Misaligned {
        /// The buffer.
        buffer: usize,
        /// Its offset.
        offset: u64,
    },
    /// A buffer is not at its fixed offset.
    Moved {
        /// The buffer.
        buffer: usize,
        /// Where it should be.
        fixed: u64,
        /// Its offset.
        offset: u64,
    },
    /// A buffer ends above the capacity.
    AboveCapacity {
        /// The buffer.
        buffer: usize,
        /// Its end; the largest number when the end does not fit a number.
        end: u64,
    },
    /// Two buffers that conflict share bytes.
    Overlap {
        /// One buffer.
        first: usize,
        /// The other buffer.
        second: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCount { buffers, offsets } => write!(f, "{offsets} offsets for {buffers} buffers"),
            Self::Misaligned { buffer, offset } => write!(f, "buffer {buffer} is misaligned at {offset}"),
            Self::Moved { buffer, fixed, offset } => {
                write!(f, "buffer {buffer} is fixed to {fixed} but stands at {offset}")
            }
            Self::AboveCapacity { buffer, end } => {
                write!(f, "buffer {buffer} ends at {end}, above the capacity")
            }
            Self::Overlap { first, second } => write!(f, "buffers {first} and {second} share bytes"),
        }
    }
}

impl std::error::Error for Violation {}

/// Checks that `offsets` is a packing of `problem` within `capacity` bytes.
pub fn check(problem: &Problem, offsets: &[u64], capacity: u64) -> Result<(), Violation> {
    let buffers = problem.buffers();
    if buffers.len() != offsets.len() {
        return Err(Violation::WrongCount { buffers: buffers.len(), offsets: offsets.len() });
    }
    for (buffer, (b, &offset)) in buffers.iter().zip(offsets).enumerate() {
        if offset % b.alignment != 0 {
            return Err(Violation::Misaligned { buffer, offset });
        }
        if let Some(fixed) = b.offset.filter(|&fixed| fixed != offset) {
            return Err(Violation::Moved { buffer, fixed, offset });
        }
        let end = offset.saturating_add(b.size);
        if (b.size > 0 && end > capacity) || end == u64::MAX {
            return Err(Violation::AboveCapacity { buffer, end });
        }
    }
    match problem.lifetimes() {
        Lifetimes::Intervals => check_intervals(problem, offsets),
        Lifetimes::Conflicts(conflicts) => {
            for first in 0..buffers.len() {
                for &second in conflicts.of(first) {
                    let second = second as usize;
                    if buffers[first].size == 0 || buffers[second].size == 0 {
                        continue;
                    }
                    let (a, b) = (offsets[first], offsets[second]);
                    if a < b + buffers[second].size && b < a + buffers[first].size {
                        return Err(Violation::Overlap { first, second });
                    }
                }
            }
            Ok(())
        }
    }
}

/// Walks through time with the live buffers in a map by offset, so that only neighbours can overlap.
fn check_intervals(problem: &Problem, offsets: &[u64]) -> Result<(), Violation> {
    let buffers = problem.buffers();
    let mut moments: BTreeMap<i64, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (i, b) in buffers.iter().enumerate().filter(|(_, b)| b.size > 0) {
        moments.entry(b.lower).or_default().1.push(i);
        moments.entry(b.upper).or_default().0.push(i);
    }
    let mut live: BTreeMap<u64, usize> = BTreeMap::new();
    for (ending, beginning) in moments.into_values() {
        for i in ending {
            live.remove(&offsets[i]);
        }
        for i in beginning {
            let (low, high) = (offsets[i], offsets[i] + buffers[i].size);
            let below = live.range(..=low).next_back().filter(|&(&o, &j)| o + buffers[j].size > low);
            let above = live.range(low..).next().filter(|&(&o, _)| o < high);
            if let Some((_, &j)) = below.or(above) {
                return Err(Violation::Overlap { first: i.min(j), second: i.max(j) });
            }
            live.insert(low, i);
        }
    }
    Ok(())
}
