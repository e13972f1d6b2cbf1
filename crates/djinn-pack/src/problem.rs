//! The packing problem: buffers with sizes and alignments, and which of them may never share bytes.
//!
//! A [`Problem`] is valid by construction, so every problem has a packing in some capacity.

use std::collections::BTreeMap;
use std::fmt;

/// The most bytes that all buffers of a problem may need together, alignment included.
///
/// The limit keeps every sum of offsets and sizes far from overflow.
pub const MAX_TOTAL: u64 = 1 << 61;

/// The most buffers that a problem may have.
pub const MAX_BUFFERS: usize = 1 << 30;

/// A buffer to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// A name for messages and files; may be empty.
    pub name: String,
    /// The first moment at which the buffer is live.
    pub lower: i64,
    /// The first moment at which the buffer is no longer live.
    pub upper: i64,
    /// How many bytes the buffer takes. A buffer of no bytes overlaps nothing.
    pub size: u64,
    /// The offset is a multiple of this power of two.
    pub alignment: u64,
    /// Where the buffer has to be, if that is not free.
    pub offset: Option<u64>,
}

impl Buffer {
    /// An unnamed buffer of `size` bytes, live in `lower..upper`, that may stand at any byte.
    pub fn new(lower: i64, upper: i64, size: u64) -> Self {
        Self { name: String::new(), lower, upper, size, alignment: 1, offset: None }
    }

    /// An unnamed buffer of `size` bytes for a problem whose conflicts are given one by one.
    pub fn sized(size: u64) -> Self {
        Self::new(0, 1, size)
    }

    /// The same buffer with another alignment.
    pub fn aligned(mut self, alignment: u64) -> Self {
        self.alignment = alignment;
        self
    }

    /// The same buffer at a fixed offset.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// The same buffer with a name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

/// Pairs of buffers that may never share bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    start: Vec<usize>,
    others: Vec<u32>,
}

impl Conflicts {
    /// The relation on `buffers` buffers that holds for the given pairs, in either order.
    ///
    /// A pair may be given more than once. The error is the first pair that names a buffer which
    /// does not exist or the same buffer twice.
    pub fn from_pairs(buffers: usize, pairs: &[(usize, usize)]) -> Result<Self, ProblemError> {
        let bad = |&&(a, b): &&(usize, usize)| a >= buffers || b >= buffers || a == b;
        if let Some(&pair) = pairs.iter().find(bad) {
            return Err(ProblemError::BadPair { pair });
        }
        let mut directed: Vec<(u32, u32)> =
            pairs.iter().flat_map(|&(a, b)| [(a as u32, b as u32), (b as u32, a as u32)]).collect();
        directed.sort_unstable();
        directed.dedup();
        let mut start = vec![0; buffers + 1];
        for &(a, _) in &directed {
            start[a as usize + 1] += 1;
        }
        for i in 0..buffers {
            start[i + 1] += start[i];
        }
        Ok(Self { start, others: directed.into_iter().map(|(_, b)| b).collect() })
    }

    /// The relation given as one row of bits for each buffer, `words` words a row.
    ///
    /// Bit `j` of row `i` says that `i` and `j` conflict; either of the two bits of a pair is
    /// enough, and the diagonal is ignored.
    pub fn from_rows(buffers: usize, words: usize, rows: &[u64]) -> Result<Self, ProblemError> {
        let mut pairs = Vec::new();
        for (i, row) in rows.chunks(words.max(1)).enumerate() {
            for (w, &word) in row.iter().enumerate() {
                let mut bits = word;
                while bits != 0 {
                    let j = w * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    if i != j {
                        pairs.push((i, j));
                    }
                }
            }
        }
        Self::from_pairs(buffers, &pairs)
    }

    /// The buffers that conflict with `buffer`, in increasing order.
    pub fn of(&self, buffer: usize) -> &[u32] {
        &self.others[self.start[buffer]..self.start[buffer + 1]]
    }

    /// The number of conflicting pairs.
    pub fn pair_count(&self) -> usize {
        self.others.len() / 2
    }
}

/// What decides which buffers may never share bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifetimes {
    /// Buffers conflict when their intervals `lower..upper` overlap.
    Intervals,
    /// Buffers conflict as said; the intervals mean nothing.
    Conflicts(Conflicts),
}

/// A validated packing problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    buffers: Vec<Buffer>,
    lifetimes: Lifetimes,
}

impl Problem {
    /// The problem of buffers that conflict when their lifetimes `lower..upper` overlap.
    pub fn intervals(buffers: Vec<Buffer>) -> Result<Self, ProblemError> {
        check_buffers(&buffers)?;
        for (buffer, b) in buffers.iter().enumerate() {
            if b.lower >= b.upper {
                return Err(ProblemError::EmptyLifetime { buffer, lower: b.lower, upper: b.upper });
            }
        }
        check_fixed_intervals(&buffers)?;
        Ok(Self { buffers, lifetimes: Lifetimes::Intervals })
    }

