//! The device on a real bus, with a guest that writes its rings itself, over memory in a file.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use synthvm_dynamic_memory::{
    Bounds, DynamicMemory, DynamicMemoryOptions, FileMemory, HostMemory, PageRange, Status,
};
use vmbus_device::{InlineWorkers, WorkerOptions};
use vmbus_host::SavedBus;
use vmbus_loopback::bare::{BareChannel, BareGuest, Serve};
use vmbus_ring::PacketKind;

/// Pages of a MiB.
const MIB: u64 = 256;
/// Pages of the guest.
const RAM: u64 = 16 * MIB;
/// The window for added memory of [`Fake`].
const WINDOW: PageRange = PageRange::new(1 << 20, 4 * 32_768);

/// Memory of the guest in its file, and a window that no guest sees.
struct Fake {
    memory: FileMemory,
    unit: u64,
    /// Pages of the window that are plugged.
    plugged: Mutex<u64>,
    /// The host has no hugepages left.
    is_short: Mutex<bool>,
    discarded: Mutex<Vec<PageRange>>,
}

impl HostMemory for Fake {
    fn regions(&self) -> Vec<PageRange> {
        [self.memory.regions(), vec![WINDOW]].concat()
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn discard(&self, range: PageRange) -> io::Result<()> {
        self.discarded.lock().unwrap().push(range);
        self.memory.discard(range)
    }

    fn reserve(&self, _range: PageRange) -> io::Result<()> {
        if *self.is_short.lock().unwrap() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn resident_bytes(&self) -> u64 {
        self.memory.resident_bytes()
    }

    fn window(&self) -> PageRange {
        let plugged = *self.plugged.lock().unwrap();
        PageRange::new(WINDOW.first + plugged, WINDOW.pages - plugged)
    }

    fn plug(&self, pages: u64) -> io::Result<PageRange> {
        let window = self.window();
        *self.plugged.lock().unwrap() += pages;
        Ok(PageRange::new(window.first, pages))
    }
}

/// A guest with dynamic memory.
struct Rig {
    guest: BareGuest,
    channel: BareChannel,
    device: DynamicMemory,
    host: Arc<Fake>,
    now: Arc<AtomicU64>,
}

/// Returns a device for the memory of `guest`, with its host and its clock in seconds.
fn offer(guest: &mut BareGuest, unit: u64) -> (DynamicMemory, Arc<Fake>, Arc<AtomicU64>, Serve) {
    let memory = FileMemory::new(guest.memory.ram().clone(), None).unwrap();
    let host = Arc::new(Fake {
        memory,
        unit,
        plugged: Mutex::default(),
        is_short: Mutex::default(),
        discarded: Mutex::default(),
    });
    let inline = InlineWorkers::default();
    let now = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&now);
    let (min, max, start_delay) = (2 * MIB, RAM + WINDOW.pages, Duration::from_secs(50));
    let bounds = Bounds { min, start: RAM, max, buffer_percent: 20, start_delay };
    let options = DynamicMemoryOptions {
        bounds,
        workers: WorkerOptions::default().inline(inline.clone()),
        clock: Box::new(move || Duration::from_secs(clock.load(Ordering::Relaxed))),
    };
    let device = DynamicMemory::new(options, Arc::clone(&host) as _).unwrap();
    (device, host, now, Arc::new(move || inline.serve()))
}

impl Rig {
    fn with_unit(unit: u64) -> Self {
        let (mut guest, _) = BareGuest::new(Vec::new());
        let (device, host, now, serve) = offer(&mut guest, unit);
        guest.bus.offer(Box::new(device.clone())).unwrap();
        guest.await_offers(1);
        guest.serve = Some(serve);
        let channel = guest.open(guest.offers[0], 4);
        let mut rig = Self { guest, channel, device, host, now };
        rig.handshake();
        rig
    }

    /// Returns a guest whose driver is ready.
    fn new() -> Self {
        Self::with_unit(1)
    }

    fn handshake(&mut self) {
        self.send(&message(1, &words(&[0x2_0000, 0])));
        assert_eq!(self.receive(), message(2, &1_u64.to_le_bytes()));
        self.send(&message(3, &[0b1_1111_u64, 0, u64::MAX].map(u64::to_le_bytes).concat()));
        assert_eq!(self.receive(), message(4, &1_u64.to_le_bytes()));
        assert_eq!(self.receive()[0], 12);
    }

    fn send(&mut self, message: &[u8]) {
        self.channel.send(1, message, &[]);
        self.channel.serve.as_ref().unwrap()();
    }

