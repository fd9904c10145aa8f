//! Packets whose payload is filled in place, for example by `readv`.
//!
//! A payload is filled before its packet exists: the peer sees neither before the commit. Several
//! packets may be planned and filled together, and the last one may become shorter than planned.

use core::sync::atomic::Ordering;

use vm_memory::VolatileSlice;
use vmbus_protocol::num::usize_of;

use super::WriteBatch;
use crate::error::WriteError;
use crate::limits::MAX_PACKET_BYTES;
use crate::wire::{DESCRIPTOR_BYTES, Descriptor, PacketKind, TRAILER_BYTES, trailer};

impl WriteBatch<'_> {
    /// Returns the bytes of ring that an in-band packet with `payload` bytes of payload takes.
    /// `None`: no packet has so many.
    #[must_use]
    pub fn in_band_total(payload: u32) -> Option<u32> {
        let length = payload.checked_add(DESCRIPTOR_BYTES)?.checked_add(7)? & !7;
        (length <= MAX_PACKET_BYTES).then(|| length.wrapping_add(TRAILER_BYTES))
    }

    /// Returns the memory of payload bytes `offset..offset + len` of the in-band packet that begins
    /// `skip` bytes behind the batch's packets, in pieces. There are none if the bytes are not
    /// free, or `skip` or `offset` is not a multiple of 8.
    pub fn unwritten(
        &self,
        skip: u32,
        offset: u32,
        len: u32,
    ) -> impl Iterator<Item = VolatileSlice<'_>> {
        let start = skip.checked_add(DESCRIPTOR_BYTES).and_then(|sum| sum.checked_add(offset));
        let end = start.and_then(|start| start.checked_add(len));
        // The unit that stays free is not the caller's either.
        let is_free = end.is_some_and(|end| end < self.free) && (skip | offset) & 7 == 0;
        let memory = &self.ring.memory;
        let (start, len) = if is_free { (start.unwrap_or(0), len) } else { (0, 0) };
        // SAFETY: `pieces` guarantees that many mapped bytes while the memory lives, which the
        // result borrows.
        memory
            .pieces(memory.size().advance(self.at, start), len)
            .map(|(address, len)| unsafe { VolatileSlice::new(address.as_ptr(), len) })
    }

    /// Adds an in-band packet that needs no answer, with transaction id 0. Its payload is `head`,
    /// and `filled` bytes behind it that [`WriteBatch::unwritten`] has returned and the caller has
    /// filled. The length of `head` must be a multiple of 8.
    ///
    /// # Errors
    /// [`WriteError`]; the packets before this one stay in the batch.
    pub fn write_in_place(&mut self, head: &[u8], filled: u32) -> Result<(), WriteError> {
        let limit = self.ring.max_packet;
        let head_len = u32::try_from(head.len()).ok().filter(|len| len & 7 == 0);
        let payload = head_len.and_then(|len| len.checked_add(filled));
        let total = payload.and_then(Self::in_band_total);
        let (Some(payload), Some(total)) = (payload, total) else {
            return Err(WriteError::TooBig { length: u32::MAX, limit });
        };
        let length = total.wrapping_sub(TRAILER_BYTES);
        if length > limit {
            return Err(WriteError::TooBig { length, limit });
        }
        if self.free <= total && !self.has_room(total)? {
            return Err(WriteError::Full { needed: total });
        }
        let (memory, at) = (&self.ring.memory, self.at);
        let size = memory.size();
        let unit = |offset: u32| memory.word(size.advance(at, offset));
        let first =
            Descriptor::first_word(PacketKind::InBand, false, DESCRIPTOR_BYTES, length).to_le();
        unit(0).store(first, Ordering::Relaxed);
        unit(8).store(0, Ordering::Relaxed);
        memory.write(size.advance(at, DESCRIPTOR_BYTES), head);
        if payload & 7 != 0 {
            // The padding of the last unit is zero; its first bytes are the payload's.
            let last = unit(length.wrapping_sub(8));
            let mut bytes = last.load(Ordering::Relaxed).to_ne_bytes();
            bytes.iter_mut().skip(usize_of(payload & 7)).for_each(|byte| *byte = 0);
            last.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        unit(length).store(trailer(at.get()).to_le(), Ordering::Relaxed);
        self.at = size.advance(at, total);
        self.free = self.free.wrapping_sub(total);
        Ok(())
    }
}
