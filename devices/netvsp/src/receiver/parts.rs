//! The parts of a frame: the sub-allocations that hold it, and the RNDIS headers in front.

use synthvm_net::Pieces;
use vm_memory::VolatileSlice;
use vmbus_ring::TransferRange;

use super::{Receiver, SPACE_OFFSET};
use crate::config::ReceiveBuffer;
use crate::inspect::InspectedFrame;
use crate::message::add_memory;
use crate::protocol::limits::FRAME_OFFSET;
use crate::protocol::rndis::{Fragment, ReceiveHeader, ReceivedFrame};
use crate::protocol::sub_allocations::SubAllocation;

impl Receiver {
    /// Lists the sub-allocations that hold a frame, with the bytes of the messages in them.
    pub(super) fn split(&mut self, frame: &InspectedFrame) {
        let end = self.buffer.geometry.usable();
        let mut left = frame.length as u32;
        let mut start = SPACE_OFFSET + frame.offset as u32;
        for &sub_allocation in &self.space {
            let part = left.min(end - start);
            left -= part;
            let byte_offset = self.buffer.offset(sub_allocation);
            let range = TransferRange { byte_count: start + part, byte_offset };
            self.fragments.push((sub_allocation, range));
            if left == 0 {
                break;
            }
            start = FRAME_OFFSET;
        }
    }

    /// Writes the RNDIS headers of the parts of a frame. `first`: the memory of the first
    /// sub-allocation, if that is one piece. Returns false if the guest took the buffer's memory
    /// away.
    pub(super) fn write_headers(
        &mut self,
        frame: &InspectedFrame,
        first: Option<VolatileSlice<'_>>,
    ) -> bool {
        let count = self.fragments.len();
        if count > 1 {
            self.coalesced = self.coalesced.wrapping_add(1);
        }
        let mut offset = SPACE_OFFSET + frame.offset as u32;
        for (number, (_, range)) in self.fragments.iter().enumerate() {
            let is_first = number == 0;
            let is_last = number + 1 == count;
            let fragment = Fragment { is_first, is_last, id: self.coalesced };
            let mut message = ReceivedFrame {
                offset,
                length: range.byte_count - offset,
                fragment: (count > 1).then_some(fragment),
                ..ReceivedFrame::default()
            };
            if is_first {
                message.checksum = frame.checksum;
                message.vlan = frame.vlan;
                message.hash = frame.hash.map(|hash| hash.0);
            }
            let header = ReceiveHeader::new(&message);
            match first.filter(|_| is_first) {
                Some(memory) => memory.copy_from(header.bytes()),
                None => {
                    let start = range.byte_offset as usize;
                    if self.buffer.view.write(start, header.bytes()).is_err() {
                        return false;
                    }
                }
            }
            offset = FRAME_OFFSET;
        }
        true
    }
}

/// Adds the memory of `space`, in which a frame is received, to `pieces`. Returns the memory of the
/// whole first sub-allocation, if that is one piece.
pub(super) fn add_space<'a>(
    buffer: &'a ReceiveBuffer,
    space: &[SubAllocation],
    pieces: &mut Pieces<'a>,
) -> Result<Option<VolatileSlice<'a>>, NoSpace> {
    let Some((&first, others)) = space.split_first() else { return Err(NoSpace) };
    let usable = buffer.geometry.usable();
    let memory = buffer.view.piece(buffer.offset(first) as usize, usable as usize);
    match memory.and_then(|memory| memory.offset(SPACE_OFFSET as usize).ok()) {
        Some(space) => pieces.push(space).map_err(|_| NoSpace)?,
        None => add_part(buffer, first, SPACE_OFFSET, pieces)?,
    }
    for &sub_allocation in others {
        add_part(buffer, sub_allocation, FRAME_OFFSET, pieces)?;
    }
    Ok(memory)
}

/// Adds the memory of a sub-allocation from `begin` on.
fn add_part<'a>(
    buffer: &'a ReceiveBuffer,
    sub_allocation: SubAllocation,
    begin: u32,
    pieces: &mut Pieces<'a>,
) -> Result<(), NoSpace> {
    let start = (buffer.offset(sub_allocation) + begin) as usize;
    let length = (buffer.geometry.usable() - begin) as usize;
    add_memory(&buffer.view, start, length, pieces).map_err(|_| NoSpace)
}

/// The space cannot be reached: there are too many pieces.
pub(super) struct NoSpace;
