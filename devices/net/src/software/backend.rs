//! A backend that gains transmit offloads.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::Work;
use crate::{
    Backend, Counters, Filter, Frame, LinkState, MAX_FRAME, Mac, Offloads, Pieces, Queue,
    ReceiveError, Received, SendError,
};

/// Adds all transmit offloads to a backend. Frames that the backend can send by itself pass without
/// a copy; others are copied once, completed or split, and sent in turn.
#[derive(Debug)]
pub struct SoftwareOffload {
    inner: Arc<dyn Backend>,
}

impl SoftwareOffload {
    /// Returns `inner` with all transmit offloads.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner }
    }
}

impl Backend for SoftwareOffload {
    fn queues(&self) -> usize {
        self.inner.queues()
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads() | Offloads::TRANSMIT
    }

    fn mtu_limit(&self) -> u32 {
        self.inner.mtu_limit()
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(SoftwareQueue {
            inner: self.inner.queue(index)?,
            native: self.inner.offloads(),
            work: Work::new(),
            pieces: Pieces::new(),
            counters: Counters::default(),
        }))
    }

    fn link(&self) -> LinkState {
        self.inner.link()
    }

    fn link_event(&self) -> Option<RawFd> {
        self.inner.link_event()
    }

    fn reconnect(&self) -> io::Result<()> {
        self.inner.reconnect()
    }

    fn set_receive_offloads(&self, offloads: Offloads) -> io::Result<()> {
        self.inner.set_receive_offloads(offloads)
    }

    fn set_mac(&self, mac: Mac) {
        self.inner.set_mac(mac);
    }

    fn set_filter(&self, filter: &Filter) {
        self.inner.set_filter(filter);
    }
}

struct SoftwareQueue {
    inner: Box<dyn Queue>,
    native: Offloads,
    /// The frame in progress: its rest waits for space in the backend.
    work: Work,
    /// The list for frames of this process, empty between calls.
    pieces: Pieces<'static>,
    counters: Counters,
}

impl SoftwareQueue {
    fn try_send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::TRANSMIT, MAX_FRAME)?;
        // The frame before goes first. Why its rest was dropped, its sender cannot be told.
        if self.send_rest() == Err(SendError::Full) {
            return Err(SendError::Full);
        }
        if Offloads::needed(&frame.header).is_some_and(|needed| self.native.contains(needed)) {
            return self.inner.send(frame);
        }
        self.work.start(frame).map_err(|_| SendError::Malformed)?;
        match self.send_rest() {
            // The rest is sent by later calls.
            Err(SendError::Full) => Ok(()),
            result => result,
        }
    }

    /// Sends frames of the work until the backend is full or none is left.
    fn send_rest(&mut self) -> Result<(), SendError> {
        while let Some(bytes) = self.work.current() {
            let mut pieces = std::mem::take(&mut self.pieces).recycle();
            // The list is empty: one piece fits.
            let _ = pieces.push(VolatileSlice::from(bytes));
            let result = self.inner.send(&Frame::new(&pieces));
            self.pieces = pieces.recycle();
            match result {
                Ok(()) => self.work.advance(),
                Err(SendError::Full) => return Err(SendError::Full),
                Err(error) => {
                    self.work.stop();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Queue for SoftwareQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let result = self.try_send(frame);
        self.counters.count_send(frame.pieces.len(), result);
        result
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        // The event may mean space: a sender that has no more frames would leave the rest here.
        let _ = self.send_rest();
        self.inner.receive(space)
    }

    fn event(&self) -> Option<RawFd> {
        self.inner.event()
    }

    fn counters(&self) -> Counters {
        let inner = self.inner.counters();
        Counters {
            received_frames: inner.received_frames,
            received_bytes: inner.received_bytes,
            receive_too_long: inner.receive_too_long,
            receive_overflow: inner.receive_overflow,
            receive_invalid: inner.receive_invalid,
            ..self.counters
        }
    }
}
