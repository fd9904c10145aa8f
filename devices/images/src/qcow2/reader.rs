//! Reads from the files of an image, for copies. They use the queues that move the disk's bytes, so
//! that both see the same content.

use std::fmt;
use std::sync::Arc;

use synthvm_block::{Backend, IoError, Operation, Queue};

use crate::transfer::transfer;

/// One queue for each file that was read from.
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
        transfer(&mut **queue, Operation::Read, offset, vec![0; length])
    }
}
