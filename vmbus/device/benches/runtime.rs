//! Benchmark of the runtime: requests of 16 bytes and their replies, through a handler and through
//! a hand-written loop.
//!
//! `cargo xtask bench runtime --json FILE` prints a table. It runs `cargo bench -p vmbus-device
//! --bench runtime [-- --json FILE]`. Both ends take turns in one thread. The limit of each number
//! is the hand-written loop, measured in the same run.

#[path = "../../loopback/benches/bus/clock.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod clock;
#[path = "../../loopback/benches/bus/number.rs"]
mod number;
#[path = "../../loopback/benches/bus/program.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod program;

use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;

use number::Number;
use vmbus_client::{ChannelId, Client};
use vmbus_device::{ChannelHandler, InlineWorkers, Outbox, Payload, WorkerOptions, serve};
use vmbus_host::{Channel, Offer};
use vmbus_loopback::{LoopbackPlatform, LoopbackRings, LoopbackVm, Mode};
use vmbus_protocol::Guid;
use vmbus_ring::{OutPacket, Packet};

const BYTES: usize = 16;
/// Maximum cost of the runtime relative to the hand-written loop.
const ALLOWED: f64 = 1.15;
/// Number of passes.
const PASSES: usize = 5;

const RUNTIME: Guid = Guid::new(0xbe4c, 0x7421, 0x0001, *b"SynthVM!");
const BY_HAND: Guid = Guid::new(0xbe4c, 0x7421, 0x0002, *b"SynthVM!");

fn main() -> ExitCode {
    program::main("runtime", |options| {
        options.report("only --json FILE is", || Ok(program::best_of(PASSES, measure)))
    })
}

fn measure() -> Vec<Number> {
    let mut machine = Machine::new();
    let number = |batch: usize| {
        let each = batch as f64;
        let by_hand = machine.by_hand(batch) / each;
        let value = machine.runtime(batch) / each;
        Number::new(format!("runtime_ping_batch{batch}_ns"), "ns", value, by_hand)
            .target(by_hand * ALLOWED)
    };
    [1, 4, 16, 64].map(number).into()
}

/// A VM with both devices, and a guest that has opened a channel to each.
struct Machine {
    _vm: LoopbackVm,
    client: Client<LoopbackPlatform>,
    runtime: ChannelId,
    inline: InlineWorkers,
    by_hand: ChannelId,
    hand: Hand,
}

impl Machine {
    fn new() -> Self {
        let (vm, inline) = (LoopbackVm::new(Mode::Threaded), InlineWorkers::default());
        let options = WorkerOptions::default().inline(inline.clone());
        vm.offer(serve("ping", Offer::new(RUNTIME, RUNTIME, 0), |_: &Channel| Ping, options))
            .unwrap();
        let (_, opened) = vm.offer_manual(Offer::new(BY_HAND, BY_HAND, 0)).unwrap();
        let mut client = Client::connect(vm.platform()).unwrap();
        let runtime = open(&mut client, RUNTIME);
        let by_hand = open(&mut client, BY_HAND);
        let hand = Hand { channel: opened.take().unwrap(), replies: Vec::new() };
        Self { _vm: vm, client, runtime, inline, by_hand, hand }
    }

    /// Returns the nanoseconds of `batch` requests through the runtime.
    fn runtime(&mut self, batch: usize) -> f64 {
        let Self { client, runtime, inline, .. } = self;
        let mut channel = client.channel(*runtime);
        let rings = channel.rings().unwrap();
        // A worker's thread takes no lock for its turns either.
        let mut turns = inline.turns().unwrap();
        clock::best_of(|| exchange(rings, batch, || turns.serve()))
    }

    /// Returns the nanoseconds of `batch` requests through the hand-written loop.
    fn by_hand(&mut self, batch: usize) -> f64 {
        let Self { client, by_hand, hand, .. } = self;
        let mut channel = client.channel(*by_hand);
        let rings = channel.rings().unwrap();
        clock::best_of(|| exchange(rings, batch, || hand.serve()))
    }
}

fn open(client: &mut Client<LoopbackPlatform>, class: Guid) -> ChannelId {
    let id = client.allocate();
    let mut channel = client.channel(id);
    channel.init_set_target_pnp(class, None).unwrap();
    channel.init_suppress_queue_management().unwrap();
    channel.enable().unwrap();
    client.wait_for_open(id).unwrap();
    id
}

/// Runs the guest's part: sends `batch` requests, calls `serve`, and reads the replies.
fn exchange(rings: &mut LoopbackRings, batch: usize, serve: impl FnOnce()) {
    let payload: [&[u8]; 1] = [&[1; BYTES]];
    let mut writer = rings.outgoing.batch().unwrap();
    for id in 0..batch as u64 {
        writer.write(&OutPacket::request(id, &payload)).unwrap();
    }
    let _ = writer.commit();
    serve();
    let mut reader = rings.incoming.batch().unwrap();
    for _ in 0..batch {
        black_box(reader.next().unwrap().unwrap().transaction_id());
    }
    let _ = reader.commit();
}

/// The device on the runtime.
struct Ping;

struct Reply([u8; BYTES]);

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Payload for Reply {
    fn from_saved(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl ChannelHandler for Ping {
    type Payload = Reply;
    type Error = Infallible;
    type State = ();

    fn packet(
        &mut self,
        packet: &Packet<'_>,
        outbox: &mut Outbox<Reply>,
    ) -> Result<(), Infallible> {
        let mut reply = Reply([0; BYTES]);
        packet.read_payload(&mut reply.0);
        if packet.completion_requested() {
            outbox.complete(packet.transaction_id(), reply);
        }
        Ok(())
    }
}

/// The device as a hand-written loop, for a ring that always has space.
struct Hand {
    channel: Channel,
    replies: Vec<(u64, [u8; BYTES])>,
}

impl Hand {
    fn serve(&mut self) {
        let Self { channel, replies } = self;
        loop {
            channel.incoming.mask();
            let mut batch = channel.incoming.batch().unwrap();
            while let Some(packet) = batch.next().unwrap() {
                let mut bytes = [0; BYTES];
                packet.read_payload(&mut bytes);
                if packet.completion_requested() {
                    replies.push((packet.transaction_id(), bytes));
                }
            }
            let wanted = batch.commit();
            channel.signal_if(wanted);
            let mut batch = channel.outgoing.batch().unwrap();
            for (id, bytes) in replies.drain(..) {
                batch.write(&OutPacket::completion(id, &[&bytes])).unwrap();
            }
            let wanted = batch.commit();
            channel.signal_if(wanted);
            if !channel.incoming.unmask().unwrap() {
                return;
            }
        }
    }
}
