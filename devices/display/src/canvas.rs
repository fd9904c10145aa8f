//! The server's copy of the screen: what viewers are sent, and when each tile changed.

mod moves;

use synthvm_video::Frame;
use synthvm_video::protocol::Rectangle;

use crate::protocol::Area;
use crate::segments::{Move, SEGMENT, SegmentSet};

/// Columns and rows of a tile.
const TILE: usize = 16;

/// Pixels of a segment.
const PIXELS: usize = SEGMENT as usize;

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
    previous: Previous,
}

/// Rows as they were before a refresh.
#[derive(Debug, Default)]
struct Previous {
    /// As the canvas has them. Empty: nothing has looked for moves yet.
    pixels: Vec<u32>,
    /// The refresh in which each row was copied last.
    copied: Vec<u64>,
}

/// The result of a refresh.
#[derive(Debug)]
pub(crate) struct Refreshed {
    /// Segments that have changed.
    pub(crate) changed: SegmentSet,
    /// Areas that have moved, in the order in which they can be moved one after the other.
    pub(crate) moves: Vec<Move>,
    /// Segments that still differ after the moves.
    pub(crate) rest: SegmentSet,
    /// Number of segments that were compared.
    pub(crate) compared: usize,
}

impl Canvas {
    /// Returns a black canvas.
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let size = usize::from(width) * usize::from(height);
        let tiles = [width, height].map(|one| usize::from(one).div_ceil(TILE));
        Self {
            width,
            height,
            pixels: vec![0; size],
            changed: vec![0; tiles[0] * tiles[1]],
            refresh: 0,
            row: Vec::new(),
            previous: Previous::default(),
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

    /// Copies rectangles of a frame of the canvas's size, and returns what differs. `finds_moves`:
    /// whether it is of use to know that areas have moved.
    pub(crate) fn refresh(
        &mut self,
        frame: &Frame,
        rectangles: &[Rectangle],
        finds_moves: bool,
    ) -> Refreshed {
        self.refresh += 1;
        if finds_moves && self.previous.pixels.is_empty() {
            let height = self.height.into();
            self.previous =
                Previous { pixels: vec![0; self.pixels.len()], copied: vec![0; height] };
        }
        let mut changed = SegmentSet::new(self.width, self.height);
        let mut compared = 0;
        for rectangle in rectangles {
            let Rectangle { left, top, right, bottom } = *rectangle;
            // Whole segments.
            let left = left as usize / PIXELS * PIXELS;
            let right = (right as usize).next_multiple_of(PIXELS).min(self.width.into());
            let (top, bottom) = (top as usize, (bottom as usize).min(self.height.into()));
            if left >= right || top >= bottom {
                continue;
            }
            for y in top..bottom {
                self.refresh_row(frame, y, left..right, finds_moves, &mut changed);
            }
            compared += (right - left).div_ceil(PIXELS) * (bottom - top);
        }
        self.note_changes(&changed);
        let mut rest = changed.clone();
        let moves = if finds_moves { moves::find(self, &changed) } else { Vec::new() };
        moves.iter().for_each(|one| rest.remove_area(one.area));
        Refreshed { changed, moves, rest, compared }
    }

    fn refresh_row(
        &mut self,
        frame: &Frame,
        y: usize,
        columns: std::ops::Range<usize>,
        finds_moves: bool,
        changed: &mut SegmentSet,
    ) {
        let row = u32::try_from(y).ok().and_then(|y| frame.row(y));
        let Some(bytes) =
            row.and_then(|row| row.subslice(columns.start * 4, columns.len() * 4).ok())
        else {
            return;
        };
        self.row.resize(bytes.len(), 0);
        bytes.copy_to(&mut self.row[..]);
        let start = y * usize::from(self.width);
        let old = &mut self.pixels[start + columns.start..start + columns.end];
        if !compare(old, &self.row, |index| changed.add(columns.start / PIXELS + index, y)) {
            return;
        }
        if finds_moves && self.previous.copied[y] != self.refresh {
            self.previous.copied[y] = self.refresh;
            let whole = start..start + usize::from(self.width);
            self.previous.pixels[whole.clone()].copy_from_slice(&self.pixels[whole]);
        }
        let (new, _) = self.row.as_chunks::<4>();
        let old = &mut self.pixels[start + columns.start..start + columns.end];
        old.iter_mut().zip(new).for_each(|(old, new)| *old = pixel(new));
    }

    /// Notes the refresh in which tiles with changed segments changed last.
    fn note_changes(&mut self, changed: &SegmentSet) {
        let tiles = changed.merged(TILE);
        for row in 0..tiles.rows() {
            let first = row * tiles.columns();
            tiles.row(row).for_each(|column| self.changed[first + column] = self.refresh);
        }
    }

    /// Returns the refresh in which an area changed last, at the canvas's size.
    pub(crate) fn changed_at(&self, area: Area) -> u64 {
        let area = area.clipped(self.width, self.height);
        let columns = usize::from(self.width).div_ceil(TILE);
        let tiles = |start: u16, length: u16| {
            let start = usize::from(start);
            start / TILE..(start + usize::from(length)).div_ceil(TILE)
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

    /// Returns some pixels of a row.
    fn row(&self, y: usize, columns: std::ops::Range<usize>) -> &[u32] {
        let start = y * usize::from(self.width);
        &self.pixels[start + columns.start..start + columns.end]
    }

    /// Returns some pixels of a row as they were before the last refresh, which looked for moves.
    fn previous_row(&self, y: usize, columns: std::ops::Range<usize>) -> &[u32] {
        if !self.has_row_changed(y) {
            return self.row(y, columns);
        }
        let start = y * usize::from(self.width);
        &self.previous.pixels[start + columns.start..start + columns.end]
    }

    /// Returns whether a row changed in the last refresh, which looked for moves.
    fn has_row_changed(&self, y: usize) -> bool {
        self.previous.copied[y] == self.refresh
    }
}

/// Compares a part of a row with that of the frame, and calls `differs` with each segment that has
/// other pixels. Returns whether there is one.
fn compare(old: &[u32], new: &[u8], mut differs: impl FnMut(usize)) -> bool {
    let different = |old: &[u32], new: &[[u8; 4]]| {
        // Compares all, without a branch for each.
        old.iter().zip(new).fold(0, |all, (old, new)| all | (old ^ pixel(new))) != 0
    };
    let (new, _) = new.as_chunks::<4>();
    // Whole segments apart, so that their length is known when this is compiled.
    let ((olds, old_rest), (news, new_rest)) =
        (old.as_chunks::<PIXELS>(), new.as_chunks::<PIXELS>());
    let mut is_any = false;
    for (index, (old, new)) in olds.iter().zip(news).enumerate() {
        if different(old, new) {
            differs(index);
            is_any = true;
        }
    }
    if different(old_rest, new_rest) {
        differs(olds.len());
        is_any = true;
    }
    is_any
}

fn pixel(bytes: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*bytes) & 0x00FF_FFFF
}