    fn receive(&mut self) -> Vec<u8> {
        let packet = self.channel.receive();
        assert_eq!(packet.kind, PacketKind::InBand);
        packet.payload
    }

    /// Reports pages that are available and promised, a second later.
    fn report(&mut self, available: u64, committed: u64) {
        self.now.fetch_add(1, Ordering::Relaxed);
        let longs = [available, committed, 0, 0, 0].map(u64::to_le_bytes).concat();
        self.send(&message(5, &longs));
    }

    /// Expects a request for pages. Returns their number.
    fn asked(&mut self) -> u64 {
        let request = self.receive();
        assert_eq!(request[0], 6, "{request:?}");
        u32::from_le_bytes(request[8..12].try_into().unwrap()).into()
    }

    fn give(&mut self, more: bool, ranges: &[(u64, u64)]) {
        let count = u32::try_from(ranges.len()).unwrap();
        let mut body = words(&[0, u32::from(more) | count << 1]);
        for (first, pages) in ranges {
            body.extend(PageRange::new(*first, *pages).word().to_le_bytes());
        }
        self.send(&message(7, &body));
    }

    /// Expects pages that the guest gets back.
    fn given_back(&mut self) -> Vec<PageRange> {
        let request = self.receive();
        assert_eq!((request[0], request[8]), (8, 0), "{request:?}");
        request[16..].chunks(8).map(|word| PageRange::from_word(long(word))).collect()
    }

    fn set(&mut self, pages: Option<u64>) {
        self.device.set_size(pages.map(|pages| pages * 4096)).unwrap();
        self.channel.serve.as_ref().unwrap()();
    }

    /// Expects that the host requests nothing.
    fn expect_silence(&mut self) {
        self.channel.serve.as_ref().unwrap()();
        assert!(self.channel.try_receive().is_none());
    }

    fn status(&self) -> Status {
        self.device.status()
    }

    /// Returns the pages in the balloon, and those of them that the host has back.
    fn balloon(&self) -> (u64, u64) {
        let status = self.status();
        (status.sizes.ballooned / 4096, status.sizes.returned / 4096)
    }

    /// Writes to each page of a range.
    fn fill(&self, first: u64, pages: u64) {
        (first..first + pages).for_each(|page| self.channel.poke(page, 8, b"guest"));
    }

