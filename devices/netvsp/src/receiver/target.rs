//! The frames for one channel: their RNDIS headers, and the batch that becomes a packet.

use vmbus_ring::TransferRange;

use super::space::{self, Reserved, Space};
use crate::inspect::InspectedFrame;
use crate::protocol::rndis::{Fragment, ReceiveHeader, ReceivedFrame};
use crate::protocol::sub_allocations::SubAllocation;

/// The frames of one channel in this round, and those that the guest has not completed.
#[derive(Default)]
pub(super) struct Target {
    pub(super) batch: Vec<SubAllocation>,
    pub(super) ranges: Vec<TransferRange>,
    /// Sub-allocations of packets that the guest has not completed.
    pub(super) outstanding: u32,
}

impl Target {
    /// Writes the RNDIS header of a frame in the first sub-allocation of `space`, and adds it to
    /// the batch. Returns false, and adds nothing, if the guest took the buffer's memory away.
    #[inline]
    pub(super) fn add_whole(&mut self, frame: &InspectedFrame, space: &Space<'_>) -> bool {
        let Some(reserved) = space.first(1).first() else { return false };
        let message = ReceivedFrame {
            offset: space::OFFSET + frame.offset as u32,
            length: frame.length as u32,
            checksum: frame.checksum,
            vlan: frame.vlan,
            hash: frame.hash.map(|hash| hash.0),
            fragment: None,
        };
        let is_written = space.write_header(0, reserved, ReceiveHeader::new(&message).bytes());
        if is_written {
            self.push(reserved, &message);
        }
        is_written
    }

    /// Does the same with a coalesced frame of number `id` in the first `count` sub-allocations.
    #[inline(never)]
    pub(super) fn add_parts(
        &mut self,
        frame: &InspectedFrame,
        space: &Space<'_>,
        count: usize,
        id: u16,
    ) -> bool {
        let batched = self.batch.len();
        let mut offset = space::OFFSET + frame.offset as u32;
        let mut left = frame.length as u32;
        for (index, reserved) in space.first(count).iter().enumerate() {
            let length = left.min(space.end() - offset);
            let (is_first, is_last) = (index == 0, index + 1 == count);
            let fragment = Some(Fragment { is_first, is_last, id });
            let mut message = ReceivedFrame { offset, length, fragment, ..Default::default() };
            if is_first {
                message.checksum = frame.checksum;
                message.vlan = frame.vlan;
                message.hash = frame.hash.map(|hash| hash.0);
            }
            if !space.write_header(index, reserved, ReceiveHeader::new(&message).bytes()) {
                self.batch.truncate(batched);
                self.ranges.truncate(batched);
                return false;
            }
            self.push(reserved, &message);
            left -= length;
            offset = space::OFFSET;
        }
        true
    }

    #[inline]
    fn push(&mut self, reserved: &Reserved, message: &ReceivedFrame) {
        self.batch.push(reserved.sub_allocation);
        let byte_count = message.message_length();
        self.ranges.push(TransferRange { byte_count, byte_offset: reserved.offset });
    }
}
