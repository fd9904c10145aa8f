//! The ring that this end writes.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use vmbus_protocol::num::usize_of;

use crate::control::{FEATURE_PENDING_SEND_SIZE, pending_for};
use crate::ends::end_accessors;
use crate::error::{RingError, WriteError};
use crate::incoming::{check_read, check_write};
use crate::limits::MAX_PACKET_BYTES;
use crate::memory::{RingMemory, copy_to_shared};
use crate::offset::Offset;
use crate::wire::{DESCRIPTOR_BYTES, Descriptor, PacketKind, TRAILER_BYTES, trailer};

#[cfg(feature = "std")]
mod in_place;

/// The producer of a ring: on a host the host-to-guest ring, on a guest the other one.
#[derive(Debug)]
pub struct Outgoing {
    memory: RingMemory,
    /// The producer's own index. The copy in the control page is for the peer; this end never reads
    /// it.
    write: Offset,
    /// The peer's index at the last read. It only moves towards more free space, so an old value is
    /// safe.
    read: Offset,
    /// Longest packet without trailer.
    max_packet: u32,
    /// Whether the consumer signals when it releases space. Otherwise the producer must poll.
    peer_tells_space: bool,
    waiting: bool,
    stopped: Option<RingError>,
}

/// A packet to write.
#[derive(Clone, Copy, Debug)]
pub struct OutPacket<'a> {
    /// The kind of the packet.
    pub kind: PacketKind,
    /// A request's own id; in a completion the id of the request, unchanged.
    pub transaction_id: u64,
    /// Whether the sender requests a completion.
    pub completion_requested: bool,
    /// The bytes between descriptor and payload: range lists (see
    /// [`crate::transfer_pages_header`]). They are padded to 8 bytes with zeroes.
    pub header: &'a [u8],
    /// The payload, concatenated from pieces. It is padded to 8 bytes with zeroes.
    pub payload: &'a [&'a [u8]],
}

/// The result of [`Outgoing::wait_for_space`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceWait {
    /// The space is free now, so the producer can write. No request remains in the ring.
    Ready,
    /// The peer will signal when the space is free. The producer must then call
    /// [`Outgoing::space_came`].
    Signalled,
    /// The peer is too old to signal, so the producer must poll.
    Poll,
}

impl<'a> OutPacket<'a> {
    /// Returns data that needs no answer.
    #[must_use]
    pub fn in_band(transaction_id: u64, payload: &'a [&'a [u8]]) -> Self {
        Self {
            kind: PacketKind::InBand,
            transaction_id,
            completion_requested: false,
            header: &[],
            payload,
        }
    }

    /// Returns data that needs a completion.
    #[must_use]
    pub fn request(transaction_id: u64, payload: &'a [&'a [u8]]) -> Self {
        Self { completion_requested: true, ..Self::in_band(transaction_id, payload) }
    }

    /// Returns the answer to the request `transaction_id`.
    #[must_use]
    pub fn completion(transaction_id: u64, payload: &'a [&'a [u8]]) -> Self {
        Self { kind: PacketKind::Completion, ..Self::in_band(transaction_id, payload) }
    }

    /// Returns the packet with external data: `header` from [`crate::gpa_direct_header`] or
    /// [`crate::transfer_pages_header`].
    #[must_use]
    pub fn with_header(self, kind: PacketKind, header: &'a [u8]) -> Self {
        Self { kind, header, ..self }
    }

    /// Returns the layout: the offset of the payload, and the bytes without trailer. `None` when
    /// they need more than 32 bits.
    #[inline(always)]
    fn layout(&self) -> Option<Layout> {
        let header = u32::try_from(self.header.len()).ok()?.checked_add(DESCRIPTOR_BYTES)?;
        let payload =
            self.payload.iter().try_fold(0_usize, |sum, piece| sum.checked_add(piece.len()))?;
        let payload = u32::try_from(payload).ok()?;
        let data_offset = header.checked_add(7)? & !7;
        let end = data_offset.checked_add(payload)?;
        let length = end.checked_add(7)? & !7;
        Some(Layout {
            data_offset,
            length,
            header_padded: header != data_offset,
            payload_padded: end != length,
        })
    }
}

/// The positions of a packet's parts, in bytes from its start.
struct Layout {
    data_offset: u32,
    length: u32,
    header_padded: bool,
    payload_padded: bool,
}

impl Outgoing {
    /// Becomes the producer of the ring: it waits for no space and declares its features
    /// (vmbus-core 6.1).
    ///
    /// # Errors
    /// [`RingError`] when an index is invalid.
    pub fn new(memory: RingMemory) -> Result<Self, RingError> {
        let control = memory.control();
        let read = check_read(&memory, control.read_index.load(Ordering::Acquire))?;
        let write = check_write(&memory, control.write_index.load(Ordering::Relaxed))?;
        control.pending_send_size.store(0, Ordering::Relaxed);
        let features = control.feature_bits.fetch_or(FEATURE_PENDING_SEND_SIZE, Ordering::AcqRel);
        let max_packet = largest(&memory);
        let peer_tells_space = features & FEATURE_PENDING_SEND_SIZE != 0;
        Ok(Self {
            memory,
            write,
            read,
            max_packet,
            peer_tells_space,
            waiting: false,
            stopped: None,
        })
    }

