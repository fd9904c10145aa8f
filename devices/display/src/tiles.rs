//! Sets of tiles, and the rectangles that cover them.

use crate::protocol::Area;

/// Columns and rows of a tile.
pub(crate) const TILE: u16 = 16;

/// Maximum number of pixels of a rectangle, so that a viewer's waiting bytes have a bound.
pub(crate) const MAX_RECTANGLE_PIXELS: usize = 1 << 18;

/// Rectangles of an update from which on they are made of coarser tiles: each costs a head, and
/// compression begins again with each.
const MANY_RECTANGLES: usize = 64;

/// Tiles along each side of a coarse tile.
const COARSE: usize = 4;

/// A set of tiles of a screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TileSet {
    columns: usize,
    rows: usize,
    /// A bit for each tile, the first in the lowest, row by row.
    bits: Vec<u64>,
}

impl TileSet {
    /// Returns an empty set for a screen of `width` by `height` pixels.
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let [columns, rows] = [width, height].map(|one| usize::from(one.div_ceil(TILE)));
        Self::with_tiles(columns, rows)
    }

    fn with_tiles(columns: usize, rows: usize) -> Self {
        Self { columns, rows, bits: vec![0; (columns * rows).div_ceil(64)] }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.bits.iter().all(|bits| *bits == 0)
    }

    pub(crate) fn count(&self) -> usize {
        self.bits.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    pub(crate) fn add(&mut self, column: usize, row: usize) {
        let at = row * self.columns + column;
        self.bits[at / 64] |= 1 << (at % 64);
    }

    fn contains(&self, column: usize, row: usize) -> bool {
        let at = row * self.columns + column;
        self.bits[at / 64] >> (at % 64) & 1 != 0
    }

    fn remove(&mut self, column: usize, row: usize) {
        let at = row * self.columns + column;
        self.bits[at / 64] &= !(1 << (at % 64));
    }

    /// Adds the tiles of a set of the same screen.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine |= theirs;
        }
    }

    /// Adds the tiles that an area touches.
    pub(crate) fn add_area(&mut self, area: Area) {
        let (columns, rows) = self.touched(area);
        for row in rows {
            columns.clone().for_each(|column| self.add(column, row));
        }
    }

    /// Removes the tiles that an area touches, and returns those of them that were in the set.
    pub(crate) fn take_area(&mut self, area: Area) -> Self {
        let mut taken = Self::with_tiles(self.columns, self.rows);
        let (columns, rows) = self.touched(area);
        for row in rows {
            for column in columns.clone().filter(|column| self.contains(*column, row)) {
                taken.add(column, row);
            }
        }
        for (mine, theirs) in self.bits.iter_mut().zip(&taken.bits) {
            *mine &= !theirs;
        }
        taken
    }

    fn touched(&self, area: Area) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let range = |start: u16, length: u16, limit: usize| {
            let end = usize::from(start) + usize::from(length);
            let first = usize::from(start / TILE).min(limit);
            let last = if length == 0 { first } else { end.div_ceil(TILE.into()).min(limit) };
            first..last.max(first)
        };
        (range(area.x, area.width, self.columns), range(area.y, area.height, self.rows))
    }

    /// Returns rectangles that cover the set, of a screen of `width` by `height` pixels. If they
    /// would be many, they cover more than the set.
    pub(crate) fn into_areas(self, width: u16, height: u16) -> Vec<Area> {
        let coarse = self.coarse();
        let areas = self.areas(TILE, width, height, MANY_RECTANGLES);
        areas.unwrap_or_else(|| {
            let tile = TILE * COARSE as u16;
            coarse.areas(tile, width, height, usize::MAX).unwrap_or_default()
        })
    }

    fn coarse(&self) -> Self {
        let [columns, rows] = [self.columns, self.rows].map(|one| one.div_ceil(COARSE));
        let mut coarse = Self::with_tiles(columns, rows);
        for row in 0..self.rows {
            for column in (0..self.columns).filter(|column| self.contains(*column, row)) {
                coarse.add(column / COARSE, row / COARSE);
            }
        }
        coarse
    }

    /// Returns rectangles that cover exactly the set. `None`: they are more than `limit`.
    fn areas(mut self, tile: u16, width: u16, height: u16, limit: usize) -> Option<Vec<Area>> {
        let mut areas = Vec::new();
        for row in 0..self.rows {
            for column in 0..self.columns {
                if !self.contains(column, row) {
                    continue;
                }
                if areas.len() == limit {
                    return None;
                }
                let (columns, rows) = self.take_rectangle(column, row, tile);
                let pixels = |tiles: usize| tile.saturating_mul(tiles.try_into().unwrap_or(0));
                let area = Area {
                    x: pixels(column),
                    y: pixels(row),
                    width: pixels(columns),
                    height: pixels(rows),
                };
                areas.push(area.clipped(width, height));
            }
        }
        Some(areas)
    }

    /// Removes a rectangle of tiles of the set with the tile as its first, and returns its size.
    fn take_rectangle(&mut self, column: usize, row: usize, tile: u16) -> (usize, usize) {
        let run = (column..self.columns).take_while(|column| self.contains(*column, row)).count();
        let tile_pixels = usize::from(tile) * usize::from(tile);
        let most = (MAX_RECTANGLE_PIXELS / (run * tile_pixels)).max(1);
        let is_full = |row: &usize| (column..column + run).all(|one| self.contains(one, *row));
        let rows = (row..self.rows).take(most).take_while(is_full).count();
        for row in row..row + rows {
            (column..column + run).for_each(|column| self.remove(column, row));
        }
        (run, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(x: u16, y: u16, width: u16, height: u16) -> Area {
        Area { x, y, width, height }
    }

    #[test]
    fn test_area_adds_the_tiles_that_it_touches() {
        let mut set = TileSet::new(100, 50);
        set.add_area(area(15, 16, 2, 16));
        assert_eq!(set.count(), 2);
        assert_eq!(set.into_areas(100, 50), [area(0, 16, 32, 16)]);
    }

    #[test]
    fn test_areas_at_the_edge_are_clipped_to_the_screen() {
        let mut set = TileSet::new(100, 50);
        set.add_area(area(0, 0, u16::MAX, u16::MAX));
        assert_eq!(set.into_areas(100, 50), [area(0, 0, 100, 50)]);
    }

    #[test]
    fn test_empty_and_distant_areas_touch_no_tile() {
        let mut set = TileSet::new(100, 50);
        for one in [area(20, 20, 0, 5), area(20, 20, 5, 0), area(200, 0, 5, 5), area(0, 64, 9, 9)] {
            set.add_area(one);
        }
        assert!(set.is_empty());
    }

    #[test]
    fn test_take_area_leaves_the_other_tiles() {
        let mut set = TileSet::new(64, 64);
        set.add_area(area(0, 0, 64, 64));
        let taken = set.take_area(area(0, 0, 64, 20));
        assert_eq!((taken.count(), set.count()), (8, 8));
        assert_eq!(set.into_areas(64, 64), [area(0, 32, 64, 32)]);
    }

    #[test]
    fn test_no_rectangle_has_more_pixels_than_the_limit() {
        let mut set = TileSet::new(3840, 2160);
        set.add_area(area(0, 0, 3840, 2160));
        let areas = set.into_areas(3840, 2160);
        assert!(areas.iter().all(|one| one.pixels() <= MAX_RECTANGLE_PIXELS));
        assert_eq!(areas.iter().map(|one| one.pixels()).sum::<usize>(), 3840 * 2160);
    }

    #[test]
    fn test_many_rectangles_become_coarser_ones() {
        let mut set = TileSet::new(1024, 1024);
        for row in 0..64 {
            (0..64).filter(|column| (row + column) % 2 == 0).for_each(|one| set.add(one, row));
        }
        assert!(set.into_areas(1024, 1024).len() <= 4);
    }
}
