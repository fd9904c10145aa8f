//! Requests to an image on this thread.

use std::path::Path;

use synthvm_block::{Backend, Completion, IoBuffer, IoMode, Operation, Queue, Request};
use synthvm_images::{CreateOptions, Format, OpenOptions, create, open};
use vmm_sys_util::tempdir::TempDir;

use crate::direction::Direction;

/// Bytes of a request.
const BYTES: usize = 4096;
/// Offsets of the disk to which requests go in turn.
const PLACES: u64 = 256;
/// Bytes between two offsets: they lie in several blocks and clusters.
const STRIDE: u64 = 192 << 10;
/// Bytes of the disk.
const CAPACITY: u64 = 64 << 20;

/// A queue to an image that has data at all offsets, and requests that go there in turn.
pub(crate) struct Load {
    queue: Box<dyn Queue>,
    requests: Vec<Box<Request>>,
    done: Vec<Completion>,
    next: u64,
    /// Fields drop in order, and the folder must be last.
    _image: std::sync::Arc<dyn Backend>,
    _folder: TempDir,
}

impl Load {
    /// Makes an image of `format` with `depth` requests, in a folder of its own in `directory`.
    pub(crate) fn new(format: Format, depth: usize, directory: &Path) -> Result<Self, String> {
        let folder = TempDir::new_in(directory).map_err(|error| error.to_string())?;
        let path = folder.as_path().join(format!("disk.{}", format.name()));
        create(&path, &CreateOptions::new(format, CAPACITY)).map_err(|error| error.to_string())?;
        // System calls on this thread: callgrind counts the instructions before and after them.
        let options = OpenOptions { io: IoMode::Sync, ..OpenOptions::default() };
        let image = open(&path, &options).map_err(|error| error.to_string())?;
        let queue = image.queue().map_err(|error| error.to_string())?;
        let requests = (0..depth as u64).map(|tag| {
            Request::new(tag, Operation::Read, 0, BYTES as u64, IoBuffer::from_vec(vec![1; BYTES]))
        });
        let requests = requests.collect();
        let mut load =
            Self { queue, requests, done: Vec::new(), next: 0, _image: image, _folder: folder };
        // All offsets get space, and all lists get their memory.
        for direction in [Direction::Write, Direction::Read] {
            for _ in 0..PLACES {
                load.prepare(direction);
                load.serve();
                while load.done.len() < depth {
                    std::thread::yield_now();
                    load.queue.poll(&mut load.done);
                }
                load.finish()?;
            }
        }
        Ok(load)
    }

    /// Sets the requests to the next offsets.
    pub(crate) fn prepare(&mut self, direction: Direction) {
        for request in &mut self.requests {
            request.operation = direction.operation();
            request.offset = self.next % PLACES * STRIDE;
            self.next += 1;
        }
    }

    /// Submits the requests and polls once.
    pub(crate) fn serve(&mut self) {
        self.queue.submit(&mut self.requests);
        self.queue.poll(&mut self.done);
    }

    /// Makes the completed requests ready again, with the next offsets.
    ///
    /// # Errors
    /// A request failed.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        for Completion { request, result, .. } in self.done.drain(..) {
            result.map_err(|error| error.to_string())?;
            self.requests.push(request);
        }
        Ok(())
    }

    /// Returns the number of requests that are ready to be submitted.
    pub(crate) fn ready(&self) -> usize {
        self.requests.len()
    }
}
