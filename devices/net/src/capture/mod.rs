//! Captures the frames of a backend to a pcapng file.

mod format;
#[cfg(test)]
mod tests;
mod writer;

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::vlan::Tag;
use crate::{
    Backend, Counters, Filter, Frame, LinkState, Mac, Offloads, Pieces, Queue, ReceiveError,
    Received, SendError,
};
use format::Direction;
use writer::{Sink, Writer};

/// Passes frames to another backend, and writes those that were sent or received to a file, as they
/// are: a frame that is to be split is one record, with an incomplete checksum.
///
/// A thread of its own writes the file. When the file is slow, records are dropped and counted;
/// frames are not. Dropping the capture waits until the file is complete.
#[derive(Debug)]
pub struct Capture {
    inner: Arc<dyn Backend>,
    sink: Arc<Sink>,
    _writer: Writer,
}

impl Capture {
    /// Captures the frames of `inner` to `out`, usually a file that is new. `name` is the name of
    /// the interface in it, of up to 255 bytes.
    ///
    /// # Errors
    /// The start of the file cannot be written, or no thread can be had.
    pub fn new(
        inner: Arc<dyn Backend>,
        out: impl Write + Send + 'static,
        name: &str,
    ) -> io::Result<Self> {
        let (writer, sink) = Writer::start(out, name)?;
        Ok(Self { inner, sink, _writer: writer })
    }

    /// Returns how many frames were recorded.
    pub fn recorded(&self) -> u64 {
        self.sink.recorded()
    }

    /// Returns how many frames were not recorded, as the file is slow or full.
    pub fn dropped(&self) -> u64 {
        self.sink.dropped()
    }
}

impl Backend for Capture {
    fn queues(&self) -> usize {
        self.inner.queues()
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn mtu_limit(&self) -> u32 {
        self.inner.mtu_limit()
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let inner = self.inner.queue(index)?;
        Ok(Box::new(CaptureQueue { inner, sink: Arc::clone(&self.sink) }))
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

struct CaptureQueue {
    inner: Box<dyn Queue>,
    sink: Arc<Sink>,
}

impl Queue for CaptureQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        self.inner.send(frame)?;
        let length = frame.pieces.len() + frame.tag.map_or(0, |_| Tag::LENGTH);
        self.sink.record(Direction::Sent, length, |out| frame.copy_to(out));
        Ok(())
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let received = self.inner.receive(space)?;
        if let Some(Received { offset, length, .. }) = received {
            self.sink.record(Direction::Received, length, |out| {
                let start = out.len();
                out.resize(start + length, 0);
                space.copy_to(offset, &mut out[start..]);
            });
        }
        Ok(received)
    }

    fn event(&self) -> Option<RawFd> {
        self.inner.event()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
