//! Channels with threads of their own: wake-ups, none too few and none in vain, and delayed
//! interrupts.

mod guest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, yield_now};
use std::time::{Duration, Instant};

use guest::queues::flow;
use guest::*;
use synthvm_net::{
    Attachment, Backend, Frame as NetFrame, LinkState, Loop, NullNet, Pieces, Queue, UnixLink,
};
use synthvm_netvsp::NetworkCard;
use vm_memory::VolatileSlice;
use vmbus_loopback::bare::{BareChannel, HostPacket};

const FILTER: u32 = 0x0001_010E;

/// A guest on one end of a cable, and the queue at its other end.
struct Cable {
    guest: NetGuest,
    card: NetworkCard,
    near: Arc<Attachment>,
    far: Box<dyn Queue>,
    /// Keeps the far end.
    _peer: UnixLink,
}

impl Cable {
    fn new(channels: u16) -> Self {
        let (near, peer) = UnixLink::pair().unwrap();
        let near = Arc::new(Attachment::new(Arc::new(near), LinkState::Up).unwrap());
        let card = threaded_card(near.clone(), channels);
        let guest = NetGuest::start_with_threads(card.clone(), channels);
        let far = peer.queue(0).unwrap();
        Self { guest, card, near, far, _peer: peer }
    }

    /// How often the backend was full.
    fn full(&self) -> u64 {
        self.near.queue_reports()[0].counters.full
    }

    /// How often the workers have slept.
    fn sleeps(&self) -> u64 {
        let channels = self.guest.guest.bus.inspect().channels;
        channels.iter().filter_map(|one| one.worker).map(|one| one.sleeps).sum()
    }
}

/// Sends a frame. Returns false if the queue is full.
fn send(queue: &mut dyn Queue, mut bytes: Vec<u8>) -> bool {
    let mut pieces = Pieces::new();
    pieces.push(VolatileSlice::from(&mut bytes[..])).unwrap();
    queue.send(&NetFrame::new(&pieces)).is_ok()
}

/// A sender that waited for space was woken by each frame that the guest could not receive, over
/// and over.
#[test]
fn test_sender_that_waits_sleeps_while_frames_wait_for_the_guest() {
    let mut cable = Cable::new(1);
    cable.guest.set(FILTER, &0_u32.to_le_bytes());
    assert!(send(&mut *cable.far, frame(1, 60)));
    let message = packet(&frame(2, 1500), &[]);
    cable.guest.channel.poke(SEND, 0, &message);
    let nvsp = full(&words(&[107, 0, 0, message.len() as u32]));
    while cable.full() == 0 {
        cable.guest.channel.try_send(1, &nvsp, &[]);
        cable.guest.take(0);
    }
    let before = cable.sleeps();
    (0..1000).for_each(|_| yield_now());
    // At most once for each message that was sent while the worker went to sleep.
    let sleeps = cable.sleeps() - before;
    assert!(sleeps < 10, "{sleeps} wake-ups");
}

/// A guest's completions were behind the message that waited, so its buffer stayed full, and the
/// far end, which took no frame before its own was taken, waited too.
#[test]
fn test_ends_of_a_cable_that_are_full_both_ways_go_on() {
    for (channels, sender) in [(1, 0), (2, 0), (2, 1)] {
        let mut cable = Cable::new(channels);
        // The guest completes nothing: its buffer fills up, then the far end does.
        let (mut held, mut port) = (vec![Vec::new(); channels.into()], 0);
        loop {
            let is_full = !send(&mut *cable.far, flow(port));
            port += u16::from(!is_full);
            (0..).zip(&mut held).for_each(|(index, held)| held.extend(cable.guest.take(index)));
            let counters = cable.card.channel_counters()[0];
            if is_full && counters.in_use == counters.sub_allocations {
                break;
            }
        }
        let message = packet(&frame(2, 1500), &[]);
        cable.guest.channel.poke(SEND, 0, &message);
        let nvsp = full(&words(&[107, 0, 0, message.len() as u32]));
        while cable.full() == 0 {
            cable.guest.channel(sender).try_send(1, &nvsp, &[]);
            cable.guest.take(sender);
        }
        // More messages, and behind them the completions.
        (0..3).for_each(|_| _ = cable.guest.channel(sender).try_send(1, &nvsp, &[]));
        for packet in held.iter().flatten().filter(|packet| packet.transfer.is_some()) {
            complete_on(cable.guest.channel(sender), packet);
        }
        let end = Instant::now() + Duration::from_secs(60);
        while !send(&mut *cable.far, flow(0)) {
            assert!(Instant::now() < end, "{channels} channels, {sender} sends: a deadlock");
            yield_now();
        }
    }
}

