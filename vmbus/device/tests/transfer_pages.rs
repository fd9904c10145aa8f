//! Packets that name parts of a buffer which the guest has shared, and that the guest completes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmbus_device::{ChannelHandler, InlineWorkers, Outbox, Payload, WorkerOptions, serve};
use vmbus_host::Offer;
use vmbus_loopback::bare::{BareChannel, BareGuest};
use vmbus_protocol::{Guid, guid};
use vmbus_ring::{OutPacket, Packet, PacketKind, TransferRange, transfer_pages_header};

const SET: u16 = 0xCAFE;

/// Four bytes, with the header of one range or none.
#[derive(Clone)]
struct Frame {
    bytes: [u8; 4],
    header: Vec<u8>,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Payload for Frame {
    fn from_saved(bytes: &[u8]) -> Option<Self> {
        Some(Self { bytes: bytes.try_into().ok()?, header: Vec::new() })
    }

    fn transfer_pages(&self) -> &[u8] {
        &self.header
    }

    fn from_saved_transfer(bytes: &[u8], header: &[u8]) -> Option<Self> {
        Some(Self { header: header.to_vec(), ..Self::from_saved(bytes)? })
    }
}

/// Answers each packet by its completion and a transfer-pages packet, whose range begins at the
/// packet's transaction id. Adds up the ids of the packets that the guest completes.
struct Sender {
    completed: Arc<AtomicU64>,
}

impl ChannelHandler for Sender {
    type Payload = Frame;
    type Error = Infallible;
    type State = ();

    fn packet(
        &mut self,
        packet: &Packet<'_>,
        outbox: &mut Outbox<Frame>,
    ) -> Result<(), Infallible> {
        let id = packet.transaction_id();
        if packet.kind() == PacketKind::Completion {
            self.completed.fetch_add(id, Ordering::SeqCst);
            return Ok(());
        }
        let mut header = Vec::new();
        transfer_pages_header(SET, &[range(id)], &mut header);
        outbox.complete(id, Frame { bytes: *b"done", header: Vec::new() });
        outbox.request(1000 + id, Frame { bytes: *b"data", header });
        Ok(())
    }
}

fn range(id: u64) -> TransferRange {
    TransferRange { byte_count: 100, byte_offset: id as u32 }
}

fn setup() -> (BareGuest, BareChannel, Arc<AtomicU64>) {
    let (inline, completed) = (InlineWorkers::default(), Arc::<AtomicU64>::default());
    let options = WorkerOptions::default().inline(inline.clone());
    let sums = Arc::clone(&completed);
    let open = move |_: &vmbus_host::Channel| Sender { completed: Arc::clone(&sums) };
    let device =
        serve("sender", Offer::new(guid::class::NETWORK, Guid::default(), 0), open, options);
    let (mut guest, _) = BareGuest::new(vec![Box::new(device)]);
    guest.serve = Some(Arc::new(move || inline.serve()));
    let channel = guest.open(guest.offers[0], 2);
    (guest, channel, completed)
}

/// Takes the two packets that answer packet `id`.
fn take_answers(channel: &mut BareChannel, id: u64) {
    assert_eq!(channel.completion(id)[..4], *b"done");
    let packet = channel.receive();
    assert_eq!((packet.kind, packet.transaction_id), (PacketKind::TransferPages, 1000 + id));
    assert_eq!(packet.payload[..4], *b"data");
    assert_eq!(packet.transfer, Some((SET, vec![range(id)])));
}

#[test]
fn test_transfer_pages_packet_has_its_ranges_and_is_completed_by_the_guest() {
    let (guest, mut channel, completed) = setup();
    for id in 1..=3 {
        channel.send(id, &[0; 8], &[]);
        take_answers(&mut channel, id);
        assert!(channel.try_write(&OutPacket::completion(1000 + id, &[])));
    }
    guest.serve.iter().for_each(|serve| serve());
    assert_eq!(completed.load(Ordering::SeqCst), 3006);
}

#[test]
fn test_transfer_pages_packets_that_wait_for_space_arrive_whole_and_in_order() {
    let (_guest, mut channel, _) = setup();
    // The ring to the guest has one page of data: space for some thirty pairs.
    for id in 1..=60 {
        channel.send(id, &[], &[]);
    }
    for id in 1..=60 {
        take_answers(&mut channel, id);
    }
    assert_eq!(channel.try_receive(), None);
}
