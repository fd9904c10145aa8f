//! Tests of one thread that serves channels of several devices.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use vmbus_client::{ChannelId, Client, Error, PacketObject, SendFlags, Waiting};
use vmbus_device::{ChannelHandler, Completed, Outbox, SharedLoop, WorkerOptions, serve};
use vmbus_host::core::ChannelKey;
use vmbus_host::{Channel, Offer};
use vmbus_loopback::{LoopbackPlatform, LoopbackVm, Mode};
use vmbus_protocol::Guid;
use vmbus_ring::Packet;

const WAIT: SendFlags = SendFlags::WAIT_FOR_COMPLETION;

/// Observations of the handlers.
#[derive(Default)]
struct Seen {
    /// The channel of the device of class 1.
    first: Mutex<Option<ChannelKey>>,
    /// Threads that handled a packet.
    threads: Mutex<Vec<ThreadId>>,
    /// A device of class 2 took a packet.
    second_was_served: AtomicBool,
    /// `second_was_served` was set when the handler of class 1 was dropped.
    second_was_first: AtomicBool,
}

/// The handler of the device of class `number`. It echoes packets, which may also make it
/// misbehave.
struct Handler {
    number: u32,
    seen: Arc<Seen>,
    is_busy: bool,
    is_stuck: bool,
}

impl ChannelHandler for Handler {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        let payload = packet.payload();
        match &payload[..5] {
            b"panic" => panic!("a panic that the test asked for"),
            b"busy." => self.is_busy = true,
            b"stuck" => self.is_stuck = true,
            _ => {}
        }
        self.seen.threads.lock().unwrap().push(thread::current().id());
        if self.number == 2 {
            self.seen.second_was_served.store(true, Ordering::SeqCst);
        }
        outbox.complete(packet.transaction_id(), payload);
        Ok(())
    }

    /// A busy handler always has more work.
    fn complete(&mut self, _: &mut Outbox) -> Completed {
        if self.is_busy { Completed::CallAgain } else { Completed::Nothing }
    }

    fn in_flight(&self) -> usize {
        usize::from(self.is_stuck && !self.seen.second_was_served.load(Ordering::SeqCst))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if self.number == 1 {
            let served = self.seen.second_was_served.load(Ordering::SeqCst);
            self.seen.second_was_first.store(served, Ordering::SeqCst);
        }
    }
}

fn class(number: u32) -> Guid {
    Guid::new(number, 0x7421, 0x0000, *b"SynthVM!")
}

/// Returns a VM with devices of classes 1 and 2 on one loop, and a guest that has opened both.
fn machine() -> (LoopbackVm, Client<LoopbackPlatform>, [ChannelId; 2], Arc<Seen>) {
    let (vm, seen) = (LoopbackVm::new(Mode::Threaded), Arc::new(Seen::default()));
    let shared = SharedLoop::new("services").unwrap();
    for number in [1, 2] {
        let its = Arc::clone(&seen);
        let handler = move |_: &Channel| Handler {
            number,
            seen: Arc::clone(&its),
            is_busy: false,
            is_stuck: false,
        };
        let options = WorkerOptions::default().shared_loop(shared.clone());
        let offer = Offer::new(class(number), class(number), 0);
        let key = vm.offer(serve("service", offer, handler, options)).unwrap();
        seen.first.lock().unwrap().get_or_insert(key);
    }
    let mut client = Client::connect(vm.platform()).unwrap();
    let ids = [1, 2].map(|number| client.open(class(number), None, None).unwrap());
    (vm, client, ids, seen)
}

fn request(
    client: &mut Client<LoopbackPlatform>,
    id: ChannelId,
    payload: &[u8; 8],
) -> Result<(), Error> {
    let mut answer = [0; 8];
    let mut channel = client.channel(id);
    channel.send_synchronous_request(payload, None, WAIT, &mut answer, Waiting::Forever)?;
    assert_eq!(answer, *payload);
    Ok(())
}

#[test]
fn test_channels_of_a_shared_loop_are_served_by_one_thread() {
    let (_vm, mut client, ids, seen) = machine();
    for _ in 0..100 {
        for id in ids {
            request(&mut client, id, b"a packet").unwrap();
        }
    }
    let threads = seen.threads.lock().unwrap();
    assert_eq!(threads.len(), 200);
    assert!(threads.iter().all(|thread| *thread == threads[0]));
    assert_ne!(threads[0], thread::current().id());
}

#[test]
fn test_channel_that_is_always_busy_leaves_turns_to_the_others() {
    let (_vm, mut client, ids, _) = machine();
    request(&mut client, ids[0], b"busy....").unwrap();
    for id in ids.into_iter().cycle().take(20) {
        request(&mut client, id, b"a packet").unwrap();
    }
}

#[test]
fn test_panic_in_a_shared_loop_loses_one_channel() {
    let (_vm, mut client, ids, _) = machine();
    client.channel(ids[0]).send(PacketObject::new(), b"panic...", None, WAIT).unwrap();
    request(&mut client, ids[1], b"a packet").unwrap();
    client.channel(ids[0]).disable().unwrap();
    let again = client.open(class(1), None, None).unwrap();
    request(&mut client, again, b"a packet").unwrap();
}

/// The work in flight of the first channel ends only after the second is served. A blocking loop
/// would time out after two seconds and serve the second channel too late.
#[test]
fn test_closing_channel_with_work_in_flight_does_not_hold_up_the_others() {
    let (vm, mut client, ids, seen) = machine();
    request(&mut client, ids[0], b"stuck...").unwrap();
    vm.bus().rescind(seen.first.lock().unwrap().unwrap());
    request(&mut client, ids[1], b"a packet").unwrap();
    drop(client);
    vm.reset();
    assert!(seen.second_was_first.load(Ordering::SeqCst));
}

#[test]
fn test_paused_channels_of_a_shared_loop_answer_after_they_resume() {
    let (vm, mut client, ids, seen) = machine();
    vm.pause();
    for id in ids {
        client.channel(id).send(PacketObject::new(), b"a packet", None, WAIT).unwrap();
    }
    assert_eq!(seen.threads.lock().unwrap().len(), 0);
    vm.resume();
    for id in ids {
        request(&mut client, id, b"a packet").unwrap();
    }
    assert_eq!(seen.threads.lock().unwrap().len(), 4);
}
