//! Sets of segments of a screen, and the rectangles that cover them.

mod cover;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::protocol::Area;

pub(crate) use cover::Cover;

/// Columns of a segment, which is one row high.
pub(crate) const SEGMENT: u16 = 16;

/// A vertical move of an area within the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// The destination. Its first column is that of a segment, and its last column that of a
    /// segment or of the screen.
    pub(crate) area: Area,
    /// The first row of the source.
    pub(crate) from: u16,
}

impl Move {
    /// Returns the source.
    pub(crate) fn source(self) -> Area {
        Area { y: self.from, ..self.area }
    }
}

/// A set of segments of a screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentSet {
    columns: usize,
    rows: usize,
    /// Words of a row.
    words: usize,
    /// A bit for each segment, the first in the lowest of a row's first word. Bits behind the last
    /// column are 0.
    bits: Vec<u64>,
}

impl SegmentSet {
    /// Returns an empty set for a screen of `width` by `height` pixels.
    pub(crate) fn new(width: u16, height: u16) -> Self {
        Self::with_size(width.div_ceil(SEGMENT).into(), height.into())
    }

    /// Returns all segments of a screen of `width` by `height` pixels.
    pub(crate) fn full(width: u16, height: u16) -> Self {
        let mut set = Self::new(width, height);
        set.add_area(Area { x: 0, y: 0, width, height });
        set
    }

    fn with_size(columns: usize, rows: usize) -> Self {
        let words = columns.div_ceil(64);
        Self { columns, rows, words, bits: vec![0; words * rows] }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn count(&self) -> usize {
        self.bits.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    pub(crate) fn add(&mut self, column: usize, row: usize) {
        self.bits[row * self.words + column / 64] |= 1 << (column % 64);
    }

    /// Adds the segments of a set of the same screen.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine |= theirs;
        }
    }

    /// Adds the segments that an area touches.
    pub(crate) fn add_area(&mut self, area: Area) {
        self.with_words(area, |bits, mask| *bits |= mask);
    }

    /// Removes the segments that an area touches.
    pub(crate) fn remove_area(&mut self, area: Area) {
        self.with_words(area, |bits, mask| *bits &= !mask);
    }

    /// Removes the segments that an area touches, and returns those of them that were in the set.
    pub(crate) fn take_area(&mut self, area: Area) -> Self {
        let mut taken = self.clone();
        self.remove_area(area);
        for (taken, left) in taken.bits.iter_mut().zip(&self.bits) {
            *taken &= !left;
        }
        taken
    }

    /// Returns how many segments that an area touches are in the set.
    pub(crate) fn count_area(&self, area: Area) -> usize {
        let (columns, rows) = self.touched(area);
        let count = |row: usize| {
            let words = masks(&columns).map(move |(word, mask)| (row * self.words + word, mask));
            words.map(|(at, mask)| (self.bits[at] & mask).count_ones() as usize).sum::<usize>()
        };
        rows.map(count).sum()
    }

    /// Returns the segments of a row that are in the set, in ascending order.
    pub(crate) fn row(&self, row: usize) -> impl Iterator<Item = usize> {
        let words = self.bits[row * self.words..][..self.words].iter().enumerate();
        words.flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let column = word * 64 + bits.trailing_zeros() as usize;
                let is_left = bits != 0;
                bits &= bits.wrapping_sub(1);
                is_left.then_some(column)
            })
        })
    }

    /// Returns whether a row has a segment of some columns.
    pub(crate) fn has_any(&self, row: usize, columns: &Range<usize>) -> bool {
        masks(columns).any(|(word, mask)| self.bits[row * self.words + word] & mask != 0)
    }

    /// Changes the set as the screen changes: the segments of the destination become those of the
    /// source.
    pub(crate) fn apply(&mut self, one: Move) {
        let (columns, rows) = self.touched(one.area);
        let distance = usize::from(one.from.abs_diff(one.area.y));
        let is_upwards = one.from >= one.area.y;
        let copy = |row: usize| {
            let from = if is_upwards { row + distance } else { row - distance.min(row) };
            if from >= self.rows {
                return;
            }
            for (word, mask) in masks(&columns) {
                let source = self.bits[from * self.words + word] & mask;
                let bits = &mut self.bits[row * self.words + word];
                *bits = *bits & !mask | source;
            }
        };
        // No row is read after it was written.
        match is_upwards {
            true => rows.for_each(copy),
            false => rows.rev().for_each(copy),
        }
    }

    fn with_words(&mut self, area: Area, mut change: impl FnMut(&mut u64, u64)) {
        let (columns, rows) = self.touched(area);
        for row in rows {
            for (word, mask) in masks(&columns) {
                change(&mut self.bits[row * self.words + word], mask);
            }
        }
    }

    /// Returns the columns and rows of segments that an area touches.
    fn touched(&self, area: Area) -> (Range<usize>, Range<usize>) {
        let range = |start: u16, length: u16, unit: u16, limit: usize| {
            let end = usize::from(start) + usize::from(length);
            let first = usize::from(start / unit).min(limit);
            let last = if length == 0 { first } else { end.div_ceil(unit.into()).min(limit) };
            first..last.max(first)
        };
        let columns = range(area.x, area.width, SEGMENT, self.columns);
        (columns, range(area.y, area.height, 1, self.rows))
    }

    /// Returns a set whose rows each have the segments of `count` rows.
    pub(crate) fn merged(&self, count: usize) -> Self {
        let mut merged = Self::with_size(self.columns, self.rows.div_ceil(count));
        for (row, bits) in self.bits.chunks(self.words.max(1)).enumerate() {
            let into = &mut merged.bits[row / count * self.words..];
            into.iter_mut().zip(bits).for_each(|(into, bits)| *into |= bits);
        }
        merged
    }

    /// Returns the first segments side by side in a row, from a column on.
    fn run(&self, row: usize, from: usize) -> Option<Range<usize>> {
        let start = self.next(row, from, 0);
        (start < self.columns).then(|| start..self.next(row, start, u64::MAX))
    }

    /// Returns the first column from `from` on whose bit is not that of `inverted`.
    fn next(&self, row: usize, from: usize, inverted: u64) -> usize {
        let mut hidden = from % 64;
        for word in from / 64..self.words {
            let bits = (self.bits[row * self.words + word] ^ inverted) >> hidden << hidden;
            if bits != 0 {
                return (word * 64 + bits.trailing_zeros() as usize).min(self.columns);
            }
            hidden = 0;
        }
        self.columns
    }

    fn has_all(&self, row: usize, columns: &Range<usize>) -> bool {
        masks(columns).all(|(word, mask)| self.bits[row * self.words + word] & mask == mask)
    }
}

/// Returns the words that have the bits of a row's columns, and the bits in them.
fn masks(columns: &Range<usize>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let Range { start, end } = *columns;
    (start / 64..end.div_ceil(64).max(start / 64)).map(move |word| {
        let low = start.saturating_sub(word * 64);
        let high = (end - word * 64).min(64);
        let below = |bits: usize| if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        (word, below(high) & !below(low))
    })
}
