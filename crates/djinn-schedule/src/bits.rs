//! A matrix of bits, one row per node.

/// Bits per word.
const WORD: usize = 64;

/// A rectangular matrix of bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitMatrix {
    words: usize,
    data: Vec<u64>,
}

impl BitMatrix {
    /// A matrix of zeros.
    pub fn new(rows: usize, columns: usize) -> BitMatrix {
        let words = columns.div_ceil(WORD);
        BitMatrix { words, data: vec![0; rows * words] }
    }

    /// The bit at `row` and `column`.
    pub fn get(&self, row: usize, column: usize) -> bool {
        self.data[row * self.words + column / WORD] >> (column % WORD) & 1 == 1
    }

    /// Sets the bit at `row` and `column`.
    pub fn set(&mut self, row: usize, column: usize) {
        self.data[row * self.words + column / WORD] |= 1 << (column % WORD);
    }

    /// Adds the bits of row `from` to row `into`.
    pub fn union_rows(&mut self, into: usize, from: usize) {
        let (into, from) = (into * self.words, from * self.words);
        for w in 0..self.words {
            self.data[into + w] |= self.data[from + w];
        }
    }

    /// The columns set in `row`, ascending.
    pub fn ones(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        let words = &self.data[row * self.words..(row + 1) * self.words];
        words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    i * WORD + bit
                })
            })
        })
    }
}
