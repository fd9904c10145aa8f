//! Captures the frames of a backend to a pcapng file.

mod format;
#[cfg(test)]
mod tests;
mod writer;

use std::io::{self, Write};
use std::sync::Arc;

use crate::layer::{Layer, LayeredQueue};
use crate::vlan::Tag;
use crate::{Backend, Frame, Pieces, Queue, ReceiveError, Received, SendError};
use format::Direction;
use writer::{Sink, Writer};

/// Passes frames to another backend, and records each sent or received frame in a pcapng file. A
/// frame with an offload request is one record, with an incomplete checksum.
///
/// A dedicated thread writes the file. A slow file causes dropped records, which are counted, and
/// never dropped frames. Dropping the capture waits until the file is complete.
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

impl Layer for Capture {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn wrap(&self, inner: Box<dyn Queue>) -> Box<dyn Queue> {
        Box::new(CaptureQueue { inner, sink: Arc::clone(&self.sink) })
    }
}

struct CaptureQueue {
    inner: Box<dyn Queue>,
    sink: Arc<Sink>,
}

impl LayeredQueue for CaptureQueue {
    fn inner(&self) -> &dyn Queue {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Queue {
        &mut *self.inner
    }

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
}
