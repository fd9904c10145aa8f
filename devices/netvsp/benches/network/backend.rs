//! A backend that costs as little as possible.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use synthvm_net::{
    Backend, Counters, Frame, LinkState, MIN_FRAME, Offloads, Pieces, Queue, ReceiveError,
    Received, SendError,
};

/// A network without an outside: it takes each frame, and has as many frames to receive as the
/// bench says. Of these it writes the Ethernet header only, as the card reads it: the kernel of a
/// TAP has written the frame by the time `readv` returns.
#[derive(Debug)]
pub(crate) struct BenchNet {
    queues: Vec<Arc<Meter>>,
}

/// The bench's side of one queue.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Frames that the queue still has to receive.
    pub(crate) supply: AtomicUsize,
    /// Bytes of these frames.
    pub(crate) length: AtomicUsize,
    /// Frames that were sent.
    pub(crate) sent: AtomicU64,
    /// Bytes of guest memory in the frames that were sent and received. All other bytes were
    /// copied in user space.
    pub(crate) in_place: AtomicU64,
    /// Addresses of guest memory, as far as they are known: from, to.
    pub(crate) memory: [AtomicUsize; 2],
}

impl BenchNet {
    /// Returns a backend of `queues` queues.
    pub(crate) fn new(queues: usize) -> Self {
        Self { queues: (0..queues).map(|_| Arc::default()).collect() }
    }

    /// Returns the bench's sides of all queues.
    pub(crate) fn meters(&self) -> Vec<Arc<Meter>> {
        self.queues.clone()
    }
}

impl Backend for BenchNet {
    fn queues(&self) -> usize {
        self.queues.len()
    }

    fn offloads(&self) -> Offloads {
        Offloads::all()
    }

    fn mtu_limit(&self) -> u32 {
        65_535
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let meter = self.queues.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Box::new(BenchQueue(Arc::clone(meter))))
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }

    fn set_receive_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }
}

struct BenchQueue(Arc<Meter>);

impl Queue for BenchQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let sent = self.0.sent.load(Ordering::Relaxed);
        self.0.sent.store(sent + 1, Ordering::Relaxed);
        self.0.look_at(frame.pieces, frame.pieces.len());
        Ok(())
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        const HEADER: [u8; MIN_FRAME] = [0, 0x15, 0x5D, 1, 2, 3, 2, 0, 0, 0, 0, 1, 0x88, 0xB5];
        let Some(left) = self.0.supply.load(Ordering::Relaxed).checked_sub(1) else {
            return Ok(None);
        };
        self.0.supply.store(left, Ordering::Relaxed);
        let length = self.0.length.load(Ordering::Relaxed);
        if length > space.len() {
            return Err(ReceiveError::TooLong);
        }
        space.copy_from(0, &HEADER);
        self.0.look_at(space, length);
        Ok(Some(Received { length, ..Received::default() }))
    }

    fn event(&self) -> Option<RawFd> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

impl Meter {
    /// Counts the first `length` bytes of a frame that are in guest memory. Only while the
    /// addresses are known, as times are measured with this backend too.
    #[inline]
    fn look_at(&self, pieces: &Pieces<'_>, length: usize) {
        let [from, to] = [0, 1].map(|end: usize| self.memory[end].load(Ordering::Relaxed));
        if to == 0 {
            return;
        }
        let (mut left, mut in_place) = (length, 0);
        for piece in pieces.iovecs() {
            let count = piece.iov_len.min(left);
            left -= count;
            if (from..to).contains(&(piece.iov_base as usize)) {
                in_place += count as u64;
            }
        }
        self.in_place.fetch_add(in_place, Ordering::Relaxed);
    }
}
