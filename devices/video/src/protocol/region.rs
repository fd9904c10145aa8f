//! The changed part of a screen.

/// Maximum number of rectangles of a region. A further one makes the region its bounding box, so
/// that a flood of updates costs a guest's time and not the host's memory.
const MAX_RECTANGLES: usize = 32;

/// A rectangle of pixels that is not empty: columns `left..right` of rows `top..bottom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// The first column.
    pub left: u32,
    /// The first row.
    pub top: u32,
    /// One past the last column.
    pub right: u32,
    /// One past the last row.
    pub bottom: u32,
}

impl Rectangle {
    /// Returns the part of a guest's rectangle that is on a screen of `width` by `height` pixels.
    /// `None`: nothing of it is, or its corners are swapped.
    pub fn clipped(corners: [i32; 4], width: u32, height: u32) -> Option<Self> {
        let [left, top, right, bottom] = corners.map(|one| u32::try_from(one).unwrap_or(0));
        let (right, bottom) = (right.min(width), bottom.min(height));
        (left < right && top < bottom).then_some(Self { left, top, right, bottom })
    }

    /// Returns the smallest rectangle that contains both.
    pub fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// Returns whether every pixel of `other` is in this rectangle.
    pub fn contains(self, other: Self) -> bool {
        self.union(other) == self
    }
}

/// A set of pixels as rectangles, which may overlap. It may have more pixels than were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region(Vec<Rectangle>);

impl Region {
    /// Adds a rectangle.
    pub fn add(&mut self, rectangle: Rectangle) {
        if self.0.iter().any(|one| one.contains(rectangle)) {
            return;
        }
        self.0.retain(|one| !rectangle.contains(*one));
        if self.0.len() == MAX_RECTANGLES {
            let bounds = self.0.drain(..).fold(rectangle, Rectangle::union);
            self.0.push(bounds);
        } else {
            self.0.push(rectangle);
        }
    }

    /// Removes all pixels.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the rectangles: at most 32.
    pub fn rectangles(&self) -> &[Rectangle] {
        &self.0
    }
}
