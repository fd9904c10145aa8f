//! The ring that this end reads.

use core::sync::atomic::Ordering;

use crate::control::{Control, FEATURE_PENDING_SEND_SIZE, crosses};
use crate::ends::end_accessors;
use crate::error::RingError;
use crate::memory::RingMemory;
use crate::offset::Offset;
use crate::packet::Packet;
use crate::wire::{DESCRIPTOR_BYTES, Descriptor};

/// The consumer of a ring: on a host the guest-to-host ring, on a guest the other one.
///
/// The peer signals only when it writes into an empty ring with a clear mask. So the consumer
/// drains until the ring is empty, commits, calls [`Incoming::unmask`], and drains again if that
/// returns true. Only then may it sleep.
#[derive(Debug)]
pub struct Incoming {
    memory: RingMemory,
    /// The consumer's own index. The copy in the control page is for the peer; this end never reads
    /// it.
    read: Offset,
    /// Whether the producer may request a signal when space is released.
    peer_waits_for_space: bool,
    stopped: Option<RingError>,
}

impl Incoming {
    /// Becomes the consumer of the ring: masks signals until [`Incoming::unmask`] and declares its
    /// features (vmbus-core 6.1). Packets that are already in the ring, for example after a
    /// restore, are kept.
    ///
    /// # Errors
    /// [`RingError`] when an index is invalid.
    pub fn new(memory: RingMemory) -> Result<Self, RingError> {
        let control = memory.control();
        let read = check_read(&memory, control.read_index.load(Ordering::Relaxed))?;
        check_write(&memory, control.write_index.load(Ordering::Relaxed))?;
        control.interrupt_mask.store(1, Ordering::Relaxed);
        let features = control.feature_bits.fetch_or(FEATURE_PENDING_SEND_SIZE, Ordering::AcqRel);
        Ok(Self {
            memory,
            read,
            peer_waits_for_space: features & FEATURE_PENDING_SEND_SIZE != 0,
            stopped: None,
        })
    }

    /// Returns the packets that are in the ring now. Packets that the peer writes later are not
    /// part of the batch.
    ///
    /// # Errors
    /// [`RingError`]: the ring is stopped.
    #[inline]
    pub fn batch(&mut self) -> Result<ReadBatch<'_>, RingError> {
        let write = self.sample_write()?;
        let available = self.memory.size().used(self.read, write);
        let at = self.read;
        Ok(ReadBatch { ring: self, at, available })
    }

    /// Asks the peer not to signal while the ring is drained. It is only a hint, which
    /// [`Incoming::unmask`] withdraws.
    #[inline]
    pub fn mask(&self) {
        if self.stopped.is_none() {
            self.memory.control().mask();
        }
    }

    /// Asks the peer to signal again. Returns true when the ring has packets that arrived before
    /// the peer could see the request: the caller must drain again, because no signal will follow.
    ///
    /// # Errors
    /// [`RingError`]: the ring is stopped.
    #[inline]
    pub fn unmask(&mut self) -> Result<bool, RingError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        let index = self.memory.control().unmask();
        let write =
            check_write(&self.memory, index).inspect_err(|&error| self.stopped = Some(error))?;
        Ok(write != self.read)
    }

    /// Returns the bytes in the ring, descriptors and trailers included.
    ///
    /// # Errors
    /// [`RingError`]: the ring is stopped.
    pub fn used(&mut self) -> Result<u32, RingError> {
        let write = self.sample_write()?;
        Ok(self.memory.size().used(self.read, write))
    }

    end_accessors!();

    #[inline]
    fn sample_write(&mut self) -> Result<Offset, RingError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        let index = self.memory.control().write_index.load(Ordering::Acquire);
        check_write(&self.memory, index).inspect_err(|&error| self.stopped = Some(error))
    }

    /// Releases the space up to `to`. Returns true when the producer waits for it.
    #[inline]
    fn publish(&mut self, to: Offset) -> bool {
        let from = self.read;
        self.read = to;
        let control = self.memory.control();
        if !self.peer_waits_for_space {
            control.read_index.store(to.get(), Ordering::Release);
            return false;
        }
        match control.publish_read(to.get()) {
            0 => false,
            pending => self.wakes_producer(control, pending, from),
        }
    }

    /// The write index is read again, after the barrier. Packets that arrived after this batch was
    /// sampled count against the free space, and the packet that did not fit arrived after them.
    #[cold]
    fn wakes_producer(&self, control: &Control, pending: u32, from: Offset) -> bool {
        let size = self.memory.size();
        match size.check(control.write_index.load(Ordering::SeqCst)) {
            Some(write) => {
                crosses(pending, size.free(from, write), size.free(self.read, write), size.get())
            }
            // The next batch reports the error.
            None => false,
        }
    }
}

