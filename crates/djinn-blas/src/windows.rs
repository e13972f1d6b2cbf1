//! How windows lie over spatial axes: the copies that gather what every kernel position sees.

use std::ops::Range;

/// Kernel positions times window rows whose copies are kept; more are computed in every run.
const MAX_KEPT: usize = 1 << 16;
/// Sizes, strides, dilations and pads, at most: beyond it positions could leave `i64`.
const MAX_EXTENT: i64 = 1 << 31;

/// A run of windows along the last axis and the positions that they see: `from`, `from + step`, ….
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Number of the first window, counted from the first of the piece.
    pub(crate) to: usize,
    /// Offset of the position that it sees.
    pub(crate) from: usize,
    pub(crate) len: usize,
}

/// By kernel position.
pub(crate) type Segments = Vec<Vec<Segment>>;

/// Window `o` sees position `o·stride + k·dilation − pad` through kernel position `k`.
#[derive(Debug)]
pub(crate) struct Windows {
    counts: Vec<usize>,
    kernel: Vec<usize>,
    bounds: Vec<usize>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    /// Pieces of the windows with their segments, if they are few.
    kept: Option<Vec<(Range<usize>, Segments)>>,
    /// Windows of a piece.
    piece: usize,
}

impl Windows {
    /// Windows in pieces of such a length that `per_window` times it is at most `limit`, but one at least.
    pub(crate) fn new(
        attrs: &djinn_ir::Attrs,
        (counts, kernel, bounds): (&[usize], &[usize], &[usize]),
        per_window: usize,
    ) -> Option<Windows> {
        let [strides, dilations, pads] =
            ["strides", "dilations", "pads"].map(|name| attrs.ints(name).to_vec());
        let n = bounds.len();
        let lengths = [counts.len(), kernel.len(), strides.len(), dilations.len(), pads.len() / 2];
        let sizes = [counts, kernel, bounds].concat();
        let small = sizes.iter().all(|v| (*v as i64) < MAX_EXTENT)
            && [&strides, &dilations].iter().all(|l| l.iter().all(|v| (1..MAX_EXTENT).contains(v)))
            && pads.iter().all(|v| v.abs() < MAX_EXTENT);
        let reach = kernel.iter().try_fold(1usize, |n, k| n.checked_mul(*k))?;
        if n == 0 || lengths != [n; 5] || !small || reach > 1 << 24 {
            return None;
        }
        let piece = (crate::WORKSPACE_ELEMENTS / per_window.max(1)).max(1);
        let mut windows = Windows {
            counts: counts.to_vec(),
            kernel: kernel.to_vec(),
            bounds: bounds.to_vec(),
            strides,
            dilations,
            pads,
            kept: None,
            piece,
        };
        let rows = windows.len() / counts[n - 1].max(1) + windows.len() / piece;
        if reach.saturating_mul(rows) <= MAX_KEPT {
            windows.kept = Some(windows.pieces().map(|p| (p.clone(), windows.segments(&p))).collect());
        }
        Some(windows)
    }

