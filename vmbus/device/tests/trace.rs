//! The trace of a bus with a guest's driver in one process.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use vmbus_client::{Client, SendFlags, Waiting};
use vmbus_device::{ChannelHandler, Outbox, WorkerOptions, serve};
use vmbus_host::{BusTrace, Channel, Offer, TracedPacket};
use vmbus_loopback::{LoopbackVm, Mode};
use vmbus_protocol::Guid;
use vmbus_protocol::message::{Direction, MessageType};
use vmbus_ring::{Packet, PacketKind};

const CLASS: Guid = Guid::new(0x7e57, 0x7421, 0x0002, *b"SynthVM!");

/// Completes each packet with 100 bytes.
struct Replier;

impl ChannelHandler for Replier {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        outbox.complete(packet.transaction_id(), vec![7; 100]);
        Ok(())
    }
}

/// A packet without its transaction id, which the client chooses.
type Seen = (Direction, PacketKind, bool, usize, Vec<u8>);

#[derive(Default)]
struct Recorder {
    messages: Mutex<Vec<(Direction, u32)>>,
    packets: Mutex<Vec<Seen>>,
    transactions: Mutex<Vec<u64>>,
}

impl BusTrace for Recorder {
    fn message(&self, direction: Direction, message: &[u8]) {
        let number = u32::from_le_bytes(*message.first_chunk().unwrap());
        self.messages.lock().unwrap().push((direction, number));
    }

    fn packet(&self, packet: &TracedPacket<'_>) {
        assert_eq!((packet.relid, packet.subchannel), (1, 0));
        self.transactions.lock().unwrap().push(packet.transaction_id);
        self.packets.lock().unwrap().push((
            packet.direction,
            packet.kind,
            packet.completion_requested,
            packet.payload_len,
            packet.payload.to_vec(),
        ));
    }
}

#[test]
fn test_trace_has_every_message_and_the_begin_of_each_packet_in_order() {
    let vm = LoopbackVm::new(Mode::Threaded);
    let trace = Arc::new(Recorder::default());
    assert!(vm.bus().set_trace(trace.clone()));
    assert!(!vm.bus().set_trace(trace.clone()), "a bus has one trace");
    let options = WorkerOptions::default();
    let handler = |_: &Channel| Replier;
    vm.offer(serve("replier", Offer::new(CLASS, CLASS, 0), handler, options)).unwrap();
    let mut client = Client::connect(vm.platform()).unwrap();
    let id = client.open(CLASS, None, None).unwrap();
    let mut answer = [0; 128];
    let flags = SendFlags::WAIT_FOR_COMPLETION;
    let long = [5; 72];
    client
        .channel(id)
        .send_synchronous_request(&long, None, flags, &mut answer, Waiting::Forever)
        .unwrap();

    use Direction::{ToGuest, ToHost};
    let expected = [
        (ToHost, PacketKind::InBand, true, 72, vec![5; 64]),
        (ToGuest, PacketKind::Completion, false, 100, vec![7; 64]),
    ];
    assert_eq!(*trace.packets.lock().unwrap(), expected);
    let transactions = trace.transactions.lock().unwrap();
    assert_eq!(transactions[0], transactions[1]);
    let messages = trace.messages.lock().unwrap();
    let at = |direction, kind: MessageType| {
        let position = messages.iter().position(|seen| *seen == (direction, kind.number()));
        position.unwrap_or_else(|| panic!("no {kind:?} in {messages:?}"))
    };
    let order = [
        at(ToHost, MessageType::InitiateContact),
        at(ToGuest, MessageType::VersionResponse),
        at(ToHost, MessageType::RequestOffers),
        at(ToGuest, MessageType::OfferChannel),
        at(ToHost, MessageType::OpenChannel),
        at(ToGuest, MessageType::OpenChannelResult),
    ];
    assert!(order.is_sorted(), "{messages:?}");
}
