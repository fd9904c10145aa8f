//! From the guest's ring to the socket.

use std::io;
use std::net::Shutdown;

use vmbus_ring::{BatchPosition, PacketKind};

use super::{Counters, Fault, Pump, Rings, Scratch};
use crate::limits::MAX_PIECES;
use crate::protocol::{Frame, HEADER_BYTES, frame};
use crate::unix;

/// The state of the direction.
#[derive(Debug)]
pub(super) struct ToHost {
    /// The socket may take bytes. Only an attempt shows that it is full.
    pub(super) is_writable: bool,
    /// The first frame in the ring, if the socket has taken only a part of it.
    partial: Option<Partial>,
    /// Packets at the start of the ring that were passed to the trace already.
    traced: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The host program takes no more bytes: those of the guest are dropped.
    Discards,
    /// The guest has sent its FIN.
    Ended,
}

/// A frame that the socket has taken in part.
#[derive(Clone, Copy, Debug)]
struct Partial {
    /// Bytes that the socket has taken.
    done: u32,
    /// Bytes of the frame.
    length: u32,
}

/// The end of a frame among the pieces of one system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// The position in the ring behind the frame.
    position: BatchPosition,
    /// Bytes of the frame that are among the pieces.
    bytes: u32,
    length: u32,
}

impl Default for ToHost {
    fn default() -> Self {
        Self { is_writable: true, partial: None, traced: 0, stage: Stage::default() }
    }
}

impl ToHost {
    /// Returns true if packets of the guest can be handled.
    pub(super) fn takes(&self) -> bool {
        self.stage == Stage::Discards || self.is_writable
    }

    /// Returns true if the host program gets no more bytes.
    pub(super) fn is_finished(&self) -> bool {
        self.stage != Stage::Open
    }

    /// Returns true if the guest has sent its FIN.
    pub(super) fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }
}

impl<R: Rings> Pump<R> {
    /// Writes frames of the ring to the socket with one system call. Returns whether any was taken.
    pub(super) fn move_to_host(
        &mut self,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<bool, Fault> {
        if !self.to_host.takes() {
            return Ok(false);
        }
        let Scratch { pieces, marks, .. } = scratch;
        pieces.clear();
        marks.clear();
        let trace = self.rings.trace();
        let mut batch = self.rings.incoming().batch()?;
        let start = batch.position();
        let mut end = None;
        let mut partial = self.to_host.partial;
        while pieces.len() < MAX_PIECES && end.is_none() {
            let Some(packet) = batch.next()? else { break };
            if packet.kind() != PacketKind::InBand {
                return Err(Fault::Kind(packet.kind()));
            }
            let found = frame(packet.read(), packet.payload_len())?;
            let was_ended = self.to_host.stage == Stage::Ended;
            let length = match found {
                // Some guests repeat their FIN.
                Frame::End => {
                    end = Some(());
                    0
                }
                Frame::Data(_) if was_ended => return Err(Fault::AfterEnd),
                Frame::Data(length) => length,
            };
            let done = match partial.take() {
                Some(partial) if partial.length != length => return Err(Fault::Changed),
                Some(partial) => partial.done,
                None => 0,
            };
            if let Some(trace) = trace.as_ref().filter(|_| marks.len() >= self.to_host.traced) {
                trace.received(&packet);
                self.to_host.traced = marks.len() + 1;
            }
            let mut skip = (HEADER_BYTES + done) as usize;
            let mut left = (length - done) as usize;
            for slice in packet.payload_slices() {
                let skipped = skip.min(slice.len());
                let len = (slice.len() - skipped).min(left);
                skip -= skipped;
                left -= len;
                if len != 0 {
                    pieces.push(slice.ptr_guard().as_ptr().wrapping_add(skipped).cast_mut(), len);
                }
            }
            marks.push(Mark { position: batch.position(), bytes: length - done, length });
        }
        if marks.is_empty() {
            return Ok(false);
        }
        let mut taken = 0;
        if self.to_host.stage == Stage::Discards {
            taken = usize::MAX;
        } else if !pieces.is_empty() {
            let total: usize = marks.iter().map(|mark| mark.bytes as usize).sum();
            // SAFETY: the pieces are in the ring, which `batch` borrows. Guest memory may change at
            // any time.
            match unsafe { unix::send(&self.socket, pieces) } {
                Ok(number) => {
                    taken = number;
                    self.to_host.is_writable = number == total;
                    counters.writes.add(1);
                    counters.bytes_to_host.add(number as u64);
                    self.moved.to_host += number;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.to_host.is_writable = false;
                }
                Err(_) => {
                    self.to_host.stage = Stage::Discards;
                    taken = usize::MAX;
                }
            }
        }
        let (mut position, mut is_whole) = (start, true);
        self.to_host.partial = self.to_host.partial.filter(|_| taken == 0);
        for mark in marks.iter() {
            let bytes = mark.bytes as usize;
            if taken < bytes {
                if taken != 0 {
                    let done = mark.length - (bytes - taken) as u32;
                    self.to_host.partial = Some(Partial { done, length: mark.length });
                }
                is_whole = false;
                break;
            }
            taken -= bytes;
            position = mark.position;
            self.to_host.traced = self.to_host.traced.saturating_sub(1);
        }
        let has_moved = position != start;
        let must_signal = batch.commit_at(position);
        self.rings.signal_if(must_signal);
        if is_whole && end.is_some() {
            self.to_host.stage = Stage::Ended;
            // A host program that has closed its end needs no notice.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        Ok(has_moved)
    }
}