    fn has(&self, page: u64) -> Vec<u8> {
        self.channel.peek(page, 8, 5)
    }
}

fn long(word: &[u8]) -> u64 {
    u64::from_le_bytes(word.try_into().unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let size = 8 + u16::try_from(body.len()).unwrap();
    [&kind.to_le_bytes()[..], &size.to_le_bytes(), &[0; 4], body].concat()
}

#[test]
fn test_offer_is_no_pipe() {
    let rig = Rig::new();
    let offer = rig.guest.offers[0];
    assert_eq!(offer.class.to_string(), "525074dc-8985-46e2-8057-a307dc18a502");
    assert_eq!((offer.flags & 0x10, offer.user_defined), (0, [0; 12]));
}

#[test]
fn test_balloon_returns_memory_that_reads_zero_and_works_when_it_is_taken_back() {
    let mut rig = Rig::new();
    rig.fill(2048, 1024);
    let before = rig.status().sizes.resident;
    rig.set(Some(RAM - 1024));
    rig.expect_silence();
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    rig.give(true, &[(2048, 512)]);
    assert_eq!(rig.has(2048), [0; 5]);
    assert_eq!(rig.has(2560), b"guest", "not given yet");
    rig.give(false, &[(2560, 511), (3071, 1)]);
    assert_eq!(rig.balloon(), (1024, 1024));
    let status = rig.status();
    assert!(status.sizes.resident <= before - 1023 * 4096, "{before} {status:?}");
    assert_eq!(status.sizes.assigned, (RAM - 1024) * 4096);
    assert_eq!(rig.has(3071), [0; 5]);

    rig.set(Some(RAM));
    assert_eq!(rig.given_back(), [PageRange::new(2048, 1024)]);
    assert_eq!(rig.balloon(), (0, 0));
    rig.set(Some(RAM - 1024));
    rig.expect_silence();
    rig.send(&message(9, &[]));
    assert_eq!(rig.asked(), 1024, "the next request follows the answer");
    rig.fill(2048, 1024);
    assert_eq!(rig.has(2600), b"guest");
}

#[test]
fn test_pages_of_a_gpadl_stay_allocated_and_are_counted() {
    let mut rig = Rig::new();
    let relid = rig.channel.relid;
    rig.guest.create_gpadl(relid, 77, 3000, 10);
    rig.fill(2048, 1024);
    rig.set(Some(RAM - 1024));
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    rig.give(false, &[(2048, 1024)]);
    let shared: Vec<u64> = (2048..3072).filter(|page| rig.has(*page) == b"guest").collect();
    assert_eq!(shared, (3000..3010).collect::<Vec<_>>());
    assert_eq!((rig.balloon(), rig.status().counters.pages_shared), ((1024, 1014), 10));
    // So do pages of rings, which the guest reports to be free.
    let ring = rig.channel.first_page as u64;
    let free = [PageRange::new(ring, 8), PageRange::new(1500, 5)];
    rig.fill(1500, 5);
    rig.device.discard_free_pages(&free, &rig.guest.bus.shared_pages());
    assert_eq!(rig.has(1502), [0; 5]);
    assert_eq!(rig.status().counters.pages_shared, 18);
    rig.guest.teardown(relid, 77);
    rig.device.discard_free_pages(&[PageRange::new(3000, 10)], &rig.guest.bus.shared_pages());
    assert_eq!(rig.has(3000), [0; 5], "no GPADL has them any more");
}

#[test]
fn test_guest_that_gives_wrong_pages_loses_nothing_else() {
    let mut rig = Rig::new();
    rig.fill(1024, 3072);
    rig.give(false, &[(1024, 8)]);
    rig.set(Some(RAM - 1024));
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    // Beyond RAM, over its end, in the window, twice, and none at all.
    rig.give(true, &[(RAM, 1), (RAM - 1, 2), (WINDOW.first, 1), (1 << 39, 8), (5, 0)]);
    rig.give(true, &[(2000, 10), (2005, 2), (2000, 10), (1999, 12)]);
    rig.send(&message(7, &words(&[0, 9 << 1])));
    rig.send(&message(9, &[]));
    rig.send(&message(11, &words(&[5, 1])));
    assert_eq!(rig.balloon(), (10, 10));
    let gone: Vec<u64> = (1024..RAM).filter(|page| rig.has(*page) != b"guest").collect();
    assert_eq!(gone, (2000..2010).collect::<Vec<_>>());
    let counters = rig.status().counters;
    assert_eq!((counters.ranges_refused, counters.messages_refused), (8, 4));
    let missing = 1024 - 1 - 2 - 1 - 8 - 10 - 2 - 10 - 12;
    rig.give(false, &[(2100, missing)]);
    rig.give(false, &[(3000, 1)]);
    assert_eq!(rig.balloon().0, 10 + missing);
}

#[test]
fn test_guest_that_floods_reports_gets_no_answers() {
    let mut rig = Rig::new();
    for number in 0..2000 {
        rig.report(u64::MAX - number, 0);
    }
    rig.expect_silence();
    let status = rig.status();
    assert_eq!(status.counters.reports, 2000);
    assert_eq!(status.sizes.available, Some(RAM * 4096));
}

#[test]
fn test_request_without_an_answer_is_given_up_after_a_minute() {
    let mut rig = Rig::new();
    rig.set(Some(RAM - 1024));
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    assert_eq!(rig.status().request, Some("balloon"));
    for _ in 0..60 {
        rig.report(3 * 1024, 100);
    }
    rig.expect_silence();
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    assert_eq!(rig.status().counters.timeouts, 1);
    rig.give(false, &[(2048, 1024)]);
    assert_eq!(rig.balloon(), (1024, 1024));
}

#[test]
fn test_hugepages_go_back_as_a_whole_and_stay_with_a_host_that_has_none_left() {
    let mut rig = Rig::with_unit(512);
    rig.set(Some(RAM - 1024));
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    rig.give(true, &[(2048, 511)]);
    assert_eq!(rig.balloon(), (511, 0));
    rig.give(false, &[(2559, 513)]);
    assert_eq!(rig.balloon(), (1024, 1024));
    assert_eq!(*rig.host.discarded.lock().unwrap(), [PageRange::new(2048, 1024)]);
    *rig.host.is_short.lock().unwrap() = true;
    rig.set(Some(RAM));
    rig.expect_silence();
    assert_eq!((rig.balloon(), rig.status().counters.host_errors), ((1024, 1024), 1));
    *rig.host.is_short.lock().unwrap() = false;
    rig.report(3 * 1024, 1124);
    assert_eq!(rig.given_back(), [PageRange::new(2048, 1024)]);
}

#[test]
fn test_hot_add_follows_the_balloon_and_the_answer_decides_how_it_goes_on() {
    let mut rig = Rig::new();
    let chunk = 32_768;
    rig.report(0, RAM);
    let request = rig.receive();
    assert_eq!(
        (request[0], PageRange::from_word(long(&request[8..]))),
        (10, PageRange::new(WINDOW.first, chunk))
    );
    rig.report(0, RAM);
    rig.expect_silence();
    rig.send(&message(11, &words(&[0, 0])));
    for _ in 0..29 {
        rig.report(0, RAM);
    }
    rig.expect_silence();
    rig.now.fetch_add(5, Ordering::Relaxed);
    rig.report(0, RAM);
    let same = PageRange::new(WINDOW.first, chunk);
    assert_eq!(PageRange::from_word(long(&rig.receive()[8..])), same);
    rig.send(&message(11, &words(&[32_768, 1])));
    assert_eq!(rig.status().sizes.added, chunk * 4096);
    assert_eq!(rig.status().sizes.assigned, (RAM + chunk) * 4096);
    // The guest can give added pages.
    rig.set(Some(RAM));
    rig.report(chunk, 100);
    assert!(rig.asked() >= 16);
    rig.give(false, &[(same.first, 16)]);
    assert_eq!(rig.balloon().0, 16);
    rig.set(None);
    rig.report(0, 3 * chunk);
    assert_eq!(rig.given_back(), [PageRange::new(same.first, 16)]);
    rig.send(&message(9, &[]));
    assert_eq!(rig.receive()[0], 10);
    rig.send(&message(11, &words(&[0, 1])));
    rig.now.fetch_add(1000, Ordering::Relaxed);
    rig.report(0, 3 * chunk);
    rig.expect_silence();
}

#[test]
fn test_size_out_of_bounds_is_refused() {
    let rig = Rig::new();
    for pages in [0, 2 * MIB - 1, RAM + WINDOW.pages + 1, u64::MAX / 4096] {
        let error = rig.device.set_size(Some(pages * 4096)).unwrap_err();
        assert_eq!((error.min, error.max), (2 * MIB * 4096, (RAM + WINDOW.pages) * 4096));
    }
    assert_eq!(rig.status().sizes.wanted, None);
}

#[test]
fn test_driver_that_is_loaded_again_finds_an_empty_balloon() {
    let mut rig = Rig::new();
    rig.set(Some(RAM - 1024));
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    rig.give(false, &[(2048, 1024)]);
    let Rig { mut guest, channel, device, host, now } = rig;
    let serve = channel.serve.clone();
    guest.post_close(channel.relid);
    serve.as_ref().unwrap()();
    guest.teardown(channel.relid, channel.gpadl);
    let status = device.status();
    assert_eq!((status.sizes.ballooned, status.version, status.sizes.demand), (0, None, None));
    let channel = guest.open(guest.offers[0], 4);
    let mut rig = Rig { guest, channel, device, host, now };
    rig.handshake();
    rig.expect_silence();
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024, "the user's wish stays");
}

#[test]
fn test_balloon_survives_save_and_restore_in_another_process_and_its_pages_stay_out() {
    let mut rig = Rig::new();
    rig.set(Some(RAM - 1024));
    rig.report(3 * 1024, 100);
    assert_eq!(rig.asked(), 1024);
    rig.give(false, &[(2048, 500), (2600, 524)]);
    rig.set(Some(RAM - 2048));
    assert_eq!(rig.asked(), 1024);
    let Rig { mut guest, channel, .. } = rig;
    guest.bus.pause();
    let saved = serde_json::to_vec(&guest.bus.save().unwrap()).unwrap();
    let (device, host, now, serve) = offer(&mut guest, 1);
    guest.replace_bus(vec![Box::new(device.clone())]);
    // The file from which memory was restored had something there.
    (2048..2058).for_each(|page| channel.poke(page, 8, b"stale"));
    let saved: SavedBus = serde_json::from_slice(&saved).unwrap();
    guest.bus.restore(&saved).unwrap();
    guest.bus.resume();
    guest.serve = Some(Arc::clone(&serve));
    let mut channel = channel;
    channel.serve = Some(serve);
    channel.doorbell = guest.doorbell(guest.offers[0]);
    let mut rig = Rig { guest, channel, device, host, now };
    assert_eq!((rig.balloon(), rig.has(2050)), ((1024, 1024), vec![0; 5]));
    assert_eq!(rig.status().sizes.wanted, Some((RAM - 2048) * 4096));
    // The request that was in flight is answered.
    rig.give(false, &[(3200, 800)]);
    assert_eq!(rig.balloon().0, 1824);
    rig.set(Some(RAM));
    let back: u64 = rig.given_back().iter().map(|range| range.pages).sum();
    assert_eq!(back, 1824);
}