    /// Refuses packets of more than `bytes` bytes without trailer, which the peer's driver could
    /// not read (`limits::LINUX_*`).
    pub fn limit_packets(&mut self, bytes: u32) {
        self.max_packet = bytes.min(largest(&self.memory));
    }

    /// Begins a batch. The peer sees none of its packets before the commit.
    ///
    /// # Errors
    /// [`RingError`]: the ring is stopped.
    #[inline]
    pub fn batch(&mut self) -> Result<WriteBatch<'_>, RingError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        let at = self.write;
        let free = self.memory.size().free(self.read, at);
        Ok(WriteBatch { ring: self, at, free })
    }

    /// Requests a signal when more than `needed` bytes are free, the number from
    /// [`WriteError::Full`]. The request is limited to the free space of an empty ring.
    ///
    /// # Errors
    /// [`RingError`]: the ring is stopped.
    pub fn wait_for_space(&mut self, needed: u32) -> Result<SpaceWait, RingError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        let needed = needed
            .checked_add(7)
            .map_or(u32::MAX, |sum| sum & !7)
            .min(self.data_size().wrapping_sub(8));
        if self.peer_tells_space {
            let index = self.memory.control().ask_for_space(pending_for(needed));
            self.waiting = true;
            self.take_read(index)?;
        } else {
            self.sample_read()?;
        }
        if self.memory.size().free(self.read, self.write) > needed {
            self.space_came();
            return Ok(SpaceWait::Ready);
        }
        Ok(if self.peer_tells_space { SpaceWait::Signalled } else { SpaceWait::Poll })
    }

    /// Ends a wait: the peer does not have to signal any more.
    pub fn space_came(&mut self) {
        if self.waiting && self.stopped.is_none() {
            self.memory.control().pending_send_size.store(0, Ordering::Release);
        }
        self.waiting = false;
    }

    /// Returns true between [`Outgoing::wait_for_space`] and [`Outgoing::space_came`].
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Returns the bytes that are free now. A packet needs more than its own total.
    ///
    /// # Errors
    /// [`RingError`]: the ring is stopped.
    pub fn free(&mut self) -> Result<u32, RingError> {
        self.sample_read()?;
        Ok(self.memory.size().free(self.read, self.write))
    }

    end_accessors!();

    fn sample_read(&mut self) -> Result<(), RingError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        let index = self.memory.control().read_index.load(Ordering::Acquire);
        self.take_read(index)
    }

    #[inline]
    fn take_read(&mut self, index: u32) -> Result<(), RingError> {
        self.read =
            check_read(&self.memory, index).inspect_err(|&error| self.stopped = Some(error))?;
        Ok(())
    }
}

/// The packets of a batch that is being written. A batch that is dropped without
/// [`WriteBatch::commit`] writes no packet.
#[derive(Debug)]
pub struct WriteBatch<'a> {
    ring: &'a mut Outgoing,
    at: Offset,
    free: u32,
}

impl WriteBatch<'_> {
    /// Adds a packet.
    ///
    /// # Errors
    /// [`WriteError`]; the packets before this one stay in the batch.
    #[inline(always)]
    pub fn write(&mut self, packet: &OutPacket<'_>) -> Result<(), WriteError> {
        let limit = self.ring.max_packet;
        let layout = match packet.layout() {
            Some(layout) if layout.length <= limit => layout,
            other => {
                return Err(WriteError::TooBig {
                    length: other.map_or(u32::MAX, |layout| layout.length),
                    limit,
                });
            }
        };
        let total = layout.length.wrapping_add(TRAILER_BYTES);
        // The free space must be larger: equal indices would mean an empty ring.
        if self.free <= total && !self.has_room(total)? {
            return Err(WriteError::Full { needed: total });
        }
        let (memory, at) = (&self.ring.memory, self.at);
        match memory.contiguous(at, total) {
            Some(base) => fill(&mut Contiguous { base, len: total }, packet, &layout, at),
            None => fill_scattered(memory, packet, &layout, at),
        }
        self.at = memory.size().advance(at, total);
        self.free = self.free.wrapping_sub(total);
        Ok(())
    }

    /// Reads the peer's index again.
    #[cold]
    fn has_room(&mut self, total: u32) -> Result<bool, RingError> {
        self.ring.sample_read()?;
        self.free = self.ring.memory.size().free(self.ring.read, self.at);
        Ok(self.free > total)
    }

    /// Returns the bytes that are free behind the batch's packets, from the peer's present index. A
    /// packet needs more than its own total.
    ///
    /// # Errors
    /// [`RingError`]: the ring is stopped.
    pub fn free(&mut self) -> Result<u32, RingError> {
        // A packet of no size needs the index only.
        self.has_room(0)?;
        Ok(self.free)
    }

    /// Makes the packets visible. Returns true when the peer may sleep and must be signalled.
    #[inline]
    #[must_use = "a peer that sleeps must be signalled"]
    pub fn commit(self) -> bool {
        let ring = self.ring;
        if self.at == ring.write || ring.stopped.is_some() {
            return false;
        }
        let (from, to) = (ring.write.get(), self.at.get());
        ring.write = self.at;
        let (signal, read) = ring.memory.control().publish_write(from, to);
        if let Some(index) = read {
            // A wrong index stops the ring, and the next call returns the error.
            let _ = ring.take_read(index);
        }
        signal
    }
}