/// Frames go through the inboxes of channels that sleep and wake at any time, while the table
/// changes and completions come on any channel. Each frame arrives, or is counted as dropped.
#[test]
fn test_frames_of_one_queue_reach_the_threads_of_all_channels() {
    const FRAMES: u64 = 20_000;
    const CHANNELS: usize = 4;
    let mut cable = Cable::new(CHANNELS as u16);
    let (mut sent, mut received, mut tables) = (0, 0, 0);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        // Bursts with pauses, so that workers sleep in between.
        for _ in 0..1 + sent % 37 {
            sent += u64::from(sent < FRAMES && send(&mut *cable.far, flow(sent as u16)));
        }
        if received / 500 > tables {
            tables += 1;
            let first = tables as u32;
            cable.guest.spread(&[0, 1, 2, 3].map(|entry| (entry + first) % CHANNELS as u32));
        }
        for channel in 0..CHANNELS {
            let mut packets = cable.guest.take(channel);
            if channel == 0 {
                packets.extend(cable.guest.take_early());
            }
            for packet in packets {
                received += cable.guest.frames(&packet).len() as u64;
                complete_on(cable.guest.channel((channel + tables as usize) % CHANNELS), &packet);
            }
        }
        let dropped = cable.card.channel_counters()[0].starved;
        if sent == FRAMES && received + dropped == sent {
            break;
        }
        assert!(Instant::now() < end, "{sent} sent, {received} received, {dropped} dropped");
    }
    assert!(tables >= 10, "{received} frames arrived");
}

/// Each channel has a queue and a thread of its own, and sleeps after each frame.
#[test]
fn test_frames_of_own_queues_come_back_on_their_channels() {
    const CHANNELS: usize = 4;
    let card = threaded_card(Arc::new(Loop::new(CHANNELS)), CHANNELS as u16);
    let mut guest = NetGuest::start_with_threads(card, CHANNELS as u16);
    let end = Instant::now() + Duration::from_secs(60);
    for number in 0..2000_u16 {
        for channel in 0..CHANNELS {
            assert_eq!(guest.send_on(channel, &packet(&flow(number), &[])), 1);
        }
        for channel in 0..CHANNELS {
            let packets = loop {
                let packets = guest.take(channel);
                if !packets.is_empty() {
                    break packets;
                }
                assert!(Instant::now() < end, "frame {number} of channel {channel} is lost");
                yield_now();
            };
            assert_eq!(packets.len(), 1);
            assert_eq!(guest.frames(&packets[0])[0].bytes, flow(number));
            complete_on(guest.channel(channel), &packets[0]);
        }
    }
}

/// Returns the number of interrupts that the workers have delayed.
fn moderated(guest: &NetGuest) -> u64 {
    let channels = guest.guest.bus.inspect().channels;
    channels.iter().filter_map(|one| one.worker).map(|one| one.moderated).sum()
}

/// A guest that sends without waiting for answers, as a stream of datagrams does.
#[test]
fn test_interrupts_for_frames_sent_in_a_row_are_delayed_and_all_complete() {
    let card = threaded_card(Arc::new(NullNet::new(1)), 1);
    let mut guest = NetGuest::start_with_threads(card, 1);
    let message = packet(&frame(2, 1448), &[]);
    guest.channel.poke(SEND, 0, &message);
    let nvsp = full(&words(&[107, 0, 0, message.len() as u32]));
    let (mut sent, mut completed) = (0_u64, 0);
    let end = Instant::now() + Duration::from_secs(60);
    while moderated(&guest) == 0 || completed < sent {
        // No more new ones once the first delay is seen.
        if moderated(&guest) == 0 && guest.channel.try_send(sent, &nvsp, &[]) {
            sent += 1;
        }
        completed += guest.take(0).len() as u64;
        assert!(Instant::now() < end, "{completed} of {sent} completed");
    }
}

/// A guest that sends a frame for each answer would wait for nothing but the delay.
#[test]
fn test_interrupts_for_frames_that_wait_for_an_answer_are_not_delayed() {
    let card = threaded_card(Arc::new(Loop::new(1)), 1);
    let mut guest = NetGuest::start_with_threads(card, 1);
    for number in 0..3000 {
        let bytes = frame(number as u8, 60);
        assert_eq!(guest.send_in_section(&packet(&bytes, &[])), 1);
        assert_eq!(guest.receive(), [Frame { bytes, info: vec![] }]);
    }
    assert_eq!(moderated(&guest), 0);
}

/// A thread that sends frames to the card until this is dropped.
struct Flood {
    is_wanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(far: Box<dyn Queue>) -> Self {
        Self::of(far, |_| frame(1, 1500))
    }