    /// The problem of buffers that conflict as `conflicts` says, whatever their intervals are.
    ///
    /// This is the form for several streams, where lifetimes are a partial order: two buffers
    /// conflict unless every use of one comes before the other is written.
    pub fn with_conflicts(buffers: Vec<Buffer>, conflicts: Conflicts) -> Result<Self, ProblemError> {
        check_buffers(&buffers)?;
        if conflicts.start.len() != buffers.len() + 1 {
            return Err(ProblemError::WrongCount {
                buffers: buffers.len(),
                rows: conflicts.start.len().saturating_sub(1),
            });
        }
        for (first, a) in buffers.iter().enumerate() {
            let Some(low) = a.offset else { continue };
            for &second in conflicts.of(first) {
                let b = &buffers[second as usize];
                if a.size > 0 && b.size > 0 && b.offset.is_some_and(|o| o < low + a.size && low < o + b.size)
                {
                    return Err(ProblemError::FixedOverlap { first, second: second as usize });
                }
            }
        }
        Ok(Self { buffers, lifetimes: Lifetimes::Conflicts(conflicts) })
    }

    /// The buffers.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// What decides which buffers conflict.
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }
}

/// Why a problem was refused. Buffers are given by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemError {
    /// `lower` is not below `upper`.
    EmptyLifetime {
        /// The buffer.
        buffer: usize,
        /// Its first live moment.
        lower: i64,
        /// Its first moment that is no longer live.
        upper: i64,
    },
    /// The alignment is not a power of two.
    BadAlignment {
        /// The buffer.
        buffer: usize,
        /// Its alignment.
        alignment: u64,
    },
    /// The fixed offset is not a multiple of the alignment.
    MisalignedOffset {
        /// The buffer.
        buffer: usize,
        /// Its fixed offset.
        offset: u64,
        /// Its alignment.
        alignment: u64,
    },
    /// Two buffers that conflict are fixed to overlapping bytes.
    FixedOverlap {
        /// One buffer.
        first: usize,
        /// The other buffer.
        second: usize,
    },
    /// The buffers need more than [`MAX_TOTAL`] bytes together, or there are more than [`MAX_BUFFERS`].
    TooLarge {
        /// The buffer with which the limit is passed.
        buffer: usize,
    },
    /// A conflict names a buffer that does not exist, or one buffer twice.
    BadPair {
        /// The pair.
        pair: (usize, usize),
    },
    /// The conflict relation is over another number of buffers.
    WrongCount {
        /// The number of buffers.
        buffers: usize,
        /// The number of buffers of the relation.
        rows: usize,
    },
}

impl fmt::Display for ProblemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyLifetime { buffer, lower, upper } => {
                write!(f, "buffer {buffer}: the lifetime {lower}..{upper} is empty; upper is exclusive")
            }
            Self::BadAlignment { buffer, alignment } => {
                write!(f, "buffer {buffer}: the alignment {alignment} is not a power of two")
            }
            Self::MisalignedOffset { buffer, offset, alignment } => {
                write!(
                    f,
                    "buffer {buffer}: the offset {offset} is not a multiple of the alignment {alignment}"
                )
            }
            Self::FixedOverlap { first, second } => {
                write!(f, "buffers {first} and {second} conflict and are fixed to overlapping bytes")
            }
            Self::TooLarge { buffer } => {
                write!(f, "buffer {buffer}: all buffers together take more than {MAX_TOTAL} bytes")
            }
            Self::BadPair { pair: (a, b) } => {
                write!(f, "the conflict of {a} and {b} does not name two different buffers")
            }
            Self::WrongCount { buffers, rows } => {
                write!(f, "the conflicts are over {rows} buffers, but there are {buffers}")
            }
        }
    }
}

impl std::error::Error for ProblemError {}

/// Checks what every form of the problem demands of its buffers.
fn check_buffers(buffers: &[Buffer]) -> Result<(), ProblemError> {
    if buffers.len() > MAX_BUFFERS {
        return Err(ProblemError::TooLarge { buffer: MAX_BUFFERS });
    }
    let mut stacked: u64 = 0;
    for (buffer, b) in buffers.iter().enumerate() {
        if !b.alignment.is_power_of_two() {
            return Err(ProblemError::BadAlignment { buffer, alignment: b.alignment });
        }
        let offset = b.offset.unwrap_or(0);
        if offset & (b.alignment - 1) != 0 {
            return Err(ProblemError::MisalignedOffset { buffer, offset, alignment: b.alignment });
        }
        // All buffers stacked on one another, each behind the widest possible alignment gap.
        stacked = stacked.saturating_add(b.size).saturating_add(b.alignment).saturating_add(offset);
        if stacked > MAX_TOTAL {
            return Err(ProblemError::TooLarge { buffer });
        }
    }
    Ok(())
}

/// Looks for two fixed buffers that overlap in time and in bytes, by a sweep over time.
fn check_fixed_intervals(buffers: &[Buffer]) -> Result<(), ProblemError> {
    let mut events: Vec<(i64, bool, usize, u64)> = Vec::new();
    for (index, b) in buffers.iter().enumerate().filter(|(_, b)| b.size > 0) {
        if let Some(offset) = b.offset {
            events.push((b.upper, false, index, offset));
            events.push((b.lower, true, index, offset));
        }
    }
    events.sort_unstable();
    let mut live: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, begins, index, offset) in events {
        if !begins {
            live.remove(&offset);
            continue;
        }
        let end = offset + buffers[index].size;
        if let Some((&below, &first)) = live.range(..end).next_back()
            && below + buffers[first].size > offset
        {
            return Err(ProblemError::FixedOverlap { first: first.min(index), second: first.max(index) });
        }
        live.insert(offset, index);
    }
    Ok(())
}
