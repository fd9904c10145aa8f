//! The echo device: the smallest whole backend, for authors to read and for guests' drivers to be tried with.
//!
//! `docs/writing-a-backend.md` shows it line by line, and a test keeps the two alike. `synthvm run --test-device echo` offers it to a real guest.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use vmbus_host::{Channel, Device, Offer, OpenError, ReadWrite};
use vmbus_protocol::Guid;
use vmbus_ring::{OutPacket, RingError, SpaceWait, WriteError};

/// Who we are: the class says what the device is, the instance which one; it must be the same on every boot.
pub const CLASS: Guid = Guid::new(0x6f68_6365, 0x7421, 0x0000, *b"SynthVM!");
/// The only instance.
pub const INSTANCE: Guid = Guid::new(0x0000_0001, 0x7421, 0x0000, *b"SynthVM!");

/// Requests in hand at once; the rest stays in the guest's ring.
const MAX_HELD: usize = 64;

/// Answers each packet with itself. One that begins with {GPADL, offset, length, status}, four u32, also names bytes of a buffer that the
/// guest shares: they become capitals, in place, and the answer has 0 in `status`, or the number of what was wrong. GPADL 0 names nothing.
#[derive(Debug)]
pub struct Echo;

impl Device for Echo {
    fn offer(&self) -> Offer {
        Offer::new(CLASS, INSTANCE, 0)
    }

    // A guest opens a channel: hand it to a worker and return. `Err` here makes the guest's open fail.
    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let worker = std::thread::Builder::new().name(format!("echo-ch{}", channel.relid()));
        worker.spawn(move || serve(channel)).map(drop).map_err(|error| OpenError(error.to_string()))
    }
}

// Dropping the channel, here by returning, ends the close; or gives up on a guest that broke its ring.
fn serve(mut channel: Channel) {
    let mut answers = VecDeque::new();
    while !channel.is_closing() && drain(&mut channel, &mut answers).is_ok() {
        let mut bell = libc::pollfd { fd: channel.doorbell().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd. An early return only means one look too many.
        unsafe { libc::poll(&raw mut bell, 1, -1) };
        let _ = channel.doorbell().read(); // clear it before looking, or a ring in between is lost
    }
}

/// Works until there is nothing left that the doorbell would not tell of. `answers` are those that the ring had no room for.
fn drain(channel: &mut Channel, answers: &mut VecDeque<(u64, Vec<u8>)>) -> Result<(), RingError> {
    channel.outgoing.space_came();
    let mut more = true;
    while more && !channel.is_closing() {
        // Take what waits. Packets lie in guest memory, which the guest can change: copy once, judge the copy, use the copy.
        let old = answers.len();
        let mut batch = channel.incoming.batch()?;
        while answers.len() < MAX_HELD {
            let Some(packet) = batch.next()? else { break };
            let mut bytes = vec![0; packet.payload_len()];
            packet.read_payload(&mut bytes);
            if packet.completion_requested() {
                answers.push_back((packet.transaction_id(), bytes));
            }
        }
        let signal = batch.commit(); // the guest waits for space
        channel.signal_if(signal);
        // Do the work.
        for (_, bytes) in answers.range_mut(old..) {
            if let Some(header) = bytes.first_chunk_mut::<16>() {
                let status = shout(channel, header);
                header[12..].copy_from_slice(&status.to_le_bytes());
            }
        }
        // Answer all of them with at most one interrupt.
        let mut full = None;
        let mut batch = channel.outgoing.batch()?;
        while let Some((id, bytes)) = answers.front().filter(|_| full.is_none()) {
            match batch.write(&OutPacket::completion(*id, &[bytes])) {
                Err(WriteError::Full { needed }) => full = Some(needed),
                Err(WriteError::Corrupt(error)) => return Err(error),
                // TooBig: the ring for answers is smaller than that for requests, and this one can never be told.
                Ok(()) | Err(WriteError::TooBig { .. }) => drop(answers.pop_front()),
            }
        }
        let signal = batch.commit(); // the guest may sleep
        channel.signal_if(signal);
        // A full ring: sleep until the guest has read from it. An empty one: `unmask` says when more came meanwhile.
        more = match full {
            Some(needed) => channel.outgoing.wait_for_space(needed)? == SpaceWait::Ready,
            None => channel.incoming.unmask()?,
        };
    }
    Ok(())
}

/// Capitals for bytes of the guest's buffer. 0; or 1: there is no such GPADL, 2: it is shorter.
fn shout(channel: &Channel, header: &[u8; 16]) -> u32 {
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (gpadl, offset, end) = (word(0), word(4) as usize, word(4) as usize + word(8) as usize);
    if gpadl == 0 {
        return 0;
    }
    // Map it: the view's bytes are the guest's own, wherever its pages lie, and every access is bounded.
    let Ok(view) = channel.map_gpadl(gpadl, ReadWrite) else { return 1 };
    if end > view.len() {
        return 2;
    }
    let mut piece = [0; 4096];
    for at in (offset..end).step_by(piece.len()) {
        let piece = &mut piece[..(end - at).min(4096)];
        let _ = view.read(at, piece);
        piece.make_ascii_uppercase();
        let _ = view.write(at, piece);
    }
    0 // Dropping the view lets the guest have its buffer back.
}

/// The programs of `docs/writing-a-backend.md`, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-backend.md")]
struct WritingABackend;
