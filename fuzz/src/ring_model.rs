//! A ring as flat bytes and four numbers, with the expected results for each end.

use vmbus_ring::{RingError, SpaceWait, WriteError};

use crate::packet_model::Frame;

/// The shared memory of the model, and the private state of each end.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) data: Vec<u8>,
    pub(crate) write_index: u32,
    pub(crate) read_index: u32,
    pub(crate) mask: u32,
    pub(crate) pending: u32,
    pub(crate) features: u32,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// The private state of the consumer.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) read: u32,
    peer_waits: bool,
    pub(crate) stopped: Option<RingError>,
}

/// The private state of the producer.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) write: u32,
    read: u32,
    pub(crate) max_packet: u32,
    peer_tells: bool,
    pub(crate) waiting: bool,
    pub(crate) stopped: Option<RingError>,
}

impl Model {
    pub(crate) fn reset(&mut self, bytes: usize) {
        self.data.clear();
        self.data.resize(bytes, 0);
        (self.mask, self.pending) = (0, 0);
    }

    pub(crate) fn size(&self) -> u32 {
        self.data.len() as u32
    }

    fn used(&self, read: u32, write: u32) -> u32 {
        (write + self.size() - read) % self.size()
    }

    fn free(&self, read: u32, write: u32) -> u32 {
        self.size() - self.used(read, write)
    }

    fn is_index(&self, value: u32) -> bool {
        value < self.size() && value.is_multiple_of(8)
    }

    fn good_write(&self) -> Result<u32, RingError> {
        let error = |value, data_size| RingError::WriteIndex { value, data_size };
        self.good(self.write_index, error)
    }

    fn good_read(&self) -> Result<u32, RingError> {
        let error = |value, data_size| RingError::ReadIndex { value, data_size };
        self.good(self.read_index, error)
    }

    fn good(&self, index: u32, error: fn(u32, u32) -> RingError) -> Result<u32, RingError> {
        if self.is_index(index) { Ok(index) } else { Err(error(index, self.size())) }
    }

    /// Returns `len` bytes from `at`, around the end.
    pub(crate) fn bytes(&self, at: u32, len: usize, out: &mut Vec<u8>) {
        out.clear();
        let start = at as usize % self.data.len();
        let first = len.min(self.data.len() - start);
        out.extend_from_slice(&self.data[start..start + first]);
        out.extend_from_slice(&self.data[..len - first]);
    }

    pub(crate) fn write(&mut self, at: u32, bytes: &[u8]) {
        let start = at as usize % self.data.len();
        let (now, later) = bytes.split_at(bytes.len().min(self.data.len() - start));
        self.data[start..start + now.len()].copy_from_slice(now);
        self.data[..later.len()].copy_from_slice(later);
    }

    pub(crate) fn open_reader(&mut self) -> Result<(), RingError> {
        self.reader.read = self.good_read()?;
        self.good_write()?;
        self.mask = 1;
        self.reader.peer_waits = self.features & 1 != 0;
        self.features |= 1;
        self.reader.stopped = None;
        Ok(())
    }

    /// Returns the bytes that can be read.
    pub(crate) fn sample(&mut self) -> Result<u32, RingError> {
        self.reader.stopped.map_or(Ok(()), Err)?;
        let write = self.good_write().inspect_err(|error| self.reader.stopped = Some(*error))?;
        Ok(self.used(self.reader.read, write))
    }

    /// Parses the packet at `at` with `available` bytes in the ring. Its bytes are written to
    /// `out`.
    pub(crate) fn packet(
        &mut self,
        at: u32,
        available: u32,
        out: &mut Vec<u8>,
    ) -> Result<Frame, RingError> {
        self.bytes(at, available as usize, out);
        let frame =
            Frame::parse(out, available).inspect_err(|error| self.reader.stopped = Some(*error))?;
        out.truncate(frame.length);
        Ok(frame)
    }