    /// `frame`: returns each frame, by its number.
    fn of(mut far: Box<dyn Queue>, frame: fn(u16) -> Vec<u8>) -> Self {
        let is_wanted = Arc::new(AtomicBool::new(true));
        let wanted = Arc::clone(&is_wanted);
        let work = move || {
            let mut number = 0_u16;
            while wanted.load(Ordering::Relaxed) {
                // Bursts of all lengths, so that packets have from one frame to many.
                let is_burst_over = number % 61 < number % 7;
                if !send(&mut *far, frame(number)) || is_burst_over {
                    yield_now();
                }
                number = number.wrapping_add(1);
            }
        };
        Self { is_wanted, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Takes frames until one has come, and completes them. Returns their number.
fn receive_some(guest: &mut NetGuest) -> usize {
    let end = Instant::now() + Duration::from_secs(60);
    let mut count = 0;
    while count == 0 {
        let mut packets = guest.take_early();
        packets.extend(guest.take(0));
        for packet in packets.iter().filter(|packet| packet.transfer.is_some()) {
            count += guest.frames(packet).len();
            guest.complete(packet);
        }
        assert!(Instant::now() < end, "no frame came");
        yield_now();
    }
    count
}

#[test]
fn test_interface_up_and_down_1000_times_under_traffic_gets_frames_while_it_is_up() {
    let Cable { mut guest, card, near: _near, far, _peer } = Cable::new(1);
    let _flood = Flood::start(far);
    for round in 0..1000 {
        guest.set(FILTER, &0x20_u32.to_le_bytes());
        assert_eq!(guest.send_on(0, &packet(&frame(2, 1500), &[])), 1);
        receive_some(&mut guest);
        guest.set(FILTER, &0_u32.to_le_bytes());
        // Those from before the answer. None comes after it.
        let mut packets = guest.take_early();
        packets.extend(guest.take(0));
        packets.iter().for_each(|packet| guest.complete(packet));
        assert_eq!(guest.query(0x0001_010E), (0, vec![0; 4]));
        assert!(guest.take_early().is_empty(), "round {round}: a frame after the filter");
    }
    while card.channel_counters()[0].in_use != 0 {
        guest.query(FILTER);
    }
}

#[test]
fn test_channel_opened_and_closed_200_times_under_traffic_gets_frames_each_time() {
    let Cable { mut guest, near: _near, far, _peer, .. } = Cable::new(1);
    let _flood = Flood::start(far);
    for _ in 0..200 {
        let message = packet(&frame(2, 1500), &[]);
        assert_eq!(guest.send_in_section(&message), 1);
        receive_some(&mut guest);
        // More frames arrive, which the guest never completes.
        guest = guest.reopen(512);
        // Not a number of the rings', which have a new one each time.
        guest.buffers.first_gpadl = 10_000;
        guest.initialise();
        guest.set(FILTER, &0x20_u32.to_le_bytes());
    }
    receive_some(&mut guest);
}

/// A guest's driver for one channel that sleeps until the host's interrupt and masks interrupts
/// while it reads, as Linux does.
struct SleepingDriver {
    channel: BareChannel,
    interrupts: u64,
    /// Packets that are not completed.
    held: Vec<HostPacket>,
}

impl SleepingDriver {
    fn new(channel: BareChannel) -> Self {
        Self { channel, interrupts: 0, held: Vec::new() }
    }

    /// Receives until all drivers together have received `wanted` frames. Half of the time it
    /// completes packets at the end of a poll, else only when nothing comes any more: then the
    /// buffer may be used up.
    fn run(mut self, received: &AtomicU64, wanted: u64) {
        let mut is_late = false;
        while received.load(Ordering::Relaxed) < wanted {
            self.channel.incoming.mask();
            let before = self.held.len();
            self.held.extend(std::iter::from_fn(|| self.channel.try_receive()).take(64));
            let ranges = |packet: &HostPacket| packet.transfer.as_ref().map_or(0, |(_, r)| r.len());
            let frames: usize = self.held[before..].iter().map(ranges).sum();
            let total = received.fetch_add(frames as u64, Ordering::Relaxed);
            is_late = (total / 1000).is_multiple_of(2) != is_late;
            if !is_late {
                self.complete();
            }
            if self.channel.incoming.unmask().unwrap() {
                continue;
            }
            if self.held.is_empty() {
                let relid = self.channel.relid as u16;
                self.interrupts = self.channel.synic.wait_event(relid, self.interrupts);
            }
            self.complete();
        }
        self.complete();
    }

    fn complete(&mut self) {
        let frames = |packet: &HostPacket| packet.transfer.is_some();
        for packet in self.held.drain(..).filter(frames) {
            complete_on(&mut self.channel, &packet);
        }
    }
}

/// No wake-up is lost on the way of received frames, in any state of the buffer, the rings, the
/// backend and the inboxes: each wait of the driver ends by an interrupt. Four streams of datagrams
/// to a guest stalled once.
#[test]
fn test_sleeping_driver_is_woken_for_each_frame_of_a_flood() {
    const FRAMES: u64 = 30_000;
    for channels in [1, 2, 4] {
        let (near, peer) = UnixLink::pair().unwrap();
        let card = threaded_card(Arc::new(near), channels);
        let mut guest = NetGuest::open_with_threads(card);
        guest.buffers.receive_pages = 150;
        guest.start_channels(channels);
        let flood = Flood::of(peer.queue(0).unwrap(), flow);
        let NetGuest { guest: _guest, channel, subchannels, .. } = guest;
        let received = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for channel in [channel].into_iter().chain(subchannels) {
                let driver = SleepingDriver::new(channel);
                scope.spawn(|| driver.run(&received, FRAMES));
            }
        });
        drop(flood);
        assert!(received.load(Ordering::Relaxed) >= FRAMES);
    }
}