    /// Number of windows.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().product()
    }

    /// Number of positions in a window.
    pub(crate) fn reach(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Number of positions that the windows lie over.
    pub(crate) fn area(&self) -> usize {
        self.bounds.iter().product()
    }

    /// Distance of the positions of a segment.
    pub(crate) fn step(&self) -> usize {
        self.strides.last().map_or(1, |s| *s as usize)
    }

    /// Does every window see the one position with its own number?
    pub(crate) fn is_identity(&self) -> bool {
        let ones = self.kernel.iter().all(|k| *k == 1) && self.strides.iter().all(|s| *s == 1);
        ones && self.pads.iter().all(|p| *p == 0) && self.counts == self.bounds
    }

    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, piece) = (self.len(), self.piece);
        (0..len).step_by(piece).map(move |start| start..(start + piece).min(len))
    }

    /// Calls `visit` with every piece of the windows and its segments.
    pub(crate) fn each_piece(&self, mut visit: impl FnMut(&Range<usize>, &Segments)) {
        match &self.kept {
            Some(kept) => kept.iter().for_each(|(piece, segments)| visit(piece, segments)),
            None => self.pieces().for_each(|piece| visit(&piece, &self.segments(&piece))),
        }
    }

    /// Kernel positions of window number `window` along an axis that lie before `limit`.
    pub(crate) fn inside(&self, axis: usize, window: usize, from: i64, limit: i64) -> usize {
        let at = |k: usize| self.position(axis, window, k);
        (0..self.kernel[axis]).filter(|k| (from..limit).contains(&at(*k))).count()
    }

    /// The pad after the last element of an axis.
    pub(crate) fn high_pad(&self, axis: usize) -> i64 {
        self.pads[self.bounds.len() + axis]
    }

    fn position(&self, axis: usize, window: usize, k: usize) -> i64 {
        window as i64 * self.strides[axis] + k as i64 * self.dilations[axis] - self.pads[axis]
    }

    /// Coordinates of a number among these sizes.
    pub(crate) fn coordinates(mut number: usize, sizes: &[usize]) -> Vec<usize> {
        let mut out = vec![0; sizes.len()];
        for (slot, size) in out.iter_mut().zip(sizes).rev() {
            *slot = number % size;
            number /= size;
        }
        out
    }

    fn segments(&self, piece: &Range<usize>) -> Segments {
        let last = self.bounds.len() - 1;
        let width = self.counts[last];
        let rows = piece.start / width..piece.end.div_ceil(width);
        let rows: Vec<Vec<usize>> = rows.map(|r| Windows::coordinates(r, &self.counts[..last])).collect();
        let mut all = Vec::with_capacity(self.reach());
        for k in 0..self.reach() {
            let k = Windows::coordinates(k, &self.kernel);
            let seen = self.seen(k[last]);
            let mut list: Vec<Segment> = Vec::new();
            for (row, number) in rows.iter().zip(piece.start / width..) {
                let Some(base) = self.row_base(row, &k) else { continue };
                let first = number * width;
                let from = (first + seen.start).max(piece.start);
                let end = (first + seen.end).min(piece.end);
                if from >= end {
                    continue;
                }
                let position = self.position(last, from - first, k[last]) as usize;
                push(
                    &mut list,
                    Segment { to: from - piece.start, from: base + position, len: end - from },
                    self.step(),
                );
            }
            all.push(list);
        }
        all
    }

    /// The windows of a row that see a position inside the last axis.
    fn seen(&self, k: usize) -> Range<usize> {
        let last = self.bounds.len() - 1;
        let (stride, first) = (self.strides[last], self.position(last, 0, k));
        let up = |v: i64| if v <= 0 { 0 } else { (v + stride - 1) / stride };
        let bound = |v: i64| (v as usize).min(self.counts[last]);
        bound(up(-first))..bound(up(self.bounds[last] as i64 - first))
    }

    /// Offset of the row of positions that a row of windows sees; `None` in the padding.
    fn row_base(&self, row: &[usize], k: &[usize]) -> Option<usize> {
        let mut base = 0;
        for (axis, window) in row.iter().enumerate() {
            let position = usize::try_from(self.position(axis, *window, k[axis])).ok()?;
            if position >= self.bounds[axis] {
                return None;
            }
            base = base * self.bounds[axis] + position;
        }
        Some(base * self.bounds[self.bounds.len() - 1])
    }
}

/// Adds a segment, joined to the one before it where both sides go on without a gap.
fn push(list: &mut Vec<Segment>, next: Segment, step: usize) {
    if let Some(before) = list.last_mut()
        && step == 1
        && before.to + before.len == next.to
        && before.from + before.len == next.from
    {
        before.len += next.len;
        return;
    }
    list.push(next);
}
