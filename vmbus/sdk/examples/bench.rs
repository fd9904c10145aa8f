//! Measures your own device on the loopback VM, next to the limits of this machine.
//!
//! Replace [`backend`] with your device, and [`REQUEST`] with a packet of your driver. Then:
//! `cargo run --release -p vmbus --features loopback --example bench`

use std::convert::Infallible;
use std::error::Error;
use std::hint::{self, black_box};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use vmbus::client::{ChannelId, Client};
use vmbus::loopback::{LoopbackPlatform, LoopbackRings, LoopbackVm, Mode};
use vmbus::ring::OutPacket;
use vmbus::runtime::InlineWorkers;
use vmbus::{
    Channel, ChannelHandler, Device, EventFd, Guid, Offer, Outbox, Packet, WorkerOptions, serve,
};

/// Returns the device to be measured, under the instance `instance`.
fn backend(instance: Guid, options: WorkerOptions) -> impl Device {
    serve("bench", Offer::new(CLASS, instance, 0), |_: &Channel| Echo, options)
}

/// The packet that the guest sends: a multiple of 8 bytes. The reply may have as many.
const REQUEST: [u8; 64] = [7; 64];

/// Answers each packet with itself: this driver requests a completion of each.
struct Echo;

impl ChannelHandler for Echo {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = ();

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        outbox.complete(packet.transaction_id(), packet.payload());
        Ok(())
    }
}

// The measurements.

const CLASS: Guid = Guid::new(0x6863_6e62, 0x7421, 0x0000, *b"SynthVM!");
/// The instance with an inline worker.
const INLINE: Guid = Guid::new(0x6863_6e62, 0x7421, 0x0001, *b"SynthVM!");
/// The instance with a worker's thread.
const THREAD: Guid = Guid::new(0x6863_6e62, 0x7421, 0x0002, *b"SynthVM!");
/// The instance without a worker: a loop over the rings in this program.
const BARE: Guid = Guid::new(0x6863_6e62, 0x7421, 0x0003, *b"SynthVM!");

/// Number of packets sent together in the measurements with many in flight.
const BATCH: usize = 64;

/// Pages of a ring: twice the packets in flight, and a control page.
const RING_PAGES: usize = (2 * BATCH * (REQUEST.len() + 64)).div_ceil(4096) + 1;

/// The length of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of each number. The shortest round counts, as a disturbance only makes one longer.
    pub(crate) rounds: usize,
    /// Packets of a round, a multiple of 64.
    pub(crate) packets: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    if cfg!(debug_assertions) {
        eprintln!("This is a slow build: use --release.");
    }
    run(&mut io::stdout(), Effort { rounds: 50, packets: 6400 })
}

/// Measures, and prints a table to `out`.
pub(crate) fn run(out: &mut impl Write, effort: Effort) -> Result<(), Box<dyn Error>> {
    let mut machine = Machine::new()?;
    let copies = effort.best(1, || {
        copy_four_times(&REQUEST);
        Ok(())
    })?;
    let (line, wake) = (effort.cache_line()?, effort.wake()?);
    let bare = [machine.bare(effort, 1)?, machine.bare(effort, BATCH)?];
    let inline = [machine.inline(effort, 1)?, machine.inline(effort, BATCH)?];
    let thread = [machine.thread(effort, 1)?, machine.thread(effort, BATCH)?];

    let size = REQUEST.len();
    writeln!(
        out,
        "A request of {size} bytes and its reply        ns   least possible           ns"
    )?;
    let mut row = |what: &str, value: f64, limit: &str, least: f64| {
        let ratio = value / least;
        writeln!(out, "{what:<38} {value:8.0}   {limit:<20} {least:6.0} x {ratio:.1}")
    };
    let copied = "copying four times";
    row("bare rings, one at a time", bare[0], copied, copies)?;
    row("bare rings, 64 at a time", bare[1], copied, copies)?;
    row("the device inline, one at a time", inline[0], "bare rings", bare[0])?;
    row("the device inline, 64 at a time", inline[1], "bare rings", bare[1])?;
    row("the device in a thread, one at a time", thread[0], "cache line, and back", line)?;
    row("the device in a thread, 64 in flight", thread[1], "bare rings", bare[1])?;
    row("waking a thread, and being woken", wake, "cache line, and back", line)?;
    Ok(())
}

impl Effort {
    /// Returns the nanoseconds of one packet. Each call of `exchange` sends `batch` packets.
    fn best(
        self,
        batch: usize,
        mut exchange: impl FnMut() -> Result<(), Box<dyn Error>>,
    ) -> Result<f64, Box<dyn Error>> {
        let mut shortest = f64::INFINITY;
        for _ in 0..self.rounds {
            let start = Instant::now();
            for _ in 0..self.packets / batch {
                exchange()?;
            }
            shortest = shortest.min(start.elapsed().as_secs_f64());
        }
        Ok(shortest * 1e9 / self.packets as f64)
    }

    /// Returns the nanoseconds of passing a number to another thread and back through memory, with
    /// both threads polling.
    fn cache_line(self) -> Result<f64, Box<dyn Error>> {
        let number = AtomicU64::new(0);
        let wait_for = |expected: u64| {
            let mut looks = 0_u32;
            while number.load(Ordering::Acquire) != expected {
                looks += 1;
                // The other thread may need this processor.
                if looks.is_multiple_of(10_000) { thread::yield_now() } else { hint::spin_loop() }
            }
        };
        let last = 2 * (self.rounds * self.packets) as u64;
        thread::scope(|scope| {
            scope.spawn(|| {
                for at in (1..last).step_by(2) {
                    wait_for(at);
                    number.store(at + 1, Ordering::Release);
                }
            });
            let mut at = 0;
            self.best(1, || {
                number.store(at + 1, Ordering::Release);
                at += 2;
                wait_for(at);
                Ok(())
            })
        })
    }

