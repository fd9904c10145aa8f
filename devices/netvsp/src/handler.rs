//! The handler of a card's channel: packet in, frames and decisions, packets out.

use std::os::fd::RawFd;
use std::sync::Arc;

use synthvm_net::{Backend, LinkState, Pieces, Queue, SendError};
use vmbus_device::{ChannelHandler, Completed};
use vmbus_gpadl::{GpadlView, GuestBuffer, ReadWrite};
use vmbus_host::ChannelHandle;
use vmbus_ring::{Packet, PacketKind};

use crate::message::GuestMessage;
use crate::packet::NetPacket;
use crate::protocol::limits::{HEADER_COPY, MAX_CONTROL_MESSAGE};
use crate::protocol::nvsp::{
    BufferRequest, Capabilities, ChannelType, Completion, Effect, Gpadl, HostMessage, NvspStatus,
    ProtocolError, RndisPacket, SendBuffer, Session,
};
use crate::protocol::oid::{CardProperties, Connection, Link};
use crate::protocol::rndis::{Control, TransmitCursor, TransmitFrame};
use crate::receive::ReceiveBuffer;
use crate::transmit;

/// Packets to the guest.
type Outbox = vmbus_device::Outbox<NetPacket>;

/// Bytes of a packet's payload that are looked at: more than any NVSP message has.
const MAX_PAYLOAD: usize = 64;

/// Speed of the link as guests see it, in bit/s.
const SPEED: u64 = 10_000_000_000;

/// The state of a card's primary channel.
pub(crate) struct NetHandler {
    channel: ChannelHandle,
    backend: Arc<dyn Backend>,
    queue: Box<dyn Queue>,
    session: Session,
    control: Control,
    send_buffer: Option<(SendBuffer, GpadlView)>,
    receive: Option<ReceiveBuffer>,
    /// The ranges of the packet in hand.
    ranges: GuestBuffer,
    /// The message whose next frame waits for space in the backend. No packet is taken meanwhile.
    waiting: Option<Transmission>,
    /// Kept for their memory.
    pieces: Pieces<'static>,
    message: Vec<u8>,
}

/// A message of the guest that is being sent. Its ranges are the handler's.
struct Transmission {
    request: Request,
    packet: RndisPacket,
    cursor: TransmitCursor,
    /// The frame that the backend did not take.
    frame: Option<TransmitFrame>,
    status: NvspStatus,
}

/// How to complete a packet.
#[derive(Clone, Copy)]
struct Request {
    transaction_id: u64,
    wants_completion: bool,
}

impl ChannelHandler for NetHandler {
    type Payload = NetPacket;
    type Error = ProtocolError;
    type State = ();

    /// A message waits for the backend, or the next control message could not be answered.
    fn may_take(&self) -> bool {
        self.waiting.is_none() && self.receive.as_ref().is_none_or(ReceiveBuffer::has_control_space)
    }

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), ProtocolError> {
        let request = Request {
            transaction_id: packet.transaction_id(),
            wants_completion: packet.completion_requested(),
        };
        if packet.kind() == PacketKind::Completion {
            // One that completes nothing changes nothing: a guest's driver may be confused.
            if let Some(receive) = &mut self.receive {
                receive.complete(request.transaction_id);
            }
            return Ok(());
        }
        if packet.kind() != PacketKind::GpaDirect || packet.gpa_direct(&mut self.ranges).is_err() {
            self.ranges.clear();
        }
        let mut bytes = [0; MAX_PAYLOAD];
        let length = packet.read_payload(&mut bytes);
        let outcome = self.session.handle(&bytes[..length], request.wants_completion)?;
        self.apply(request, outcome.effect, outbox);
        match outcome.completion {
            Completion::None => {}
            Completion::Empty => outbox.complete(request.transaction_id, NetPacket::empty()),
            Completion::Message(message) => {
                outbox.complete(request.transaction_id, NetPacket::message(message));
            }
        }
        Ok(())
    }

    fn complete(&mut self, outbox: &mut Outbox) -> Completed {
        let mut completed = Completed::Nothing;
        if let Some(transmission) = self.waiting.take() {
            self.transmit(transmission, outbox);
            if self.waiting.is_none() {
                completed = Completed::Some;
            }
        }
        let filter = self.control.settings().filter;
        if self.receives()
            && let Some(receive) = &mut self.receive
        {
            match receive.receive(&mut *self.queue, &filter, outbox) {
                Completed::Nothing => {}
                received => completed = received,
            }
        }
        completed
    }

    /// The backend's event counts only while the guest can receive or a message waits: it stays
    /// readable as long as a frame is there.
    fn events(&self, events: &mut Vec<RawFd>) {
        if self.waiting.is_some() || self.receives() {
            events.extend(self.queue.event());
        }
    }
}

