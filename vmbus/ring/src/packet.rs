//! One packet of an incoming ring.

use alloc::vec;
use alloc::vec::Vec;

#[cfg(feature = "std")]
use vm_memory::VolatileSlice;
use vmbus_protocol::num::usize_of;
use zerocopy::{FromBytes, IntoBytes};

use crate::memory::RingMemory;
use crate::offset::Offset;
use crate::wire::{Descriptor, PacketKind};

/// A packet with a validated descriptor. The payload is still in the ring: the peer can change it
/// until it is copied.
#[derive(Debug)]
pub struct Packet<'a> {
    memory: &'a RingMemory,
    start: Offset,
    descriptor: Descriptor,
}

impl<'a> Packet<'a> {
    #[inline]
    pub(crate) fn new(memory: &'a RingMemory, start: Offset, descriptor: Descriptor) -> Self {
        Self { memory, start, descriptor }
    }

    /// Returns the kind of the packet.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> PacketKind {
        self.descriptor.kind
    }

    /// Returns the sender's id for the exchange, which a completion repeats. It is not unique, and
    /// 0 is a valid value.
    #[inline]
    #[must_use]
    pub fn transaction_id(&self) -> u64 {
        self.descriptor.transaction_id
    }

    /// Returns true when the sender expects a completion. Otherwise there must be none.
    #[inline]
    #[must_use]
    pub fn completion_requested(&self) -> bool {
        self.descriptor.completion_requested
    }

    /// Returns the bytes of payload, a multiple of 8. They include up to 7 bytes of padding, as
    /// protocols have length fields of their own.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize_of(self.descriptor.length.wrapping_sub(self.descriptor.data_offset))
    }

    /// Returns a copy of the payload: [`Packet::payload_len`] bytes.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.payload_len()];
        self.read_payload(&mut bytes);
        bytes
    }

    /// Copies the payload, as many bytes as `to` has. Returns the number of copied bytes.
    #[inline(always)]
    pub fn read_payload(&self, to: &mut [u8]) -> usize {
        self.read_payload_at(0, to)
    }

    /// Copies the payload from byte `offset` on, as many bytes as `to` has. Returns the number of
    /// copied bytes: 0 at and beyond the end.
    #[inline(always)]
    pub fn read_payload_at(&self, offset: usize, to: &mut [u8]) -> usize {
        let len = self.payload_len().saturating_sub(offset).min(to.len());
        let Some(to) = to.get_mut(..len) else { return 0 };
        if len != 0 {
            self.read_at(usize_of(self.descriptor.data_offset).wrapping_add(offset), to);
        }
        len
    }

    /// Returns a copy of the first bytes of the payload as a structure. `None` when the payload is
    /// shorter.
    #[inline]
    #[must_use]
    pub fn read<T: FromBytes + IntoBytes>(&self) -> Option<T> {
        if self.payload_len() < size_of::<T>() {
            return None;
        }
        let mut value = T::new_zeroed();
        self.read_payload(value.as_mut_bytes());
        Some(value)
    }

    /// Returns the payload in the ring, if it is one piece: always in a mirrored ring. It is not
    /// copied, and the peer can change it at any moment.
    #[cfg(feature = "std")]
    #[inline]
    #[must_use]
    pub fn payload_slice(&self) -> Option<VolatileSlice<'_>> {
        let len = self.descriptor.length.wrapping_sub(self.descriptor.data_offset);
        let address = self.memory.contiguous(self.payload_start(), len)?;
        // SAFETY: `contiguous` guarantees `len` mapped bytes while the memory lives, which 'a
        // borrows.
        Some(unsafe { VolatileSlice::new(address.as_ptr(), usize_of(len)) })
    }

    /// Returns the payload in the ring, in pieces.
    #[cfg(feature = "std")]
    pub fn payload_slices(&self) -> impl Iterator<Item = VolatileSlice<'a>> + use<'a> {
        let len = self.descriptor.length.wrapping_sub(self.descriptor.data_offset);
        // SAFETY: `pieces` guarantees that many mapped bytes while the memory lives, which 'a
        // borrows.
        self.memory
            .pieces(self.payload_start(), len)
            .map(|(address, len)| unsafe { VolatileSlice::new(address.as_ptr(), len) })
    }

    /// Returns the bytes before the payload, descriptor included: 16 to 524,280, a multiple of 8.
    #[inline]
    pub(crate) fn header_len(&self) -> u32 {
        self.descriptor.data_offset
    }

    /// Copies from byte `offset` of the packet. `offset + to.len()` must be inside it.
    #[inline(always)]
    pub(crate) fn read_at(&self, offset: usize, to: &mut [u8]) {
        let size = self.memory.size();
        let Ok(offset) = u32::try_from(offset) else { return };
        if offset & 7 == 0 {
            self.memory.read(size.advance(self.start, offset), to);
        } else {
            // The fields are passed one by one: the packet stays in registers unless its address is
            // taken.
            read_between_units(self.memory, self.start, offset, to);
        }
    }

    #[cfg(feature = "std")]
    #[inline]
    fn payload_start(&self) -> Offset {
        self.memory.size().advance(self.start, self.descriptor.data_offset)
    }
}

/// Copies from byte `offset` of the packet at `start`, which is inside one of the ring's units of 8
/// bytes, through a copy of the first unit.
#[inline(never)]
fn read_between_units(memory: &RingMemory, start: Offset, offset: u32, to: &mut [u8]) {
    let size = memory.size();
    let at = size.advance(start, offset & !7);
    let mut unit = [0_u8; 8];
    memory.read(at, &mut unit);
    let Some(tail) = unit.get(usize_of(offset & 7)..) else { return };
    let len = tail.len().min(to.len());
    let (Some(tail), Some((now, later))) = (tail.get(..len), to.split_at_mut_checked(len)) else {
        return;
    };
    now.copy_from_slice(tail);
    if !later.is_empty() {
        memory.read(size.advance(at, 8), later);
    }
}