    /// Releases the space before `to`. Returns whether the peer must be signalled; `None`: the
    /// implementation may do either.
    pub(crate) fn commit_read(&mut self, to: u32) -> Option<bool> {
        let from = self.reader.read;
        if self.reader.stopped.is_some() || to == from {
            return Some(false);
        }
        (self.reader.read, self.read_index) = (to, to);
        let (pending, write) = (self.pending, self.good_write());
        let (true, false, Ok(write)) = (self.reader.peer_waits, pending == 0, write) else {
            return Some(false);
        };
        let (before, now) = (self.free(from, write), self.free(to, write));
        // The strict rule of one kind of peer, and the inclusive rule of another; a signal for
        // which neither waits is only useless.
        let rounded = pending & !7;
        let due = (before <= pending && now > pending) || (before < rounded && now >= rounded);
        let impossible = rounded > self.size() - 8;
        match () {
            () if due && !impossible => Some(true),
            () if now <= before || (now < rounded && !impossible) || before > pending => {
                Some(false)
            }
            () => None,
        }
    }

    pub(crate) fn unmask(&mut self) -> Result<bool, RingError> {
        self.reader.stopped.map_or(Ok(()), Err)?;
        self.mask = 0;
        let write = self.good_write().inspect_err(|error| self.reader.stopped = Some(*error))?;
        Ok(write != self.reader.read)
    }

    pub(crate) fn open_writer(&mut self) -> Result<(), RingError> {
        let read = self.good_read()?;
        let write = self.good_write()?;
        self.pending = 0;
        let max_packet = (self.size() - 16).min(0xFFFF * 8);
        let peer_tells = self.features & 1 != 0;
        self.writer = Writer { write, read, max_packet, peer_tells, waiting: false, stopped: None };
        self.features |= 1;
        Ok(())
    }

    fn sample_read(&mut self) -> Result<(), RingError> {
        self.writer.stopped.map_or(Ok(()), Err)?;
        self.writer.read =
            self.good_read().inspect_err(|error| self.writer.stopped = Some(*error))?;
        Ok(())
    }

    /// Returns the bytes that are free now.
    pub(crate) fn free_now(&mut self) -> Result<u32, RingError> {
        self.sample_read()?;
        Ok(self.free(self.writer.read, self.writer.write))
    }

    /// Writes a whole packet (without trailer) at `at`; `free` bytes are known to be free. Returns
    /// the offset of the next packet.
    pub(crate) fn write_packet(
        &mut self,
        at: u32,
        free: &mut u32,
        packet: &[u8],
    ) -> Result<u32, WriteError> {
        let (length, limit) = (packet.len() as u32, self.writer.max_packet);
        if length > limit {
            return Err(WriteError::TooBig { length, limit });
        }
        let needed = length + 8;
        if *free <= needed {
            self.sample_read()?;
            *free = self.free(self.writer.read, at);
            if *free <= needed {
                return Err(WriteError::Full { needed });
            }
        }
        self.write(at, packet);
        self.write(at + length, &(u64::from(at) << 32).to_le_bytes());
        *free -= needed;
        Ok((at + needed) % self.size())
    }

    /// Returns the free bytes at the beginning of a batch, by the peer's index of the last read.
    pub(crate) fn begin_write(&self) -> Result<u32, RingError> {
        self.writer.stopped.map_or(Ok(()), Err)?;
        Ok(self.free(self.writer.read, self.writer.write))
    }

    /// Returns true when the consumer must be signalled.
    pub(crate) fn commit_write(&mut self, to: u32) -> bool {
        let from = self.writer.write;
        if to == from || self.writer.stopped.is_some() {
            return false;
        }
        (self.writer.write, self.write_index) = (to, to);
        if self.mask != 0 {
            return false;
        }
        let signal = self.read_index == from;
        let _ = self.sample_read();
        signal
    }

    pub(crate) fn wait_for_space(&mut self, needed: u32) -> Result<SpaceWait, RingError> {
        self.writer.stopped.map_or(Ok(()), Err)?;
        let needed = u64::from(needed).next_multiple_of(8).min(u64::from(self.size() - 8)) as u32;
        if self.writer.peer_tells {
            self.pending = needed + 7;
            self.writer.waiting = true;
        }
        if self.free_now()? > needed {
            self.space_came();
            return Ok(SpaceWait::Ready);
        }
        Ok(if self.writer.peer_tells { SpaceWait::Signalled } else { SpaceWait::Poll })
    }

    pub(crate) fn space_came(&mut self) {
        if self.writer.waiting && self.writer.stopped.is_none() {
            self.pending = 0;
        }
        self.writer.waiting = false;
    }
}
