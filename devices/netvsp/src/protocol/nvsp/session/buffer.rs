//! The receive buffer and the send buffer, each shared once in a session.

use super::super::error::ProtocolError;

/// Shape of a GPADL that is to be a receive or send buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpadl {
    /// Number of ranges. A buffer has one.
    pub ranges: usize,
    /// Offset of the first byte in its page. A buffer has 0.
    pub byte_offset: u32,
    /// Number of bytes.
    pub length: u64,
}

impl Gpadl {
    /// Returns the number of bytes if the shape is that of a buffer.
    fn buffer_length(self) -> Option<u32> {
        let is_buffer = self.ranges == 1 && self.byte_offset == 0;
        u32::try_from(self.length).ok().filter(|_| is_buffer)
    }
}

/// State of a buffer that the guest shares once in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffer<T> {
    Absent,
    Requested(u16),
    Accepted { id: u16, length: u32, layout: T },
    Revoked,
}

impl<T: Copy> Buffer<T> {
    /// Notes that the guest sent the buffer in `message`.
    pub(super) fn request(&mut self, id: u16, message: &'static str) -> Result<(), ProtocolError> {
        if !matches!(self, Self::Absent) {
            return Err(ProtocolError::Repeated(message));
        }
        *self = Self::Requested(id);
        Ok(())
    }

    /// Notes that the guest took the buffer back. Returns true if it was in use.
    pub(super) fn revoke(&mut self) -> bool {
        let is_accepted = matches!(self, Self::Accepted { .. });
        if !matches!(self, Self::Absent) {
            *self = Self::Revoked;
        }
        is_accepted
    }

    /// Accepts or refuses a requested buffer. `gpadl`: `None` if there is no such GPADL.
    pub(super) fn complete(
        &mut self,
        gpadl: Option<Gpadl>,
        layout: impl FnOnce(u32) -> Option<T>,
    ) -> Option<T> {
        let Self::Requested(id) = *self else { return None };
        let accepted = gpadl
            .and_then(Gpadl::buffer_length)
            .and_then(|length| layout(length).map(|layout| (length, layout)));
        *self = match accepted {
            Some((length, layout)) => Self::Accepted { id, length, layout },
            None => Self::Absent,
        };
        accepted.map(|(_, layout)| layout)
    }

    /// Returns the layout of an accepted buffer.
    pub(super) fn layout(&self) -> Option<T> {
        match *self {
            Self::Accepted { layout, .. } => Some(layout),
            Self::Absent | Self::Requested(_) | Self::Revoked => None,
        }
    }
}
