//! The send buffer: guest memory in sections for short messages (netvsc section 3.2).

use std::ops::Range;

use super::super::limits::SECTION_SIZE;
use super::guest_message::Section;

/// Geometry of an accepted send buffer. Small, so that every channel keeps a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendBuffer {
    length: u32,
}

impl SendBuffer {
    /// Returns the geometry of a buffer of `length` bytes. `None`: too small for one section.
    pub fn new(length: u32) -> Option<Self> {
        (length >= SECTION_SIZE).then_some(Self { length })
    }

    /// Returns the number of bytes of the buffer.
    pub fn length(self) -> u32 {
        self.length
    }

    /// Returns the number of whole sections.
    pub fn sections(self) -> u32 {
        self.length / SECTION_SIZE
    }

    /// Returns the bytes of the buffer that `section` names. `None`: some of them are outside the
    /// buffer, and the packet must be completed with a failure.
    pub fn locate(self, section: Section) -> Option<Range<u32>> {
        let start = section.index.checked_mul(SECTION_SIZE)?;
        let end = start.checked_add(section.size)?;
        (end <= self.length).then_some(start..end)
    }
}