    /// Returns the nanoseconds of waking another thread by an eventfd and being woken by it.
    fn wake(self) -> Result<f64, Box<dyn Error>> {
        let (there, back) = (EventFd::new(0)?, EventFd::new(0)?);
        let wakes = self.rounds * self.packets;
        thread::scope(|scope| {
            scope.spawn(|| (0..wakes).try_for_each(|_| there.read().and_then(|_| back.write(1))));
            self.best(1, || {
                there.write(1)?;
                back.read()?;
                Ok(())
            })
        })
    }
}

/// Copies the bytes into a ring and out of it, and those of the reply.
fn copy_four_times(request: &[u8; REQUEST.len()]) {
    let mut bytes = *black_box(request);
    for _ in 0..3 {
        bytes = *black_box(&bytes);
    }
    black_box(bytes);
}

/// A VM with two instances of the device, and a guest with a channel to each and to a bare one.
struct Machine {
    guest: Client<LoopbackPlatform>,
    workers: InlineWorkers,
    inline: ChannelId,
    thread: ChannelId,
    bare: (ChannelId, Channel),
    _vm: LoopbackVm,
}

impl Machine {
    fn new() -> Result<Machine, Box<dyn Error>> {
        let (vm, workers) = (LoopbackVm::new(Mode::Threaded), InlineWorkers::default());
        vm.offer(backend(INLINE, WorkerOptions::default().inline(workers.clone())))?;
        vm.offer(backend(THREAD, WorkerOptions::default()))?;
        let (_, opened) = vm.offer_manual(Offer::new(CLASS, BARE, 0))?;
        let mut guest = Client::connect(vm.platform())?;
        let mut open = |instance| -> Result<ChannelId, vmbus::client::Error> {
            let id = guest.allocate();
            let mut channel = guest.channel(id);
            channel.init_set_target_pnp(CLASS, Some(instance))?;
            channel.init_suppress_queue_management()?;
            channel.init_set_ring_buffer_page_count(RING_PAGES, RING_PAGES)?;
            channel.enable()?;
            guest.wait_for_open(id)?;
            Ok(id)
        };
        let (inline, thread, bare) = (open(INLINE)?, open(THREAD)?, open(BARE)?);
        let bare = (bare, opened.take().ok_or("the channel is not open")?);
        Ok(Machine { guest, workers, inline, thread, bare, _vm: vm })
    }

    /// Returns the nanoseconds of a packet through a loop over the rings, without the runtime.
    fn bare(&mut self, effort: Effort, batch: usize) -> Result<f64, Box<dyn Error>> {
        let (id, host) = &mut self.bare;
        let mut guest = self.guest.channel(*id);
        let rings = guest.rings().ok_or(CLOSED)?;
        effort.best(batch, || {
            send(rings, batch)?;
            let (mut requests, mut replies) = (host.incoming.batch()?, host.outgoing.batch()?);
            while let Some(packet) = requests.next()? {
                let mut bytes = [0; REQUEST.len()];
                packet.read_payload(&mut bytes);
                replies.write(&OutPacket::completion(packet.transaction_id(), &[&bytes]))?;
            }
            let _ = (requests.commit(), replies.commit());
            receive(rings).map(|_| ())
        })
    }

    /// Returns the nanoseconds of a packet through the device, in this thread.
    fn inline(&mut self, effort: Effort, batch: usize) -> Result<f64, Box<dyn Error>> {
        let mut guest = self.guest.channel(self.inline);
        let rings = guest.rings().ok_or(CLOSED)?;
        effort.best(batch, || {
            send(rings, batch)?;
            self.workers.serve();
            receive(rings).map(|_| ())
        })
    }

    /// Returns the nanoseconds of a packet through the device in its own thread. Both threads sleep
    /// when they have no work, the device's after its poll window.
    fn thread(&mut self, effort: Effort, batch: usize) -> Result<f64, Box<dyn Error>> {
        let (guest, id) = (&mut self.guest, self.thread);
        effort.best(batch, || {
            let mut channel = guest.channel(id);
            if send(channel.rings().ok_or(CLOSED)?, batch)? {
                channel.signal();
            }
            let mut left = batch;
            loop {
                let mut channel = guest.channel(id);
                let rings = channel.rings().ok_or(CLOSED)?;
                rings.incoming.mask();
                let (count, signal) = receive(rings)?;
                left -= count;
                let sleep = left != 0 && !rings.incoming.unmask()?;
                if signal {
                    channel.signal();
                }
                if sleep {
                    guest.wait();
                }
                if left == 0 {
                    return Ok(());
                }
            }
        })
    }
}

const CLOSED: &str = "the channel has no rings";

/// Writes `count` requests. Returns whether the host must be signalled.
fn send(rings: &mut LoopbackRings, count: usize) -> Result<bool, Box<dyn Error>> {
    let mut batch = rings.outgoing.batch()?;
    for id in 0..count as u64 {
        batch.write(&OutPacket::request(id, &[&REQUEST]))?;
    }
    Ok(batch.commit())
}

/// Reads all replies in the ring, as a driver does. Returns their number, and whether the host must
/// be signalled because it waits for space.
fn receive(rings: &mut LoopbackRings) -> Result<(usize, bool), Box<dyn Error>> {
    let (mut batch, mut count) = (rings.incoming.batch()?, 0);
    while let Some(packet) = batch.next()? {
        let mut reply = [0; REQUEST.len()];
        packet.read_payload(&mut reply);
        black_box(&reply);
        count += 1;
    }
    Ok((count, batch.commit()))
}
