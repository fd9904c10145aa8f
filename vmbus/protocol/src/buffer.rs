//! A message on its way out: bytes of exactly the message's size, without an allocation.

use zerocopy::{Immutable, IntoBytes};

use crate::limits::MAX_MESSAGE_SIZE;
use crate::message::MessageType;

/// A complete channel message, header included.
#[derive(Clone, Copy)]
pub struct MessageBuffer {
    bytes: [u8; MAX_MESSAGE_SIZE],
    len: usize,
}

impl MessageBuffer {
    /// A message of a header only.
    #[must_use]
    pub fn bare(kind: MessageType) -> Self {
        Self::new(kind, &())
    }

    /// A message of `kind` with `body`. Bodies of this crate always fit; a longer one is cut.
    #[inline]
    #[must_use]
    pub fn new<T: IntoBytes + Immutable>(kind: MessageType, body: &T) -> Self {
        Self::with_data(kind, body, &[])
    }

    /// A message of `kind` with `body` and `data` behind it (GPADL range data).
    #[inline]
    #[must_use]
    pub fn with_data<T: IntoBytes + Immutable>(kind: MessageType, body: &T, data: &[u8]) -> Self {
        let mut message = Self { bytes: [0; MAX_MESSAGE_SIZE], len: 0 };
        message.append(&kind.number().to_le_bytes());
        message.append(&[0; 4]);
        message.append(body.as_bytes());
        message.append(data);
        message
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Adds `data`, cut where the message is full. Inlined, and not a loop over bytes: the sizes
    /// are constants at nearly every call, and a message is moved twice right after, by loads that
    /// would wait for so many narrow stores.
    #[inline]
    fn append(&mut self, data: &[u8]) {
        let Some(space) = self.bytes.get_mut(self.len..) else { return };
        let count = data.len().min(space.len());
        if let (Some(to), Some(from)) = (space.get_mut(..count), data.get(..count)) {
            to.copy_from_slice(from);
        }
        self.len = self.len.saturating_add(count);
    }
}

impl core::fmt::Debug for MessageBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("MessageBuffer").field(&self.as_bytes()).finish()
    }
}
