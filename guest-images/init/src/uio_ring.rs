//! The guest's ends of a VMBus ring pair in plain memory. Written from the ring's layout
//! (include/linux/hyperv.h of Linux) and not from the host's code, so that the two check each
//! other.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::Outcome;

/// The first page of a ring has its indices; the other pages have its data.
const CONTROL: usize = 4096;
const WRITE_INDEX: usize = 0;
const READ_INDEX: usize = 4;
const PENDING_SEND_SIZE: usize = 12;

const DESCRIPTOR: usize = 16;
const TRAILER: usize = 8;
const TYPE_IN_BAND: u16 = 6;
const TYPE_COMPLETION: u16 = 11;
const FLAG_COMPLETION_REQUESTED: u16 = 1;

/// The memory of one ring.
struct Memory {
    start: NonNull<u8>,
    data: usize,
    /// The number of times that this end's index has wrapped.
    wraps: u32,
}

impl Memory {
    /// # Safety
    /// `bytes` bytes from `start`, a multiple of 4,096, must stay mapped as long as this lives.
    unsafe fn new(start: NonNull<u8>, bytes: usize) -> Memory {
        Memory { start, data: bytes - CONTROL, wraps: 0 }
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the offsets are those of the control page's words, which are aligned; the other
        // end also uses them as atomics.
        unsafe { self.start.add(offset).cast::<AtomicU32>().as_ref() }
    }

    fn index(&self, offset: usize) -> Outcome<usize> {
        let index = self.word(offset).load(Ordering::Acquire) as usize;
        if index < self.data && index.is_multiple_of(8) {
            Ok(index)
        } else {
            Err(format!("a ring index of {index}"))
        }
    }

    /// Returns the number of bytes to read.
    fn used(&self) -> Outcome<usize> {
        let (read, write) = (self.index(READ_INDEX)?, self.index(WRITE_INDEX)?);
        Ok((write + self.data - read) % self.data)
    }

    fn publish(&mut self, offset: usize, from: usize, length: usize) {
        let to = (from + length) % self.data;
        self.wraps += u32::from(to < from);
        // The data must be visible before the index, and no later load may be older than it.
        self.word(offset).store(u32::try_from(to).unwrap_or(0), Ordering::Release);
        fence(Ordering::SeqCst);
    }

    fn put(&self, at: usize, bytes: &[u8]) -> usize {
        let at = at % self.data;
        let (now, rest) = bytes.split_at(bytes.len().min(self.data - at));
        // SAFETY: both pieces are in the data; this process has no reference into it.
        unsafe {
            let data = self.start.as_ptr().add(CONTROL);
            data.add(at).copy_from(now.as_ptr(), now.len());
            data.copy_from(rest.as_ptr(), rest.len());
        }
        at + bytes.len()
    }

    fn get(&self, at: usize, bytes: &mut [u8]) {
        let at = at % self.data;
        let length = bytes.len().min(self.data - at);
        let (now, rest) = bytes.split_at_mut(length);
        // SAFETY: as in `put`.
        unsafe {
            let data = self.start.as_ptr().add(CONTROL);
            data.add(at).copy_to(now.as_mut_ptr(), now.len());
            data.copy_to(rest.as_mut_ptr(), rest.len());
        }
    }
}

/// The guest's end of the ring to the host.
pub struct ToHost(Memory);

impl ToHost {
    /// # Safety
    /// `bytes` bytes from `start` must stay mapped as long as this lives; they begin with the
    /// ring's control page.
    pub unsafe fn new(start: NonNull<u8>, bytes: usize) -> ToHost {
        // SAFETY: the caller guarantees it.
        ToHost(unsafe { Memory::new(start, bytes) })
    }

    /// Writes a request that needs an answer. Returns false if there is no space; the host is then
    /// asked to signal when there is.
    pub fn write(&mut self, transaction: u64, payload: &[u8]) -> Outcome<bool> {
        let length = DESCRIPTOR + payload.len().next_multiple_of(8);
        let total = length + TRAILER;
        // Strictly more: equal indices mean an empty ring.
        let has_room = |memory: &Memory| Ok::<_, String>(memory.data - memory.used()? > total);
        if !has_room(&self.0)? {
            self.0
                .word(PENDING_SEND_SIZE)
                .store(u32::try_from(total).unwrap_or(0), Ordering::SeqCst);
            if !has_room(&self.0)? {
                return Ok(false);
            }
        }
        self.0.word(PENDING_SEND_SIZE).store(0, Ordering::Relaxed);
        let start = self.0.index(WRITE_INDEX)?;
        let in_eighths = |bytes: usize| u16::try_from(bytes / 8).unwrap_or(u16::MAX).to_le_bytes();
        let mut at = self.0.put(start, &TYPE_IN_BAND.to_le_bytes());
        at = self.0.put(at, &in_eighths(DESCRIPTOR));
        at = self.0.put(at, &in_eighths(length));
        at = self.0.put(at, &FLAG_COMPLETION_REQUESTED.to_le_bytes());
        at = self.0.put(at, &transaction.to_le_bytes());
        self.0.put(at, payload);
        self.0.put(start + length, &((start as u64) << 32).to_le_bytes());
        self.0.publish(WRITE_INDEX, start, total);
        Ok(true)
    }

