//! Reads from the files of an image, for copies: through the queues that move the disk's bytes, so
//! that both see the same.

use std::fmt;
use std::sync::Arc;

use synthvm_block::{Backend, IoBuffer, IoDone, IoError, IoRequest, Operation, Queue};

/// A queue to each file that was read from.
#[derive(Default)]
pub(super) struct Reader {
    queues: Vec<Option<Box<dyn Queue>>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} files)", self.queues.len())
    }
}

impl Reader {
    /// Reads `length` bytes of file `file` and waits for them.
    pub(super) fn read(
        &mut self,
        files: &[Arc<dyn Backend>],
        file: usize,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, IoError> {
        self.queues.resize_with(files.len(), || None);
        let queue = match &mut self.queues[file] {
            Some(queue) => queue,
            none => none.insert(files[file].queue()?),
        };
        let buffer = Box::new(IoBuffer::from_vec(vec![0; length]));
        let (operation, length) = (Operation::Read, length as u64);
        queue.submit(&mut vec![IoRequest { id: 0, operation, offset, length, buffer }]);
        let mut done: Vec<IoDone> = Vec::new();
        loop {
            queue.poll(&mut done);
            if let Some(mut done) = done.pop() {
                done.result?;
                return Ok(done.buffer.host_bytes().map(std::mem::take).unwrap_or_default());
            }
            if let Some(event) = queue.event() {
                let mut event = libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 };
                // SAFETY: one valid pollfd; the queue keeps the descriptor open.
                unsafe { libc::poll(&raw mut event, 1, -1) };
            }
        }
    }
}
