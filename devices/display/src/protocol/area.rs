//! Rectangles of pixels.

/// Columns `x..x + width` of rows `y..y + height`, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Area {
    /// The first column.
    pub x: u16,
    /// The first row.
    pub y: u16,
    /// Number of columns.
    pub width: u16,
    /// Number of rows.
    pub height: u16,
}

impl Area {
    /// Returns the number of pixels.
    pub fn pixels(self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }

    /// Returns areas that make up this one, of at most `width` by `height` pixels, which are not 0.
    pub fn split(self, width: u16, height: u16) -> impl Iterator<Item = Self> {
        let rows = (0..self.height).step_by(height.into());
        rows.flat_map(move |row| {
            (0..self.width).step_by(width.into()).map(move |column| Self {
                x: self.x + column,
                y: self.y + row,
                width: (self.width - column).min(width),
                height: (self.height - row).min(height),
            })
        })
    }

    /// Returns whether all of another area is in this one.
    pub fn contains(self, other: Self) -> bool {
        let has = |start: u16, length: u16, other: u16, others: u16| {
            let ends = [(start, length), (other, others)]
                .map(|(start, length)| u32::from(start) + u32::from(length));
            start <= other && ends[0] >= ends[1]
        };
        has(self.x, self.width, other.x, other.width)
            && has(self.y, self.height, other.y, other.height)
    }

    /// Returns the part of the area on a screen of `width` by `height` pixels, which may be empty.
    pub fn clipped(self, width: u16, height: u16) -> Self {
        let (x, y) = (self.x.min(width), self.y.min(height));
        Self { x, y, width: self.width.min(width - x), height: self.height.min(height - y) }
    }
}