impl NetHandler {
    /// Returns the handler of a channel that the guest has opened. `queue` is the first one of
    /// `backend`.
    pub(crate) fn new(
        channel: ChannelHandle,
        backend: Arc<dyn Backend>,
        queue: Box<dyn Queue>,
        properties: CardProperties,
    ) -> Self {
        let ranges = GuestBuffer::new(channel.ram().clone());
        let address = properties.address;
        Self {
            channel,
            backend,
            queue,
            session: Session::new(0),
            control: Control::new(properties, address),
            send_buffer: None,
            receive: None,
            ranges,
            waiting: None,
            pieces: Pieces::new(),
            message: Vec::new(),
        }
    }

    /// Whether a frame can go to the guest now.
    fn receives(&self) -> bool {
        self.control.settings().filter.kinds.0 != 0
            && self.receive.as_ref().is_some_and(ReceiveBuffer::has_frame_space)
    }

    fn apply(&mut self, request: Request, effect: Effect, outbox: &mut Outbox) {
        match effect {
            Effect::None | Effect::OfferSubchannels(_) | Effect::SwitchDataPath(_) => {}
            Effect::MapReceiveBuffer(buffer) => self.map_receive_buffer(request, buffer, outbox),
            Effect::MapSendBuffer(buffer) => self.map_send_buffer(request, buffer, outbox),
            Effect::ReceiveBufferRevoked => self.receive = None,
            Effect::SendBufferRevoked => self.send_buffer = None,
            Effect::Rndis(packet) => self.rndis(request, packet, outbox),
        }
    }

    fn map_receive_buffer(&mut self, request: Request, buffer: BufferRequest, outbox: &mut Outbox) {
        let view = self.channel.map_gpadl(buffer.gpadl, ReadWrite).ok();
        let (message, geometry) = self.session.complete_receive_buffer(view.as_ref().map(shape));
        if let (Some(view), Some(geometry), Some(version)) =
            (view, geometry, self.session.version())
        {
            self.receive = Some(ReceiveBuffer::new(buffer.id, geometry, view, version));
        }
        request.answer(NetPacket::message(message), outbox);
    }

    fn map_send_buffer(&mut self, request: Request, buffer: BufferRequest, outbox: &mut Outbox) {
        let view = self.channel.map_gpadl(buffer.gpadl, ReadWrite).ok();
        let (message, layout) = self.session.complete_send_buffer(view.as_ref().map(shape));
        self.send_buffer = layout.zip(view);
        request.answer(NetPacket::message(message), outbox);
    }

    fn rndis(&mut self, request: Request, packet: RndisPacket, outbox: &mut Outbox) {
        match packet.channel_type {
            ChannelType::Data => {
                // A section outside of the buffer gives a message that fails.
                let length = self.guest_message(packet).and_then(|message| message.len());
                let cursor = TransmitCursor::new(length.unwrap_or(0), self.session.max_frame());
                let status = NvspStatus::Success;
                let transmission = Transmission { request, packet, cursor, frame: None, status };
                self.transmit(transmission, outbox);
            }
            ChannelType::Control => self.handle_control(request, packet, outbox),
            ChannelType::Unknown => self.complete_rndis(request, NvspStatus::Failure, outbox),
        }
    }

