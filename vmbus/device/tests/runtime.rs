//! Tests of the runtime with a guest's driver in one process.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vmbus_client::{ChannelId, Client, PacketObject, SendFlags, Waiting};
use vmbus_device::{
    ChannelHandler, InlineWorkers, MAX_WAITING, MAX_WAITING_BYTES, Outbox, WorkerOptions, serve,
};
use vmbus_host::{Channel, Offer};
use vmbus_loopback::{LoopbackPlatform, LoopbackVm, Mode};
use vmbus_protocol::Guid;
use vmbus_ring::Packet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const CLASS: Guid = Guid::new(0x7e57, 0x7421, 0x0000, *b"SynthVM!");
const OTHER: Guid = Guid::new(0x7e57, 0x7421, 0x0001, *b"SynthVM!");
const WAIT: SendFlags = SendFlags::WAIT_FOR_COMPLETION;

type Guest = Client<LoopbackPlatform>;

/// A handler that replies to each packet with `reply` bytes, and panics at one that begins with
/// `!`.
struct Replier {
    reply: usize,
    taken: Arc<AtomicUsize>,
}

impl ChannelHandler for Replier {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        assert_ne!(packet.payload()[0], b'!', "a panic that the test asked for");
        self.taken.fetch_add(1, Ordering::SeqCst);
        outbox.complete(packet.transaction_id(), vec![7; self.reply]);
        Ok(())
    }
}

struct Setup {
    vm: LoopbackVm,
    client: Guest,
    id: ChannelId,
    taken: Arc<AtomicUsize>,
    inline: InlineWorkers,
}

fn setup(reply: usize, threads: bool) -> Setup {
    let (vm, inline) = (LoopbackVm::new(Mode::Threaded), InlineWorkers::default());
    let options = WorkerOptions::default();
    let options = if threads { options } else { options.inline(inline.clone()) };
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let handler = move |_: &Channel| Replier { reply, taken: Arc::clone(&count) };
    vm.offer(serve("replier", Offer::new(CLASS, CLASS, 0), handler, options)).unwrap();
    let mut client = Client::connect(vm.platform()).unwrap();
    let id = client.open(CLASS, None, None).unwrap();
    Setup { vm, client, id, taken, inline }
}

fn send(client: &mut Guest, id: ChannelId, payload: &[u8]) {
    client.channel(id).send(PacketObject::new(), payload, None, WAIT).unwrap();
}

fn request(client: &mut Guest, id: ChannelId) -> Result<usize, vmbus_client::Error> {
    let mut answer = [0; 64];
    client.channel(id).send_synchronous_request(
        b"a packet",
        None,
        WAIT,
        &mut answer,
        Waiting::Forever,
    )
}

#[test]
fn test_handler_that_panics_loses_its_channel_and_the_next_one_is_served() {
    let Setup { vm: _vm, mut client, id, taken, .. } = setup(8, true);
    assert_eq!(request(&mut client, id), Ok(8));
    send(&mut client, id, b"! panic");
    client.channel(id).disable().unwrap();
    let id = client.open(CLASS, None, None).unwrap();
    assert_eq!(request(&mut client, id), Ok(8));
    assert_eq!(taken.load(Ordering::SeqCst), 2);
}

#[test]
fn test_turns_serve_channels_that_open_later_and_leave_nothing_to_others() {
    let Setup { vm, mut client, id, taken, inline } = setup(8, false);
    let mut turns = inline.turns().unwrap();
    assert!(inline.turns().is_none());
    send(&mut client, id, b"a packet");
    inline.serve();
    assert_eq!(taken.load(Ordering::SeqCst), 0);
    turns.serve();
    assert_eq!(taken.load(Ordering::SeqCst), 1);

    let count = Arc::clone(&taken);
    let handler = move |_: &Channel| Replier { reply: 8, taken: Arc::clone(&count) };
    let options = WorkerOptions::default().inline(inline.clone());
    vm.offer(serve("other", Offer::new(OTHER, OTHER, 0), handler, options)).unwrap();
    let other = client.open(OTHER, None, None).unwrap();
    send(&mut client, other, b"a packet");
    turns.serve();
    assert_eq!(taken.load(Ordering::SeqCst), 2);
    drop(turns);
    send(&mut client, other, b"a packet");
    inline.serve();
    assert_eq!(taken.load(Ordering::SeqCst), 3);
}

