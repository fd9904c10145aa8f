//! Animations on a screen: drawn in a guest, and seen by a viewer.
//!
//! Each frame has its number in the colour of two blocks, one at each end of what it changes. A
//! viewer that sees the same number in both has the whole frame.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::pattern::mix;

/// What moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scene {
    /// A full screen of text moves up by one line.
    Scroll,
    /// A window moves sideways over a screen of text.
    Window,
    /// A block changes when a key is pressed. The interval has no effect.
    Key,
}

/// The colour of the blocks of frame 0; the frame's number is added. Nothing else has such colours.
const MARK: u32 = 0x0040_0000;
/// Pixels of a block's sides.
const BLOCK: usize = 8;

/// Pixels of a character.
const CELL: (usize, usize) = (8, 16);
const PAPER: u32 = 0x0010_1820;
const INK: u32 = 0x00C8_C8C8;

/// Pixels of the window, of its distance from the top, and of a step.
const WINDOW: (usize, usize) = (320, 240);
const WINDOW_TOP: usize = 256;
const STEP: usize = 12;

/// Pixels of the area that a key changes.
const KEY_AREA: Area = Area { columns: (96, 112), rows: (96, 112) };

/// An area of the screen, from the first column and row to those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Columns.
    pub columns: (usize, usize),
    /// Rows.
    pub rows: (usize, usize),
}

/// The picture of an animation.
#[derive(Debug, Clone)]
pub struct Animation {
    scene: Scene,
    width: usize,
    height: usize,
    /// The pixels behind window and blocks: `0x00RRGGBB`, rows from the top.
    page: Vec<u32>,
    /// The pixels of the last frame.
    pub pixels: Vec<u32>,
    /// Number of frames so far.
    frames: usize,
}

impl Animation {
    /// Returns an animation for a screen of this size, before its first frame.
    pub fn new(scene: Scene, width: usize, height: usize) -> Self {
        let page = vec![PAPER; width * height];
        let mut animation =
            Animation { scene, width, height, pixels: page.clone(), page, frames: 0 };
        for top in (0..height.saturating_sub(CELL.1 - 1)).step_by(CELL.1) {
            animation.write_line(top, top as u64);
        }
        animation.pixels.copy_from_slice(&animation.page);
        animation
    }

    /// Makes the next frame, which has a number. Returns the area that has changed.
    pub fn next_frame(&mut self, number: u16) -> Area {
        let area = match self.scene {
            Scene::Scroll => {
                self.page.copy_within(CELL.1 * self.width.., 0);
                let bottom = self.height - CELL.1;
                self.write_line(bottom, u64::from(number) << 16);
                Area { columns: (0, self.width), rows: (0, self.height) }
            }
            Scene::Window => {
                let room = self.width - WINDOW.0;
                let left = |frame: usize| (frame * STEP) % room;
                let (from, to) = (left(self.frames.saturating_sub(1)), left(self.frames));
                let columns = (from.min(to), from.max(to) + WINDOW.0);
                Area { columns, rows: (WINDOW_TOP, WINDOW_TOP + WINDOW.1) }
            }
            Scene::Key => KEY_AREA,
        };
        let width = self.width;
        let at = |row: usize, (start, end): (usize, usize)| row * width + start..row * width + end;
        for row in area.rows.0..area.rows.1 {
            let range = at(row, area.columns);
            self.pixels[range.clone()].copy_from_slice(&self.page[range]);
        }
        let shown = match self.scene {
            Scene::Window => {
                let left = (self.frames * STEP) % (width - WINDOW.0);
                self.draw_window(left);
                Area { columns: (left, left + WINDOW.0), ..area }
            }
            Scene::Scroll | Scene::Key => area,
        };
        let mark = MARK + u32::from(number);
        for row in 0..BLOCK {
            let (first, last) = (shown.rows.0 + row, shown.rows.1 - BLOCK + row);
            let (left, right) = shown.columns;
            self.pixels[at(first, (left, left + BLOCK))].fill(mark);
            self.pixels[at(last, (right - BLOCK, right))].fill(mark);
        }
        self.frames += 1;
        area
    }

    /// Writes a line of characters, which depend on `seed`.
    fn write_line(&mut self, top: usize, seed: u64) {
        for column in 0..self.width / CELL.0 {
            let random = mix(seed ^ (column as u64) << 32);
            // 64 characters, of which every fifth is a blank.
            let shape = if random.is_multiple_of(5) { 0 } else { mix(random >> 8 & 63) };
            for row in 0..CELL.1 {
                let bits = if (3..13).contains(&row) { shape >> (row / 2 * 8) } else { 0 };
                let start = (top + row) * self.width + column * CELL.0;
                for (bit, pixel) in self.page[start..start + CELL.0].iter_mut().enumerate() {
                    *pixel = if bits >> bit & 1 == 1 && bit < 7 { INK } else { PAPER };
                }
            }
        }
    }

    /// Draws the window: a bar, and a picture whose colours change slowly.
    fn draw_window(&mut self, left: usize) {
        for row in 0..WINDOW.1 {
            let start = (WINDOW_TOP + row) * self.width + left;
            for (column, pixel) in self.pixels[start..start + WINDOW.0].iter_mut().enumerate() {
                let (column, row) = (column as u32, row as u32);
                *pixel = match row {
                    0..24 => 0x000F_766E,
                    _ => 0x0080_0000 | (column / 2) << 8 | row,
                };
            }
        }
    }
}

/// Returns the number of the frame that a picture shows as a whole, if it does.
pub fn frame_of(scene: Scene, width: usize, height: usize, pixels: &[u32]) -> Option<u16> {
    let rows: Range<usize> = match scene {
        Scene::Scroll => 0..height,
        Scene::Window => WINDOW_TOP..WINDOW_TOP + WINDOW.1,
        Scene::Key => KEY_AREA.rows.0..KEY_AREA.rows.1,
    };
    let mark = |row: usize| {
        let line = pixels.get(row * width..(row + 1) * width)?;
        line.iter().find(|pixel| *pixel & 0x00FF_0000 == MARK).map(|pixel| *pixel as u16)
    };
    let (first, last) = (mark(rows.start)?, mark(rows.end - 1)?);
    (first == last).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (1024, 768);

    #[test]
    fn test_frame_changes_nothing_outside_of_its_area_and_shows_its_number() {
        for scene in [Scene::Scroll, Scene::Window, Scene::Key] {
            let mut animation = Animation::new(scene, SIZE.0, SIZE.1);
            assert_eq!(frame_of(scene, SIZE.0, SIZE.1, &animation.pixels), None);
            let mut seen = animation.pixels.clone();
            for number in 300..400 {
                let Area { columns, rows } = animation.next_frame(number);
                for row in rows.0..rows.1 {
                    let range = row * SIZE.0 + columns.0..row * SIZE.0 + columns.1;
                    seen[range.clone()].copy_from_slice(&animation.pixels[range]);
                }
                assert!(seen == animation.pixels, "{scene:?} {number}");
                assert_eq!(frame_of(scene, SIZE.0, SIZE.1, &seen), Some(number));
            }
        }
    }

    #[test]
    fn test_half_of_a_frame_has_no_number() {
        let mut animation = Animation::new(Scene::Scroll, SIZE.0, SIZE.1);
        animation.next_frame(7);
        let mut seen = animation.pixels.clone();
        animation.next_frame(8);
        let half = seen.len() / 2;
        seen[..half].copy_from_slice(&animation.pixels[..half]);
        assert_eq!(frame_of(Scene::Scroll, SIZE.0, SIZE.1, &seen), None);
    }
}
