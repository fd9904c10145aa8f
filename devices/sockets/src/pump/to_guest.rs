//! From the socket to the guest's ring.

use std::io;

use vmbus_ring::{Outgoing, PacketKind, SpaceWait, WriteBatch};

use super::{Counters, Fault, Pump, Rings, Scratch};
use crate::limits::{MAX_FRAMES, MAX_PIECES};
use crate::protocol::{HEADER_BYTES, MAX_DATA, data_header, total_bytes};
use crate::unix;

/// Bytes of ring that data leaves free, so that a FIN can always be sent.
const END_SPACE: u32 = 40;

/// Minimum bytes of data in a frame behind others, as each frame costs the guest some work.
const MIN_DATA: u32 = 512;

/// The state of the direction.
#[derive(Debug, Default)]
pub(super) struct ToGuest {
    /// The socket may have bytes.
    pub(super) is_readable: bool,
    /// The host program sends no more: after the last bytes there is an end, which no event
    /// announces again.
    pub(super) ends: bool,
    /// The guest does not signal free space.
    pub(super) must_poll: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The socket has ended, and the guest does not know yet.
    Ending,
    /// The FIN is in the ring.
    Ended,
}

impl ToGuest {
    pub(super) fn is_finished(&self) -> bool {
        self.stage == Stage::Ended
    }
}

impl<R: Rings> Pump<R> {
    /// Reads from the socket into the ring with one system call. Returns whether anything moved.
    pub(super) fn move_to_guest(
        &mut self,
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Result<bool, Fault> {
        match self.to_guest.stage {
            Stage::Open if self.to_guest.is_readable => {}
            Stage::Ending => return self.send_end(),
            Stage::Open | Stage::Ended => return Ok(false),
        }
        let trace = self.rings.trace();
        let space = space(self.rings.outgoing(), &mut self.to_guest)?;
        let Some(mut batch) = space else { return Ok(false) };
        let Scratch { pieces, frames, .. } = scratch;
        let planned = plan(&mut batch, frames, pieces)?;
        if planned == 0 {
            // The guest has taken free space back.
            return Ok(false);
        }
        // SAFETY: the pieces are free space of the ring, which `batch` borrows. Guest memory may
        // change at any time.
        let read = match unsafe { unix::receive(&self.socket, pieces) } {
            Ok(0) => None,
            Ok(read) => Some(read as u32),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.to_guest.is_readable = false;
                return Ok(false);
            }
            Err(_) => {
                self.peer_gone = true;
                None
            }
        };
        let Some(read) = read else {
            self.to_guest.stage = Stage::Ending;
            return self.send_end();
        };
        self.to_guest.is_readable = read == planned || self.to_guest.ends;
        counters.reads.add(1);
        counters.bytes_to_guest.add(read.into());
        self.moved.to_guest += read as usize;
        let mut left = read;
        for most in frames.iter() {
            let length = left.min(*most);
            if length == 0 {
                break;
            }
            if let Some(trace) = &trace {
                let mut payload = data_header(length).to_vec();
                batch.unwritten(0, HEADER_BYTES, length).for_each(|slice| {
                    let start = payload.len();
                    payload.resize(start + slice.len(), 0);
                    slice.copy_to(&mut payload[start..]);
                });
                trace.sent(PacketKind::InBand, 0, false, &payload);
            }
            batch.write_in_place(&data_header(length), length)?;
            left -= length;
        }
        let must_signal = batch.commit();
        self.rings.signal_if(must_signal);
        Ok(true)
    }

    /// Tells the guest that the data has ended.
    fn send_end(&mut self) -> Result<bool, Fault> {
        let outgoing = self.rings.outgoing();
        self.to_guest.must_poll = false;
        // Data leaves this space free, but the guest chooses the index from which it follows.
        if outgoing.free()? <= total_bytes(0) {
            let wait = outgoing.wait_for_space(total_bytes(0))?;
            self.to_guest.must_poll = wait == SpaceWait::Poll;
            if wait != SpaceWait::Ready {
                return Ok(false);
            }
        } else if outgoing.is_waiting() {
            outgoing.space_came();
        }
        let mut batch = outgoing.batch()?;
        batch.write_in_place(&data_header(0), 0)?;
        let must_signal = batch.commit();
        self.rings.signal_if(must_signal);
        self.to_guest.stage = Stage::Ended;
        Ok(true)
    }
}

/// Returns a batch, if the ring has enough free space; otherwise waits for space.
fn space<'a>(
    outgoing: &'a mut Outgoing,
    state: &mut ToGuest,
) -> Result<Option<WriteBatch<'a>>, Fault> {
    // Half of a small ring: the guest reads the other half meanwhile.
    let wanted = (total_bytes(MAX_DATA) + END_SPACE).min(outgoing.data_size() / 2);
    state.must_poll = false;
    if outgoing.free()? <= wanted {
        let wait = outgoing.wait_for_space(wanted)?;
        state.must_poll = wait == SpaceWait::Poll;
        if wait != SpaceWait::Ready {
            return Ok(None);
        }
    } else if outgoing.is_waiting() {
        outgoing.space_came();
    }
    Ok(Some(outgoing.batch()?))
}

/// Plans frames for the free space: the maximum bytes of each, and the memory of their data.
/// Returns the sum of the bytes.
fn plan(
    batch: &mut WriteBatch<'_>,
    frames: &mut Vec<u32>,
    pieces: &mut unix::Pieces,
) -> Result<u32, Fault> {
    frames.clear();
    pieces.clear();
    let mut budget = batch.free()?.saturating_sub(END_SPACE);
    let (mut skip, mut planned) = (0, 0);
    while budget >= total_bytes(MIN_DATA) && frames.len() < MAX_FRAMES && pieces.len() < MAX_PIECES
    {
        let length = (budget - total_bytes(0)).min(MAX_DATA) & !7;
        for slice in batch.unwritten(skip, HEADER_BYTES, length) {
            pieces.push(slice.ptr_guard_mut().as_ptr(), slice.len());
        }
        frames.push(length);
        skip += total_bytes(length);
        budget -= total_bytes(length);
        planned += length;
    }
    Ok(planned)
}
