//! A single request to a queue, and the wait for it.

use synthvm_block::wait::wait_for;
use synthvm_block::{Completion, IoBuffer, IoError, Operation, Queue, Request};

/// Executes a request with `bytes` as its memory and waits for it. Returns the memory. No other
/// request may be in flight.
///
/// # Errors
/// The error of the request.
pub(crate) fn transfer(
    queue: &mut dyn Queue,
    operation: Operation,
    offset: u64,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, IoError> {
    let length = bytes.len() as u64;
    let buffer = IoBuffer::from_vec(bytes);
    queue.submit(&mut vec![Request::new(0, operation, offset, length, buffer)]);
    let mut done: Vec<Completion> = Vec::new();
    loop {
        queue.poll(&mut done);
        if let Some(mut done) = done.pop() {
            done.result?;
            return Ok(done.request.buffer.host_bytes().map(std::mem::take).unwrap_or_default());
        }
        if let Some(event) = queue.event() {
            wait_for(event);
        }
    }
}
