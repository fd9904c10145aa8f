//! The receive buffer: frames and control messages to the guest.

use synthvm_net::{Pieces, Queue, ReceiveError, vlan};
use vmbus_device::{Completed, Outbox};
use vmbus_gpadl::GpadlView;
use vmbus_ring::TransferRange;

use crate::packet::{MAX_FRAMES, NetPacket};
use crate::protocol::MacAddress;
use crate::protocol::filter::ReceiveFilter;
use crate::protocol::limits::{FRAME_OFFSET, VLAN_TAG};
use crate::protocol::nvsp::{ChannelType, HostMessage, NvspVersion};
use crate::protocol::rndis::{ControlMessage, ReceiveHeader, ReceivedFrame, Vlan};
use crate::protocol::sub_allocations::{Geometry, Owner, Partition, Share, SubAllocation};

/// Frames are received four bytes before their usual place, so that one with a tag still fits: it
/// begins there once its tag is removed.
const SPACE_OFFSET: u32 = FRAME_OFFSET - VLAN_TAG;

/// An accepted receive buffer.
pub(crate) struct ReceiveBuffer {
    /// The guest's number for the buffer.
    id: u16,
    geometry: Geometry,
    partition: Partition,
    control: Share,
    frames: Share,
    view: GpadlView,
    version: NvspVersion,
    /// Kept for their memory.
    batch: Vec<SubAllocation>,
    ranges: Vec<TransferRange>,
    pieces: Pieces<'static>,
}

impl ReceiveBuffer {
    pub(crate) fn new(id: u16, geometry: Geometry, view: GpadlView, version: NvspVersion) -> Self {
        let partition = Partition::new(geometry, 1);
        Self {
            id,
            geometry,
            partition,
            control: Share::new(partition, Owner::Control),
            frames: Share::new(partition, Owner::Channel(0)),
            view,
            version,
            batch: Vec::new(),
            ranges: Vec::new(),
            pieces: Pieces::new(),
        }
    }

    /// Returns whether an answer and an indication can be sent.
    pub(crate) fn has_control_space(&self) -> bool {
        self.control.available() >= 2
    }

    /// Returns whether a frame can be received.
    pub(crate) fn has_frame_space(&self) -> bool {
        self.frames.available() != 0
    }

    /// Takes a completion of the guest. Returns false if it completes nothing.
    pub(crate) fn complete(&mut self, transaction: u64) -> bool {
        let share = match self.partition.owner_of(transaction) {
            Some(Owner::Control) => &mut self.control,
            Some(Owner::Channel(_)) => &mut self.frames,
            None => return false,
        };
        share.complete(transaction).is_ok()
    }

    /// Sends a control message. It is dropped if there is no space, which the handler prevents.
    pub(crate) fn send_control(
        &mut self,
        message: &ControlMessage,
        outbox: &mut Outbox<NetPacket>,
    ) {
        let Some(sub_allocation) = self.control.reserve() else { return };
        let (offset, bytes) = (self.offset(sub_allocation), message.bytes());
        // In bounds: the longest control message fits the smallest sub-allocation.
        let written = self.view.write(offset as usize, bytes);
        let range = TransferRange { byte_count: bytes.len() as u32, byte_offset: offset };
        match (written, self.control.send(&[sub_allocation])) {
            (Ok(()), Ok(id)) => {
                let nvsp = HostMessage::rndis_packet(self.version, ChannelType::Control);
                outbox.request(id.word(), NetPacket::transfer(nvsp, self.id, &[range]));
            }
            (Err(_), Ok(id)) => _ = self.control.complete(id.word()),
            (_, Err(_)) => _ = self.control.cancel(sub_allocation),
        }
    }

    /// Receives a batch of frames from `queue` and sends those that `filter` accepts. The queue may
    /// have more after a full batch.
    pub(crate) fn receive(
        &mut self,
        queue: &mut dyn Queue,
        filter: &ReceiveFilter,
        outbox: &mut Outbox<NetPacket>,
    ) -> Completed {
        let mut completed = Completed::CallAgain;
        let mut any = false;
        while self.batch.len() < MAX_FRAMES {
            let Some(sub_allocation) = self.frames.reserve() else {
                completed = Completed::Some;
                break;
            };
            match self.receive_one(sub_allocation, queue, filter) {
                Ok(Some(range)) => {
                    any = true;
                    self.batch.push(sub_allocation);
                    self.ranges.push(range);
                }
                Ok(None) => {
                    any = true;
                    let _ = self.frames.cancel(sub_allocation);
                }
                Err(NoFrame) => {
                    let _ = self.frames.cancel(sub_allocation);
                    completed = if any { Completed::Some } else { Completed::Nothing };
                    break;
                }
            }
        }
        if let Ok(id) = self.frames.send(&self.batch) {
            let nvsp = HostMessage::rndis_packet(self.version, ChannelType::Data);
            outbox.request(id.word(), NetPacket::transfer(nvsp, self.id, &self.ranges));
        }
        self.batch.clear();
        self.ranges.clear();
        completed
    }

    /// Receives one frame. `None`: it was dropped, because it is too long or not for the guest.
    fn receive_one(
        &mut self,
        sub_allocation: SubAllocation,
        queue: &mut dyn Queue,
        filter: &ReceiveFilter,
    ) -> Result<Option<TransferRange>, NoFrame> {
        let start = self.offset(sub_allocation);
        let space = (start + SPACE_OFFSET) as usize;
        let length = (self.geometry.usable() - SPACE_OFFSET) as usize;
        let mut pieces = std::mem::take(&mut self.pieces).recycle();
        let slices = self.view.slices(space, length).map_err(|_| NoFrame)?;
        let fits = slices.into_iter().try_for_each(|slice| pieces.push(slice));
        let received = match queue.receive(&pieces) {
            _ if fits.is_err() => Err(NoFrame),
            Ok(Some(mut received)) => {
                let vlan = vlan::strip(&pieces, &mut received);
                let mut destination = [0; 6];
                pieces.copy_to(received.offset, &mut destination);
                Ok(filter.accepts(MacAddress(destination)).then_some((received, vlan)))
            }
            Err(ReceiveError::TooLong) => Ok(None),
            Ok(None) | Err(ReceiveError::LinkDown | ReceiveError::Os(_)) => Err(NoFrame),
        };
        self.pieces = pieces.recycle();
        let Some((received, vlan)) = received? else { return Ok(None) };
        let frame = ReceivedFrame {
            offset: SPACE_OFFSET + received.offset as u32,
            length: received.length as u32,
            vlan: vlan.and_then(|tag| Vlan::from_tag(tag.to_bytes())),
            ..ReceivedFrame::default()
        };
        let header = ReceiveHeader::new(&frame);
        self.view.write(start as usize, header.bytes()).map_err(|_| NoFrame)?;
        Ok(Some(TransferRange { byte_count: frame.message_length(), byte_offset: start }))
    }

    fn offset(&self, sub_allocation: SubAllocation) -> u32 {
        // Every index of a share is one of the geometry's.
        self.geometry.offset(sub_allocation.index()).unwrap_or(0)
    }
}

/// The backend has no frame, or cannot have any.
struct NoFrame;
