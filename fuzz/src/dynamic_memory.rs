//! Dynamic memory: a guest whose packets are of any bytes, or answers that are nearly right, over
//! memory that records what the host takes. No page may be taken that the guest did not give, and
//! none may be given back that it did not give.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use synthvm_dynamic_memory::{Bounds, Engine, HostMemory, PageRange};

use crate::input::Input;

const MAX_STEPS: usize = 64;
/// Pages of RAM, in two regions, and of the window for added memory.
const REGIONS: [PageRange; 3] =
    [PageRange::new(0, 2048), PageRange::new(8192, 4096), PageRange::new(1 << 20, 65_536)];
const RAM: u64 = 2048 + 4096;
/// Pages that a GPADL has.
const SHARED: Range<u64> = 1000..1100;

#[derive(Default)]
struct Host {
    unit: u64,
    plugged: Mutex<u64>,
    discarded: Mutex<Vec<PageRange>>,
}

impl HostMemory for Host {
    fn regions(&self) -> Vec<PageRange> {
        REGIONS.to_vec()
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn discard(&self, range: PageRange) -> io::Result<()> {
        self.discarded.lock().unwrap().push(range);
        Ok(())
    }

    fn reserve(&self, _range: PageRange) -> io::Result<()> {
        Ok(())
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn window(&self) -> PageRange {
        let plugged = *self.plugged.lock().unwrap();
        PageRange::new(REGIONS[2].first + plugged, REGIONS[2].pages - plugged)
    }

    fn plug(&self, pages: u64) -> io::Result<PageRange> {
        let window = self.window();
        assert!(pages > 0 && pages <= window.pages);
        *self.plugged.lock().unwrap() += pages;
        Ok(PageRange::new(window.first, pages))
    }
}

/// The device, and the pages that the guest may have given.
struct World {
    engine: Engine,
    host: Arc<Host>,
    now: Duration,
    /// Pages that the guest named in any balloon response since it opened the channel.
    named: Vec<PageRange>,
}

/// Layout: a byte whose lowest bit chooses hugepages, then steps. Each is an operation and what it
/// needs: a packet of any bytes, a message of the guest, a user's size, or time.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let unit = if input.u8() & 1 == 0 { 1 } else { 512 };
    let host = Arc::new(Host { unit, ..Host::default() });
    let bounds = Bounds {
        min: 512,
        start: RAM,
        max: RAM + REGIONS[2].pages,
        buffer_percent: 20,
        start_delay: Duration::from_secs(2),
    };
    let engine = Engine::new(bounds, Arc::clone(&host) as _);
    let mut world = World { engine, host, now: Duration::ZERO, named: Vec::new() };
    world.packet(&message(1, &[&0x2_0000_u32.to_le_bytes()[..], &[0; 4]].concat()));
    world.packet(&message(3, &[0b1_1111_u64, 0, u64::MAX].map(u64::to_le_bytes).concat()));
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let size = 8 + body.len() as u16;
    [&kind.to_le_bytes()[..], &size.to_le_bytes(), &[0; 4], body].concat()
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => {
                let length = usize::from(input.u16());
                let bytes = input.bytes(length).to_vec();
                self.packet(&bytes);
            }
            1 => {
                let (available, committed) = (u64::from(input.u16()), u64::from(input.u16()));
                let longs = [available, committed, 0, 0, 0].map(u64::to_le_bytes).concat();
                self.packet(&message(5, &longs));
            }
            2 | 3 => self.give(input),
            4 => self.packet(&message(9, &[])),
            5 => {
                let words = [u32::from(input.u16()) * 16, u32::from(input.u8() & 1)];
                self.packet(&message(11, &words.map(u32::to_le_bytes).concat()));
            }
            6 => {
                let size = u64::from(input.u16()) * 4096 * 2;
                let wanted = (size > 0).then_some(size);
                if let Ok(messages) = self.engine.set_size(wanted, self.now) {
                    self.check(&messages);
                }
            }
            _ => {
                self.now += Duration::from_secs(u64::from(input.u8()));
                if input.u8() == 0 {
                    self.engine.reopen();
                    self.named.clear();
                }
            }
        }
        let status = self.engine.status(self.now);
        assert!(status.sizes.returned <= status.sizes.ballooned);
        let named: u64 = self.named.iter().map(|one| one.pages).sum();
        assert!(status.sizes.ballooned <= named * 4096);
        assert!(status.sizes.target.is_none_or(|target| target <= status.bounds.max * 4096));
    }

    /// Sends a balloon response.
    fn give(&mut self, input: &mut Input<'_>) {
        let (more, count) = (u32::from(input.u8() & 1), u32::from(input.u8() % 5));
        let mut body = [0, more | count << 1].map(u32::to_le_bytes).concat();
        for _ in 0..count {
            let first = u64::from(input.u16()) | u64::from(input.u8() & 0x11) << 16;
            body.extend(PageRange::new(first, u64::from(input.u16() % 2048)).word().to_le_bytes());
        }
        self.packet(&message(7, &body));
    }

    fn packet(&mut self, packet: &[u8]) {
        let before = self.engine.status(self.now).counters;
        // Whatever a packet of this type names, the guest may have given.
        if packet.first() == Some(&7) && packet.len() >= 16 {
            for word in packet[16..].chunks_exact(8) {
                self.named.push(PageRange::from_word(u64::from_le_bytes(word.try_into().unwrap())));
            }
            self.named.sort_by_key(|range| range.first);
        }
        let messages = self.engine.packet(packet, self.now, &[SHARED]);
        self.check(&messages);
        let after = self.engine.status(self.now).counters;
        assert!(after.messages_refused - before.messages_refused <= 2);
    }

    /// Checks what the host took, and what it sends.
    fn check(&mut self, messages: &[Vec<u8>]) {
        for range in std::mem::take(&mut *self.host.discarded.lock().unwrap()) {
            assert!(range.first.is_multiple_of(self.host.unit));
            assert!(range.pages.is_multiple_of(self.host.unit) && range.pages > 0);
            assert!(self.is_named(range), "{range} were not given");
            let is_shared = range.first < SHARED.end && SHARED.start < range.end();
            assert!(!is_shared, "{range}: some are shared");
        }
        assert!(messages.len() <= 6);
        for message in messages {
            assert!(message.len() <= 4096 && message.len().is_multiple_of(8));
            assert_eq!(usize::from(u16::from_le_bytes([message[2], message[3]])), message.len());
            if message[0] == 8 {
                for word in message[16..].chunks_exact(8) {
                    let range = PageRange::from_word(u64::from_le_bytes(word.try_into().unwrap()));
                    assert!(self.is_named(range), "{range} were not in the balloon");
                }
            }
        }
    }

    /// Returns whether the guest has named all pages of `range`.
    fn is_named(&self, range: PageRange) -> bool {
        let reach = self.named.iter().fold(range.first, |reach, one| {
            if one.first <= reach { reach.max(one.end()) } else { reach }
        });
        reach >= range.end()
    }
}
