//! A guest with its cards, all in the calling thread.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use synthvm_netvsp::{CardOptions, NetworkCard};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmbus_device::{InlineWorkers, WorkerOptions};
use vmbus_host::Device;
use vmbus_loopback::bare::{BareChannel, BareGuest};
use vmbus_protocol::Guid;
use vmbus_ring::{OutPacket, PacketKind};

use crate::backend::{BenchNet, Meter};
use crate::guest::{ADDRESS, Buffers, NetGuest, full, words};
use crate::load::{Load, SEND_PAGES};

/// Pages of a receive buffer: 344 sub-allocations.
const RECEIVE_PAGES: usize = 152;

/// The shape of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Network cards.
    pub(crate) cards: usize,
    /// Channels of each card.
    pub(crate) channels: usize,
}

impl Shape {
    /// One card with one channel.
    pub(crate) const PLAIN: Self = Self { cards: 1, channels: 1 };
}

/// A machine with open channels. All cards share the same buffers in guest memory, so that more
/// cards use no more memory.
pub(crate) struct Machine {
    guest: BareGuest,
    workers: InlineWorkers,
    pub(crate) queues: Vec<Queue>,
    /// The payload of a completion.
    completion: [u8; 40],
}

/// Both ends of one channel of a card.
pub(crate) struct Queue {
    pub(crate) channel: BareChannel,
    pub(crate) meter: Arc<Meter>,
    /// Packets of the host that wait for a completion.
    received: Vec<u64>,
}

impl Machine {
    pub(crate) fn new(shape: Shape) -> Self {
        let workers = InlineWorkers::default();
        let nets: Vec<_> = (0..shape.cards).map(|_| BenchNet::new(shape.channels)).collect();
        let meters: Vec<_> = nets.iter().map(BenchNet::meters).collect();
        let devices = (0_u32..).zip(nets).map(|(number, net)| card(number, net, &workers));
        let (mut guest, _) = BareGuest::new(devices.collect());
        let serve = workers.clone();
        guest.serve = Some(Arc::new(move || serve.serve()));
        let mut queues = Vec::new();
        for (number, meters) in meters.into_iter().enumerate() {
            let channels;
            (guest, channels) = open(guest, number, shape.channels, &workers);
            let ends = channels.into_iter().zip(meters);
            queues.extend(ends.map(|(channel, meter)| Queue {
                channel,
                meter,
                received: Vec::new(),
            }));
        }
        let completion = full(&words(&[108, 1])).try_into().expect("40 bytes");
        Self { guest, workers, queues, completion }
    }

    /// Tells the backends where guest memory is, so that they count.
    pub(crate) fn count_bytes(&self) {
        let memory = self.guest.memory.ram().memory();
        let from = memory.get_host_address(GuestAddress(0)).expect("guest memory") as usize;
        let bytes = memory.iter().map(|region| region.len() as usize).sum::<usize>();
        for queue in &self.queues {
            queue.meter.memory[0].store(from, Ordering::Relaxed);
            queue.meter.memory[1].store(from + bytes, Ordering::Relaxed);
        }
    }

    /// Sends `count` frames, `batch` at a time on each channel. Returns the time that this took.
    pub(crate) fn send_all(&mut self, load: &mut Load, batch: usize, count: u64) -> Duration {
        let start = Instant::now();
        let rounds = count.div_ceil((batch * self.queues.len()) as u64);
        for _ in 0..rounds {
            self.send(load, batch);
            self.serve();
            self.take_completions(batch);
        }
        start.elapsed().mul_f64(self.share(count, rounds, batch))
    }

    /// Receives `count` frames of `length` bytes, `batch` at a time on each channel. Returns the
    /// time that this took.
    pub(crate) fn receive_all(&mut self, length: usize, batch: usize, count: u64) -> Duration {
        self.set_length(length);
        let start = Instant::now();
        let rounds = count.div_ceil((batch * self.queues.len()) as u64);
        for _ in 0..rounds {
            self.supply(batch);
            self.serve();
            self.receive();
        }
        start.elapsed().mul_f64(self.share(count, rounds, batch))
    }

    /// Runs the host's part: serves all channels.
    #[inline]
    pub(crate) fn serve(&self) {
        self.workers.serve();
    }

