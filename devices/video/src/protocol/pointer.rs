//! The shape of the guest's pointer, which arrives in parts.

use std::sync::Arc;

use super::limits::MAX_POINTER;

/// A pointer's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerShape {
    /// Pixels of a row, 1 to 96.
    pub width: u32,
    /// Number of rows, 1 to 96.
    pub height: u32,
    /// The column of the pixel that points, less than `width`.
    pub hot_x: u32,
    /// The row of the pixel that points, less than `height`.
    pub hot_y: u32,
    /// Rows from the top, without gaps: blue, green, red and alpha of each pixel.
    pub pixels: Arc<[u8]>,
}

/// A part of a shape, as the guest sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointerPart<'a> {
    /// Its number from 0, or [`PointerPart::LAST`].
    pub index: u8,
    /// Whether the pixels have colour and alpha, or are two masks of a bit a pixel.
    pub is_argb: bool,
    /// Pixels of a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// The column of the pixel that points.
    pub hot_x: u32,
    /// The row of the pixel that points.
    pub hot_y: u32,
    /// The part's bytes.
    pub data: &'a [u8],
}

impl PointerPart<'_> {
    /// The index of the last part, and of the only one.
    pub const LAST: u8 = 0xFF;

    /// Returns the bytes of all parts together. `None`: the size is out of range.
    fn expected(&self) -> Option<usize> {
        let range = 1..=MAX_POINTER;
        if !range.contains(&self.width) || !range.contains(&self.height) {
            return None;
        }
        let bytes = match self.is_argb {
            true => self.width * self.height * 4,
            false => self.width.div_ceil(8) * self.height * 2,
        };
        usize::try_from(bytes).ok()
    }
}

/// The parts that have arrived, at most 36,864 bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct PointerParts {
    data: Vec<u8>,
    next: u8,
}

/// The error of a part that is out of order, or of a size that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidShape;

impl PointerParts {
    /// Adds a part. Returns the shape with its last part. After an error, the next shape may begin.
    pub(super) fn add(
        &mut self,
        part: &PointerPart<'_>,
    ) -> Result<Option<PointerShape>, InvalidShape> {
        let added = self.try_add(part);
        if !matches!(added, Ok(None)) {
            self.data.clear();
            self.next = 0;
        }
        added
    }

    fn try_add(&mut self, part: &PointerPart<'_>) -> Result<Option<PointerShape>, InvalidShape> {
        let expected = part.expected().ok_or(InvalidShape)?;
        let missing = expected.checked_sub(self.data.len()).ok_or(InvalidShape)?;
        if part.index == PointerPart::LAST {
            // Messages of a fixed size have bytes after the last pixel.
            let data = part.data.get(..missing).ok_or(InvalidShape)?;
            self.data.extend_from_slice(data);
            return Ok(Some(self.shape(part)));
        }
        if part.index == 0 {
            self.data.clear();
        } else if part.index != self.next {
            return Err(InvalidShape);
        }
        if self.data.len() + part.data.len() > expected {
            return Err(InvalidShape);
        }
        self.data.extend_from_slice(part.data);
        self.next = part.index + 1;
        Ok(None)
    }

    fn shape(&self, last: &PointerPart<'_>) -> PointerShape {
        let PointerPart { width, height, .. } = *last;
        let pixels = match last.is_argb {
            true => self.data.as_slice().into(),
            false => from_masks(&self.data, width),
        };
        PointerShape {
            width,
            height,
            hot_x: last.hot_x.min(width - 1),
            hot_y: last.hot_y.min(height - 1),
            pixels,
        }
    }
}

/// Converts an AND mask and the XOR mask after it, each of a bit a pixel, the first pixel in the
/// highest bit of a byte. Inverted pixels become black, as viewers cannot invert.
fn from_masks(masks: &[u8], width: u32) -> Arc<[u8]> {
    const TRANSPARENT: [u8; 4] = [0; 4];
    const BLACK: [u8; 4] = [0, 0, 0, 0xFF];
    const WHITE: [u8; 4] = [0xFF; 4];
    let (and, xor) = masks.split_at(masks.len() / 2);
    let row = width.div_ceil(8) as usize;
    let rows = and.chunks_exact(row).zip(xor.chunks_exact(row));
    let pixels = rows.flat_map(|(and, xor)| {
        (0..width as usize).flat_map(move |column| {
            let bit = |mask: &[u8]| mask[column / 8] & 0x80 >> (column % 8) != 0;
            match (bit(and), bit(xor)) {
                (true, false) => TRANSPARENT,
                (false, true) => WHITE,
                (_, false) | (true, true) => BLACK,
            }
        })
    });
    pixels.collect()
}