    /// Sends the frames of a message until the backend is full or none is left.
    fn transmit(&mut self, mut transmission: Transmission, outbox: &mut Outbox) {
        while let Some(frame) = self.next_frame(&mut transmission) {
            let Some(message) =
                guest_message(self.send_buffer.as_ref(), &self.ranges, transmission.packet)
            else {
                break;
            };
            match transmit::send(&message, &frame, &mut *self.queue, &mut self.pieces) {
                Err(SendError::Full) => {
                    transmission.frame = Some(frame);
                    self.waiting = Some(transmission);
                    return;
                }
                // The guest learns of malformed frames; a network may lose all others.
                Err(SendError::Malformed | SendError::Length(_) | SendError::Unsupported) => {
                    transmission.status = NvspStatus::Failure;
                }
                Ok(()) | Err(SendError::LinkDown | SendError::Os(_)) => {}
            }
        }
        self.complete_rndis(transmission.request, transmission.status, outbox);
    }

    fn next_frame(&self, transmission: &mut Transmission) -> Option<TransmitFrame> {
        if let Some(frame) = transmission.frame.take() {
            return Some(frame);
        }
        let bytes = transmission.cursor.next_header()?;
        let mut header = [0; HEADER_COPY as usize];
        let header = header.get_mut(..(bytes.end - bytes.start) as usize)?;
        let message = self.guest_message(transmission.packet);
        let copied = message.is_some_and(|message| message.copy_to(bytes.start as usize, header));
        let frame = copied.then(|| transmission.cursor.parse_next(header).ok()).flatten();
        if frame.is_none() {
            transmission.status = NvspStatus::Failure;
        }
        frame
    }

    /// Completes a control message, then sends its answer.
    fn handle_control(&mut self, request: Request, packet: RndisPacket, outbox: &mut Outbox) {
        if !self.copy_control(packet) {
            return self.complete_rndis(request, NvspStatus::Failure, outbox);
        }
        let (connection, link) = (self.connection(), self.link());
        let outcome = self.control.handle(&self.message, &connection, link);
        self.complete_rndis(request, outcome.status, outbox);
        if let Some(receive) = &mut self.receive {
            for message in outcome.answer.iter().chain(&outcome.indication) {
                receive.send_control(message, outbox);
            }
        }
    }

    /// Copies a control message. Returns false if it cannot be answered, or is longer than any.
    fn copy_control(&mut self, packet: RndisPacket) -> bool {
        let Some(message) = guest_message(self.send_buffer.as_ref(), &self.ranges, packet) else {
            return false;
        };
        let length = message.len().unwrap_or(u32::MAX) as usize;
        if self.receive.is_none() || length > MAX_CONTROL_MESSAGE {
            return false;
        }
        self.message.clear();
        self.message.resize(length, 0);
        message.copy_to(0, &mut self.message)
    }

    fn connection(&self) -> Connection {
        Connection {
            max_frame: self.session.max_frame(),
            ndis_version: self.session.ndis_version(),
            channels: 1,
            may_coalesce: self.session.capabilities().contains(Capabilities::RECEIVE_COALESCING),
        }
    }

    fn link(&self) -> Link {
        Link { is_up: self.backend.link() == LinkState::Up, speed: SPEED }
    }

    fn guest_message(&self, packet: RndisPacket) -> Option<GuestMessage<'_>> {
        guest_message(self.send_buffer.as_ref(), &self.ranges, packet)
    }

    fn complete_rndis(&self, request: Request, status: NvspStatus, outbox: &mut Outbox) {
        if let Some(version) = self.session.version() {
            let message = HostMessage::rndis_complete(version, status);
            request.answer(NetPacket::message(message), outbox);
        }
    }
}

impl Request {
    fn answer(self, packet: NetPacket, outbox: &mut Outbox) {
        if self.wants_completion {
            outbox.complete(self.transaction_id, packet);
        }
    }
}

/// Returns the message of `packet`. `None`: it names a section that is not there.
fn guest_message<'a>(
    send_buffer: Option<&'a (SendBuffer, GpadlView)>,
    ranges: &'a GuestBuffer,
    packet: RndisPacket,
) -> Option<GuestMessage<'a>> {
    let section = match packet.section {
        None => None,
        Some(section) => {
            let (layout, view) = send_buffer?;
            Some((&**view, layout.locate(section)?))
        }
    };
    Some(GuestMessage::new(section, ranges))
}

/// Returns the shape of a buffer that the guest has shared.
fn shape(view: &GpadlView) -> Gpadl {
    let byte_offset = view.range(0).map_or(0, |(offset, _)| offset as u32);
    Gpadl { ranges: view.ranges(), byte_offset, length: view.len() as u64 }
}