    /// Returns the number of wraps of the write index.
    pub fn wraps(&self) -> u32 {
        self.0.wraps
    }
}

/// The guest's end of the ring from the host.
pub struct FromHost(Memory);

impl FromHost {
    /// # Safety
    /// `bytes` bytes from `start` must stay mapped as long as this lives; they begin with the
    /// ring's control page.
    pub unsafe fn new(start: NonNull<u8>, bytes: usize) -> FromHost {
        // SAFETY: the caller guarantees it.
        FromHost(unsafe { Memory::new(start, bytes) })
    }

    /// Returns the next completion: its transaction and payload (padded to 8 bytes).
    pub fn read(&mut self) -> Outcome<Option<(u64, Vec<u8>)>> {
        let used = self.0.used()?;
        if used == 0 {
            return Ok(None);
        }
        let start = self.0.index(READ_INDEX)?;
        let mut descriptor = [0; DESCRIPTOR];
        self.0.get(start, &mut descriptor);
        let field = |at: usize| u16::from_le_bytes([descriptor[at], descriptor[at + 1]]);
        let (kind, offset, length) =
            (field(0), usize::from(field(2)) * 8, usize::from(field(4)) * 8);
        if kind != TYPE_COMPLETION
            || offset < DESCRIPTOR
            || length < offset
            || used < length + TRAILER
        {
            return Err(format!(
                "no answer: packet of type {kind}, data at {offset} of {length} bytes, {used} wait"
            ));
        }
        let mut payload = vec![0; length - offset];
        self.0.get(start + offset, &mut payload);
        let mut trailer = [0; TRAILER];
        self.0.get(start + length, &mut trailer);
        if u64::from_le_bytes(trailer) >> 32 != start as u64 {
            return Err(format!("the packet at {start} has the trailer {trailer:02x?}"));
        }
        self.0.publish(READ_INDEX, start, length + TRAILER);
        let [.., a, b, c, d, e, f, g, h] = descriptor;
        Ok(Some((u64::from_le_bytes([a, b, c, d, e, f, g, h]), payload)))
    }

    /// Returns whether the host waits for the guest to read.
    pub fn host_waits(&self) -> bool {
        self.0.word(PENDING_SEND_SIZE).load(Ordering::SeqCst) != 0
    }

    /// Returns the number of wraps of the read index.
    pub fn wraps(&self) -> u32 {
        self.0.wraps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a ring with one page of data, in memory that is never freed.
    fn ring() -> (NonNull<u8>, usize) {
        let pages: &'static mut [[u64; 512]] = vec![[0; 512]; 2].leak();
        (NonNull::from(pages).cast(), 2 * 4096)
    }

    #[test]
    fn test_ring_written_round_and_read_gives_the_packets_in_order() {
        let (start, bytes) = ring();
        // SAFETY: the memory is leaked.
        let (mut to, mut from) =
            unsafe { (ToHost::new(start, bytes), FromHost::new(start, bytes)) };
        for number in 0..500_u64 {
            let payload = vec![number as u8; 8 + (number as usize * 8) % 1000];
            assert!(to.write(number, &payload).unwrap());
            // Converts the packet to an answer, as a host would.
            let at = start.as_ptr().wrapping_add(CONTROL + to.0.index(READ_INDEX).unwrap());
            // SAFETY: the descriptor's first byte is in the data.
            unsafe { at.write(TYPE_COMPLETION as u8) };
            assert_eq!(from.read().unwrap(), Some((number, payload)));
        }
        assert!(to.wraps() > 10 && to.wraps() == from.wraps());
        assert_eq!(from.read().unwrap(), None);
    }

    #[test]
    fn test_ring_without_room_asks_for_it() {
        let (start, bytes) = ring();
        // SAFETY: the memory is leaked.
        let (mut to, from) = unsafe { (ToHost::new(start, bytes), FromHost::new(start, bytes)) };
        let mut written = 0;
        while to.write(written, &[0; 1000]).unwrap() {
            written += 1;
        }
        assert_eq!(written, 3, "of 1,024 bytes each, and a ring is never full to the brim");
        assert!(from.host_waits());
    }

    #[test]
    fn test_ring_with_something_else_than_an_answer_is_an_error() {
        let (start, bytes) = ring();
        // SAFETY: the memory is leaked.
        let (mut to, mut from) =
            unsafe { (ToHost::new(start, bytes), FromHost::new(start, bytes)) };
        to.write(1, &[0; 8]).unwrap();
        assert!(from.read().unwrap_err().contains("type 6"));
    }
}