/// The packets that were in the ring when the batch was taken. A batch that is dropped without
/// [`ReadBatch::commit`] consumes no packet.
#[derive(Debug)]
pub struct ReadBatch<'a> {
    ring: &'a mut Incoming,
    at: Offset,
    available: u32,
}

impl ReadBatch<'_> {
    /// Returns the next packet. `None` at the end of the batch. Its bytes stay in the ring, where
    /// the peer can change them, until the commit.
    ///
    /// # Errors
    /// [`RingError`]: the peer wrote bytes that are no packet. The ring is stopped.
    #[inline(always)]
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Packet<'_>>, RingError> {
        if self.available == 0 {
            return Ok(None);
        }
        if self.available < DESCRIPTOR_BYTES {
            return Err(self.stop(RingError::NoDescriptor { available: self.available }));
        }
        let words = self.words();
        // The reason is determined later, so that the compiler keeps the descriptor in registers.
        let Some(descriptor) = Descriptor::parse(words, self.available) else {
            return Err(self.stop(Descriptor::fault(words, self.available)));
        };
        let start = self.at;
        let total = descriptor.total();
        self.at = self.ring.memory.size().advance(start, total);
        self.available = self.available.wrapping_sub(total);
        Ok(Some(Packet::new(&self.ring.memory, start, descriptor)))
    }

    /// Reads the words of the next descriptor, once. The peer may change them at any time, so only
    /// the local copy is checked and used.
    #[inline(always)]
    fn words(&self) -> [u64; 2] {
        let memory = &self.ring.memory;
        let first = memory.word(self.at).load(Ordering::Relaxed);
        let second = memory.word(memory.size().advance(self.at, 8)).load(Ordering::Relaxed);
        [u64::from_le(first), u64::from_le(second)]
    }

    /// Stops the ring, because no packet after this one can be found.
    #[cold]
    fn stop(&mut self, error: RingError) -> RingError {
        self.available = 0;
        self.ring.stopped = Some(error);
        error
    }

    /// Returns the bytes of the batch that were not taken yet.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.available
    }

    /// Returns the position behind the packets taken so far, for [`ReadBatch::commit_at`].
    #[inline]
    #[must_use]
    pub fn position(&self) -> BatchPosition {
        BatchPosition(self.at)
    }

    /// Consumes the packets before `position` only, which this batch has returned. Returns true
    /// when the peer waits for the space and must be signalled.
    #[inline]
    #[must_use = "a peer that waits for space must be signalled"]
    pub fn commit_at(mut self, position: BatchPosition) -> bool {
        self.at = position.0;
        self.commit()
    }

    /// Consumes the packets taken so far. Returns true when the peer waits for the space and must
    /// be signalled.
    #[inline]
    #[must_use = "a peer that waits for space must be signalled"]
    pub fn commit(self) -> bool {
        if self.ring.stopped.is_some() || self.at == self.ring.read {
            return false;
        }
        self.ring.publish(self.at)
    }
}

/// A position between two packets of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPosition(Offset);

#[inline]
pub(crate) fn check_write(memory: &RingMemory, value: u32) -> Result<Offset, RingError> {
    memory.size().check(value).ok_or(RingError::WriteIndex { value, data_size: memory.data_size() })
}

#[inline]
pub(crate) fn check_read(memory: &RingMemory, value: u32) -> Result<Offset, RingError> {
    memory.size().check(value).ok_or(RingError::ReadIndex { value, data_size: memory.data_size() })
}