/// Returns the length of the longest packet without trailer that fits an empty ring.
fn largest(memory: &RingMemory) -> u32 {
    // The trailer, and the unit that stays free, are subtracted. The data has at least a page.
    memory.data_size().wrapping_sub(TRAILER_BYTES).wrapping_sub(8).min(MAX_PACKET_BYTES)
}

/// A destination for the bytes of one packet. Offsets count from its start.
trait Sink {
    /// Writes a unit; `offset` is a multiple of 8 inside the packet.
    fn word(&mut self, offset: u32, value: u64);
    /// Writes bytes that lie inside the packet.
    fn bytes(&mut self, offset: u32, from: &[u8]);
}

#[inline(always)]
fn fill(sink: &mut impl Sink, packet: &OutPacket<'_>, layout: &Layout, start: Offset) {
    let first = Descriptor::first_word(
        packet.kind,
        packet.completion_requested,
        layout.data_offset,
        layout.length,
    );
    sink.word(0, first);
    sink.word(8, packet.transaction_id);
    // The padding is written first, because its unit also has the last bytes of the padded part.
    if layout.header_padded {
        sink.word(layout.data_offset.wrapping_sub(8), 0);
    }
    if layout.payload_padded {
        sink.word(layout.length.wrapping_sub(8), 0);
    }
    if !packet.header.is_empty() {
        sink.bytes(DESCRIPTOR_BYTES, packet.header);
    }
    let mut offset = layout.data_offset;
    for piece in packet.payload {
        sink.bytes(offset, piece);
        // The layout has checked that the sum fits.
        offset = offset.wrapping_add(u32::try_from(piece.len()).unwrap_or(0));
    }
    sink.word(layout.length, trailer(start.get()));
}

#[inline(never)]
fn fill_scattered(memory: &RingMemory, packet: &OutPacket<'_>, layout: &Layout, start: Offset) {
    fill(&mut Scattered { memory, start }, packet, layout, start);
}

/// `len` contiguous bytes.
struct Contiguous {
    base: NonNull<u8>,
    len: u32,
}

impl Sink for Contiguous {
    #[inline]
    fn word(&mut self, offset: u32, value: u64) {
        debug_assert!(offset & 7 == 0 && offset.wrapping_add(8) <= self.len);
        // SAFETY: the layout puts every unit inside the packet's `len` bytes, which `contiguous`
        // guarantees, and at a multiple of 8 from an aligned base.
        let word = unsafe { self.base.add(usize_of(offset)).cast::<AtomicU64>().as_ref() };
        word.store(value.to_le(), Ordering::Relaxed);
    }

    #[inline(always)]
    fn bytes(&mut self, offset: u32, from: &[u8]) {
        debug_assert!(usize_of(offset).wrapping_add(from.len()) <= usize_of(self.len));
        // SAFETY: the layout puts header and payload inside the packet's `len` bytes, which
        // `contiguous` guarantees.
        unsafe { copy_to_shared(from, self.base.add(usize_of(offset))) };
    }
}

/// A packet that crosses pages or the end of the data.
struct Scattered<'a> {
    memory: &'a RingMemory,
    start: Offset,
}

impl Sink for Scattered<'_> {
    fn word(&mut self, offset: u32, value: u64) {
        let at = self.memory.size().advance(self.start, offset);
        self.memory.word(at).store(value.to_le(), Ordering::Relaxed);
    }

    fn bytes(&mut self, offset: u32, from: &[u8]) {
        let mut from = from;
        // A piece may begin inside a unit, after a piece of odd length. The rest of that unit is
        // filled byte by byte, and keeps its other bytes.
        let rest = usize_of(offset & 7);
        let mut at = self.memory.size().advance(self.start, offset & !7);
        if rest != 0 {
            let len = from.len().min(8_usize.wrapping_sub(rest));
            let Some((now, later)) = from.split_at_checked(len) else { return };
            let word = self.memory.word(at);
            let mut bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            if let Some(place) = bytes.get_mut(rest..rest.wrapping_add(len)) {
                place.copy_from_slice(now);
            }
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            if later.is_empty() {
                return;
            }
            from = later;
            at = self.memory.size().advance(at, 8);
        }
        self.memory.write(at, from);
    }
}
