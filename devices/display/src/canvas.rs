//! The server's copy of the screen: what viewers are sent, and when each tile changed.

use synthvm_video::Frame;
use synthvm_video::protocol::Rectangle;

use crate::protocol::Area;
use crate::tiles::{TILE, TileSet};

/// A copy of the screen. All viewers are sent from it, so all see the same picture.
#[derive(Debug)]
pub(crate) struct Canvas {
    width: u16,
    height: u16,
    /// Pixels as `0x00RRGGBB`, row by row.
    pixels: Vec<u32>,
    /// The refresh in which each tile changed last.
    changed: Vec<u64>,
    /// The number of the last refresh.
    refresh: u64,
    /// The bytes of the part of a row that is read.
    row: Vec<u8>,
}

/// The result of a refresh.
#[derive(Debug)]
pub(crate) struct Refreshed {
    /// Tiles that have changed.
    pub(crate) changed: TileSet,
    /// Number of tiles that were compared.
    pub(crate) compared: usize,
}

impl Canvas {
    /// Returns a black canvas.
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let size = usize::from(width) * usize::from(height);
        let tiles = [width, height].map(|one| usize::from(one.div_ceil(TILE)));
        Self {
            width,
            height,
            pixels: vec![0; size],
            changed: vec![0; tiles[0] * tiles[1]],
            refresh: 0,
            row: Vec::new(),
        }
    }

    pub(crate) fn width(&self) -> u16 {
        self.width
    }

    pub(crate) fn height(&self) -> u16 {
        self.height
    }

    /// Makes the canvas black, with another size. Later refreshes have higher numbers.
    pub(crate) fn reset(&mut self, width: u16, height: u16) {
        let refresh = self.refresh + 1;
        *self = Self { refresh, ..Self::new(width, height) };
        self.changed.fill(refresh);
    }

    /// Copies rectangles of a frame of the canvas's size, and returns the tiles that differ.
    pub(crate) fn refresh(&mut self, frame: &Frame, rectangles: &[Rectangle]) -> Refreshed {
        self.refresh += 1;
        let mut compared = TileSet::new(self.width, self.height);
        let mut changed = compared.clone();
        for rectangle in rectangles {
            let Rectangle { left, top, right, bottom } = *rectangle;
            let right = right.min(self.width.into());
            for y in top..bottom.min(self.height.into()) {
                self.refresh_row(frame, y, left as usize..right as usize, &mut changed);
            }
            let half = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
            let (x, y) = (half(left), half(top));
            let (width, height) = (half(right) - x.min(half(right)), half(bottom) - y);
            compared.add_area(Area { x, y, width, height });
        }
        Refreshed { changed, compared: compared.count() }
    }

    fn refresh_row(
        &mut self,
        frame: &Frame,
        y: u32,
        columns: std::ops::Range<usize>,
        changed: &mut TileSet,
    ) {
        let Some(bytes) =
            frame.row(y).and_then(|row| row.subslice(columns.start * 4, columns.len() * 4).ok())
        else {
            return;
        };
        self.row.resize(bytes.len(), 0);
        bytes.copy_to(&mut self.row[..]);
        let (tile, row) = (usize::from(TILE), y as usize / usize::from(TILE));
        let start = y as usize * usize::from(self.width);
        let (mut pixels, _) = self.row.as_chunks::<4>();
        let mut x = columns.start;
        while x < columns.end {
            let end = (x + 1).next_multiple_of(tile).min(columns.end);
            let (new, rest) = pixels.split_at(end - x);
            let old = &mut self.pixels[start + x..start + end];
            let pixel = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) & 0x00FF_FFFF;
            // Compares all, without a branch for each.
            let differs = old.iter().zip(new).fold(0, |all, (old, new)| all | (old ^ pixel(new)));
            if differs != 0 {
                old.iter_mut().zip(new).for_each(|(old, new)| *old = pixel(new));
                changed.add(x / tile, row);
                let columns = usize::from(self.width.div_ceil(TILE));
                self.changed[row * columns + x / tile] = self.refresh;
            }
            (pixels, x) = (rest, end);
        }
    }

    /// Returns the refresh in which an area changed last, at the canvas's size.
    pub(crate) fn changed_at(&self, area: Area) -> u64 {
        let area = area.clipped(self.width, self.height);
        let columns = usize::from(self.width.div_ceil(TILE));
        let tiles = |start: u16, length: u16| {
            usize::from(start / TILE)..(usize::from(start) + usize::from(length)).div_ceil(16)
        };
        let rows = tiles(area.y, area.height);
        let cells = rows.flat_map(|row| {
            self.changed[row * columns..][tiles(area.x, area.width)].iter().copied()
        });
        cells.max().unwrap_or(0)
    }

    /// Copies an area, row by row. What is not on the canvas is black.
    pub(crate) fn read(&self, area: Area, into: &mut Vec<u32>) {
        into.clear();
        let on = area.clipped(self.width, self.height);
        for y in on.y..on.y + on.height {
            let start = usize::from(y) * usize::from(self.width) + usize::from(on.x);
            into.extend_from_slice(&self.pixels[start..start + usize::from(on.width)]);
            into.extend(std::iter::repeat_n(0, usize::from(area.width - on.width)));
        }
        into.resize(area.pixels(), 0);
    }
}
