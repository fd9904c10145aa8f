//! The rectangles that cover a set.

use std::ops::Range;

use super::{SEGMENT, SegmentSet, masks};
use crate::protocol::Area;

/// Maximum number of pixels of a rectangle, so that a viewer's waiting bytes have a bound.
pub(super) const MAX_RECTANGLE_PIXELS: usize = 1 << 18;

/// Rectangles of an update that cover exactly a set, above which they cover more.
const MANY_EXACT: usize = 1024;

/// Rectangles made of tiles, above which they are made of coarse tiles: compression begins again
/// with each.
const MANY_TILES: usize = 64;

/// Rows of a tile, which is a segment wide.
const TILE_ROWS: usize = 16;

/// Tiles along each side of a coarse tile.
const COARSE: usize = 4;

/// The rectangles that cover a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cover {
    /// No more than the set, unless they would be very many. For data that is not compressed.
    Exact,
    /// Few rectangles, which cover more than the set. For compressed data.
    Few,
}

impl SegmentSet {
    /// Returns rectangles that cover the set, of a screen of `width` by `height` pixels.
    pub(crate) fn into_areas(self, width: u16, height: u16, cover: Cover) -> Vec<Area> {
        if cover == Cover::Exact
            && let Some(areas) = self.clone().rectangles(1, MANY_EXACT)
        {
            return areas.iter().map(|one| one.area(width, height)).collect();
        }
        let tiles = self.merged(TILE_ROWS).filled();
        let few = tiles.clone().rectangles(TILE_ROWS, MANY_TILES).or_else(|| {
            let rows = TILE_ROWS * COARSE;
            tiles.merged(COARSE).with_coarse_columns().rectangles(rows, usize::MAX)
        });
        let shrunk = few.unwrap_or_default().into_iter().map(|one| self.shrink(&one));
        shrunk.map(|one| one.area(width, height)).collect()
    }

    /// Returns all of the smallest rectangle with the set, if the set is most of it.
    fn filled(self) -> Self {
        let all = Rectangle { columns: 0..self.columns, rows: 0..self.rows };
        let count = self.count();
        if count == 0 {
            return self;
        }
        let Rectangle { columns, rows } = self.shrink(&all);
        if count < columns.len() * rows.len() / 8 * 7 {
            return self;
        }
        let mut filled = self;
        for row in rows {
            let words = masks(&columns).map(|(word, mask)| (row * filled.words + word, mask));
            words.for_each(|(at, mask)| filled.bits[at] |= mask);
        }
        filled
    }

    /// Adds the other columns of each coarse tile that has one.
    fn with_coarse_columns(mut self) -> Self {
        for bits in &mut self.bits {
            let pairs = *bits | *bits >> 1;
            let first = (pairs | pairs >> 2) & 0x1111_1111_1111_1111;
            *bits = first * 0xF;
        }
        let unused = self.columns % 64;
        if unused != 0 {
            let last = self.bits.iter_mut().skip(self.words - 1).step_by(self.words);
            last.for_each(|bits| *bits &= (1 << unused) - 1);
        }
        self
    }

    /// Returns rectangles that cover exactly the set, whose rows are `row_height` high. `None`:
    /// they are more than `limit`.
    fn rectangles(mut self, row_height: usize, limit: usize) -> Option<Vec<Rectangle>> {
        let mut rectangles = Vec::new();
        for row in 0..self.rows {
            let mut next = 0;
            while let Some(columns) = self.run(row, next) {
                if rectangles.len() == limit {
                    return None;
                }
                next = columns.end;
                let row_pixels = columns.len() * usize::from(SEGMENT) * row_height;
                let most = (MAX_RECTANGLE_PIXELS / row_pixels).max(1);
                let is_full = |row: &usize| self.has_all(*row, &columns);
                let count = (row..self.rows).take(most).take_while(is_full).count();
                for row in row..row + count {
                    masks(&columns)
                        .for_each(|(word, mask)| self.bits[row * self.words + word] &= !mask);
                }
                let rows = row * row_height..(row + count) * row_height;
                rectangles.push(Rectangle { columns, rows });
            }
        }
        Some(rectangles)
    }

    /// Returns the smallest rectangle with the segments of the set that are in `one`.
    fn shrink(&self, one: &Rectangle) -> Rectangle {
        let rows = one.rows.start..one.rows.end.min(self.rows);
        let is_used = |row: &usize| self.has_any(*row, &one.columns);
        let first = rows.clone().find(is_used).unwrap_or(rows.start);
        let last = rows.clone().rev().find(is_used).unwrap_or(first);
        let mut columns = one.columns.end..one.columns.start;
        for row in rows {
            let start = self.next(row, one.columns.start, 0);
            columns.start = columns.start.min(start);
            let mut next = start;
            while let Some(run) = self.run(row, next).filter(|run| run.start < one.columns.end) {
                columns.end = columns.end.max(run.end.min(one.columns.end));
                next = run.end;
            }
        }
        Rectangle { columns, rows: first..last + 1 }
    }
}

/// Columns of segments, and rows of pixels.
#[derive(Clone, Debug)]
struct Rectangle {
    columns: Range<usize>,
    rows: Range<usize>,
}

impl Rectangle {
    fn area(&self, width: u16, height: u16) -> Area {
        let half = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let pixels = |columns: usize| half(columns.saturating_mul(SEGMENT.into()));
        let (x, y) = (pixels(self.columns.start), half(self.rows.start));
        let (right, bottom) = (pixels(self.columns.end), half(self.rows.end));
        let area = Area { x, y, width: right.saturating_sub(x), height: bottom.saturating_sub(y) };
        area.clipped(width, height)
    }
}