#[test]
fn test_paused_device_takes_no_packet_until_it_resumes() {
    let Setup { vm, mut client, id, taken, inline } = setup(8, false);
    vm.pause();
    send(&mut client, id, b"a packet");
    inline.serve();
    assert_eq!(taken.load(Ordering::SeqCst), 0);
    vm.resume();
    inline.serve();
    assert_eq!(taken.load(Ordering::SeqCst), 1);
}

#[test]
fn test_paused_device_with_threads_answers_after_it_resumes() {
    let Setup { vm, mut client, id, taken, .. } = setup(8, true);
    assert_eq!(request(&mut client, id), Ok(8));
    vm.pause();
    send(&mut client, id, b"a packet");
    assert_eq!(taken.load(Ordering::SeqCst), 1);
    vm.resume();
    assert_eq!(request(&mut client, id), Ok(8));
    assert_eq!(taken.load(Ordering::SeqCst), 3);
}

/// A handler with an event that is always readable. It counts the times when it is asked for its
/// events although it is quiesced.
struct Eventful {
    event: EventFd,
    is_quiesced: Arc<AtomicBool>,
    asked_in_vain: Arc<AtomicUsize>,
}

impl ChannelHandler for Eventful {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(
        &mut self,
        packet: &Packet<'_>,
        outbox: &mut Outbox<Vec<u8>>,
    ) -> Result<(), Infallible> {
        outbox.complete(packet.transaction_id(), vec![7; 8]);
        Ok(())
    }

    /// A resumed worker begins a round before it sleeps.
    fn begin_round(&mut self, _: &mut Outbox<Vec<u8>>) {
        self.is_quiesced.store(false, Ordering::SeqCst);
    }

    fn events(&self, events: &mut Vec<RawFd>) {
        if self.is_quiesced.load(Ordering::SeqCst) {
            self.asked_in_vain.fetch_add(1, Ordering::SeqCst);
        }
        events.push(self.event.as_raw_fd());
    }

    fn quiesce(&self) -> Option<()> {
        self.is_quiesced.store(true, Ordering::SeqCst);
        Some(())
    }
}

#[test]
fn test_quiesced_worker_does_not_wake_for_events_of_its_handler() {
    let vm = LoopbackVm::new(Mode::Threaded);
    let asked_in_vain = Arc::new(AtomicUsize::new(0));
    let (is_quiesced, count) = (Arc::new(AtomicBool::new(false)), Arc::clone(&asked_in_vain));
    let handler = move |_: &Channel| Eventful {
        event: EventFd::new(EFD_NONBLOCK).and_then(|event| event.write(1).map(|()| event)).unwrap(),
        is_quiesced: Arc::clone(&is_quiesced),
        asked_in_vain: Arc::clone(&count),
    };
    let offer = Offer::new(CLASS, CLASS, 0);
    vm.offer(serve("eventful", offer, handler, WorkerOptions::default())).unwrap();
    let mut client = Client::connect(vm.platform()).unwrap();
    let id = client.open(CLASS, None, None).unwrap();
    assert_eq!(request(&mut client, id), Ok(8));
    vm.pause();
    vm.resume();
    // The worker has slept once, or is about to, between the pause and this request.
    assert_eq!(request(&mut client, id), Ok(8));
    assert_eq!(asked_in_vain.load(Ordering::SeqCst), 0);
}

/// Returns the number of packets taken from a guest that reads no replies.
fn taken_without_reading(reply: usize, packets: usize) -> usize {
    let Setup { vm: _vm, mut client, id, taken, inline } = setup(reply, false);
    for _ in 0..packets {
        send(&mut client, id, b"a packet");
    }
    inline.serve();
    taken.load(Ordering::SeqCst)
}

#[test]
fn test_requests_are_left_in_the_ring_while_their_replies_wait() {
    // The ring to the guest has space for few replies of either size; the rest waits.
    let large = 8 << 10;
    let most = MAX_WAITING_BYTES / large;
    let taken = taken_without_reading(large, most + 200);
    assert!((most..most + 100).contains(&taken), "{taken} of at most {most} and those in the ring");
    let taken = taken_without_reading(1 << 10, MAX_WAITING + 600);
    assert!((MAX_WAITING..MAX_WAITING + 200).contains(&taken), "{taken}");
}

#[test]
fn test_report_of_the_bus_counts_the_packets_and_batches_of_a_worker() {
    let Setup { vm, mut client, id, inline, .. } = setup(8, false);
    for _ in 0..3 {
        send(&mut client, id, b"a packet");
    }
    inline.serve();
    send(&mut client, id, b"a packet");
    inline.serve();
    let worker = vm.inspect().channels[0].worker.unwrap();
    assert_eq!((worker.taken, worker.sent, worker.batches), (4, 4, 2));
}
