//! The parts of a frame: the sub-allocations that hold it, and the RNDIS headers in front.

use synthvm_net::Pieces;
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

    /// Writes the RNDIS headers of the parts of a frame. Returns false if the guest took the
    /// buffer's memory away.
    pub(super) fn write_headers(&mut self, frame: &InspectedFrame) -> bool {
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
            if self.buffer.view.write(range.byte_offset as usize, header.bytes()).is_err() {
                return false;
            }
            offset = FRAME_OFFSET;
        }
        true
    }
}

/// Adds the memory of `space`, in which a frame is received, to `pieces`.
pub(super) fn add_space<'a>(
    buffer: &'a ReceiveBuffer,
    space: &[SubAllocation],
    pieces: &mut Pieces<'a>,
) -> Result<(), NoSpace> {
    let mut begin = SPACE_OFFSET;
    for &sub_allocation in space {
        let start = (buffer.offset(sub_allocation) + begin) as usize;
        let length = (buffer.geometry.usable() - begin) as usize;
        add_memory(&buffer.view, start, length, pieces).map_err(|_| NoSpace)?;
        begin = FRAME_OFFSET;
    }
    Ok(())
}

/// The space cannot be reached: there are too many pieces.
pub(super) struct NoSpace;