    /// Writes `batch` frames to each channel, which become visible together.
    pub(crate) fn send(&mut self, load: &mut Load, batch: usize) {
        for queue in &mut self.queues {
            let mut packets = queue.channel.outgoing.batch().expect("a sound ring");
            for id in 0..batch {
                let (payload, header) = load.next();
                let payload = [&payload[..]];
                let packet = OutPacket::request(id as u64, &payload);
                let packet = match header {
                    [] => packet,
                    header => packet.with_header(PacketKind::GpaDirect, header),
                };
                packets.write(&packet).expect("space in the ring");
            }
            // The doorbell is the hypervisor's work, and not measured.
            black_box(packets.commit());
        }
    }

    /// Takes `batch` completions from each channel. All must be present and successful.
    pub(crate) fn take_completions(&mut self, batch: usize) {
        for queue in &mut self.queues {
            let mut packets = queue.channel.incoming.batch().expect("a sound ring");
            let mut received = 0;
            while let Some(packet) = packets.next().expect("a sound ring") {
                assert_eq!(packet.read(), Some([108_u32.to_le_bytes(), 1_u32.to_le_bytes()]));
                received += 1;
            }
            assert_eq!(received, batch, "frames that were not completed");
            assert!(!packets.commit(), "the host should not wait for space");
        }
    }

    /// Sets the length of the frames to receive.
    pub(crate) fn set_length(&self, length: usize) {
        for queue in &self.queues {
            queue.meter.length.store(length, Ordering::Relaxed);
        }
    }

    /// Gives each backend `batch` frames.
    pub(crate) fn supply(&self, batch: usize) {
        for queue in &self.queues {
            queue.meter.supply.store(batch, Ordering::Relaxed);
        }
    }

    /// Takes the packets of each channel, and completes them.
    pub(crate) fn receive(&mut self) {
        for queue in &mut self.queues {
            let mut packets = queue.channel.incoming.batch().expect("a sound ring");
            while let Some(packet) = packets.next().expect("a sound ring") {
                assert_eq!(packet.kind(), PacketKind::TransferPages);
                queue.received.push(packet.transaction_id());
            }
            assert!(!packets.commit(), "the host should not wait for space");
            assert_eq!(queue.meter.supply.load(Ordering::Relaxed), 0, "frames that did not come");
            let mut packets = queue.channel.outgoing.batch().expect("a sound ring");
            for id in queue.received.drain(..) {
                let payload = [&self.completion[..]];
                packets.write(&OutPacket::completion(id, &payload)).expect("space in the ring");
            }
            black_box(packets.commit());
        }
    }

    /// The part of `rounds` rounds that `count` frames are: the last round may exceed the count.
    fn share(&self, count: u64, rounds: u64, batch: usize) -> f64 {
        count as f64 / (rounds * (batch * self.queues.len()) as u64) as f64
    }
}

fn card(number: u32, net: BenchNet, workers: &InlineWorkers) -> Box<dyn Device> {
    let options = CardOptions {
        instance: Guid::new(number, 0, 0, [0; 8]),
        address: ADDRESS,
        name: String::new(),
        workers: WorkerOptions::default().inline(workers.clone()),
    };
    Box::new(NetworkCard::new(options, Arc::new(net)))
}

/// Opens and initialises card `number`.
fn open(
    guest: BareGuest,
    number: usize,
    channels: usize,
    workers: &InlineWorkers,
) -> (BareGuest, Vec<BareChannel>) {
    let offer = guest.offers[number];
    let mut guest = NetGuest::again(guest, offer, workers.clone());
    let first_gpadl = 100 + 2 * number as u32;
    guest.buffers = Buffers { first_gpadl, receive_pages: RECEIVE_PAGES, send_pages: SEND_PAGES };
    guest.initialise();
    if channels > 1 {
        guest.add_subchannels(channels as u16 - 1);
    }
    // Linux's filter: frames to the card, to all, and to groups.
    guest.set(0x0001_010E, &0xD_u32.to_le_bytes());
    let NetGuest { guest, channel, subchannels, .. } = guest;
    (guest, [channel].into_iter().chain(subchannels).collect())
}
