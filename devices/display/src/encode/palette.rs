//! The colours of a rectangle, if they are few.

/// The most colours of a palette.
pub(super) const MAX_COLOURS: usize = 256;

/// Slots of the hash table: twice the colours, so that chains stay short.
const SLOTS: usize = 2 * MAX_COLOURS;

/// A set of colours in the order of their appearance.
pub(super) struct Palette {
    colours: Vec<u32>,
    /// One more than the index of a colour; 0: unused.
    slots: [u16; SLOTS],
}

impl Palette {
    /// Returns the colours of `values`. `None`: they are more than `limit`, which is at most
    /// [`MAX_COLOURS`].
    pub(super) fn of(values: impl Iterator<Item = u32>, limit: usize) -> Option<Self> {
        let mut palette = Self { colours: Vec::new(), slots: [0; SLOTS] };
        let mut last = None;
        for value in values {
            if last == Some(value) {
                continue;
            }
            last = Some(value);
            let slot = palette.slot(value);
            if palette.slots[slot] == 0 {
                if palette.colours.len() == limit {
                    return None;
                }
                palette.colours.push(value);
                palette.slots[slot] = palette.colours.len() as u16;
            }
        }
        Some(palette)
    }

    pub(super) fn colours(&self) -> &[u32] {
        &self.colours
    }

    /// Returns the index of a colour of the palette.
    pub(super) fn index(&self, value: u32) -> u8 {
        (self.slots[self.slot(value)].saturating_sub(1)) as u8
    }

    /// Returns a function that returns indices as [`Palette::index`] does, and is faster if a
    /// colour is the same as the one before.
    pub(super) fn indices(&self) -> impl FnMut(u32) -> u8 {
        let mut last = (self.colours.first().copied().unwrap_or(0), 0);
        move |value| {
            if value != last.0 {
                last = (value, self.index(value));
            }
            last.1
        }
    }

    /// Returns the slot with a colour, or the unused one for it.
    fn slot(&self, value: u32) -> usize {
        let mut slot = (value.wrapping_mul(0x9E37_79B1) >> 23) as usize % SLOTS;
        while let at @ 1.. = self.slots[slot] {
            if self.colours[usize::from(at) - 1] == value {
                break;
            }
            slot = (slot + 1) % SLOTS;
        }
        slot
    }
}
