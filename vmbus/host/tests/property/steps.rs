//! Sequences of events from a seed. Each step is independent of the others, so that steps can be
//! removed.

use vmbus_protocol::limits::MAX_MESSAGE_SIZE;
use vmbus_protocol::message::{InitiateContact, MessageType};
use vmbus_protocol::{Guid, Version};

use crate::common::{LOW_PAGES, Range, VPS, post};

/// One event. Picks are taken modulo the number of choices.
#[derive(Clone, Debug)]
pub enum Step {
    Message {
        port: u32,
        bytes: Vec<u8>,
    },
    AnswerOpen {
        pick: u64,
        accept: bool,
    },
    AnswerClose {
        pick: u64,
    },
    Fault {
        pick: u64,
    },
    /// A device maps a GPADL of a channel.
    Map {
        relid: u32,
        id: u32,
    },
    DropView {
        pick: u64,
    },
    /// The bus handles this number of ended channels and released views.
    Deliver {
        events: u64,
    },
    Offer {
        number: u32,
    },
    Rescind {
        pick: u64,
    },
    Subchannels {
        pick: u64,
        total: u16,
    },
    Reset,
    /// All devices answer and close their channels: no answer may be due after that.
    LetGo,
    /// A well-behaved channel goes through its whole life.
    Probe,
}

/// A SplitMix64 random number generator.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn small(&mut self, bound: u32) -> u32 {
        self.below(u64::from(bound)) as u32
    }

    /// True once in `times`.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn word(&mut self) -> u32 {
        self.next() as u32
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

pub fn generate(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random(seed.wrapping_mul(0xA076_1D64_78BD_642F).wrapping_add(1));
    let mut all = Vec::with_capacity(steps);
    connect(&mut random, &mut all);
    while all.len() < steps {
        if random.once_in(250) {
            connect(&mut random, &mut all);
        } else {
            all.push(step(&mut random));
        }
    }
    all
}

/// Adds steps of a guest that connects again, after devices had time to close channels. Random
/// steps alone connect too rarely.
fn connect(random: &mut Random, all: &mut Vec<Step>) {
    if random.once_in(2) {
        all.push(Step::LetGo);
    }
    let version = if random.once_in(2) { Version::V5_3 } else { random.pick(&Version::ALL) };
    all.push(Step::Message { port: 4, bytes: post::contact(version.word(), random.small(VPS)) });
    for _ in 0..12 {
        all.push(Step::AnswerOpen { pick: 0, accept: true });
        all.push(Step::AnswerClose { pick: 0 });
        all.push(Step::DropView { pick: 0 });
        all.push(Step::Deliver { events: 2 });
    }
    all.push(Step::Message { port: 4, bytes: post::request_offers() });
}

fn step(random: &mut Random) -> Step {
    let pick = random.next();
    match random.below(1000) {
        0..640 => message_step(random),
        640..730 => Step::AnswerOpen { pick, accept: !random.once_in(6) },
        730..800 => Step::AnswerClose { pick },
        800..808 => Step::Fault { pick },
        808..840 => Step::Map { relid: relid(random), id: id(random) },
        840..885 => Step::DropView { pick },
        885..970 => Step::Deliver { events: 1 + random.below(4) },
        970..976 => Step::Offer { number: random.small(12) },
        976..980 => Step::Rescind { pick },
        980..988 => Step::Subchannels { pick, total: random.below(4) as u16 },
        988..989 => Step::Reset,
        _ => Step::Probe,
    }
}

fn relid(random: &mut Random) -> u32 {
    if random.once_in(40) {
        let any = random.word();
        return random.pick(&[0, 2047, 2048, u32::MAX, any]);
    }
    let bound = random.pick(&[5, 8, 8, 14]);
    2 + random.small(bound)
}

fn id(random: &mut Random) -> u32 {
    if random.once_in(200) { random.word() } else { 1 + random.small(5) }
}

fn vp(random: &mut Random) -> u32 {
    if random.once_in(10) { random.pick(&[VPS, u32::MAX, 1 << 31]) } else { random.small(VPS) }
}

fn message_step(random: &mut Random) -> Step {
    let port = if random.once_in(100) { random.small(8) } else { random.pick(&[1, 4]) };
    if random.once_in(60) {
        let len = random.below(MAX_MESSAGE_SIZE as u64 + 1);
        return Step::Message { port, bytes: (0..len).map(|_| random.next() as u8).collect() };
    }
    let mut bytes = message(random);
    if random.once_in(12) {
        mutate(random, &mut bytes);
    }
    Step::Message { port, bytes }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
        1 => bytes.resize(MAX_MESSAGE_SIZE, random.next() as u8),
        _ => {
            for _ in 0..=random.below(3) {
                let place = random.below(bytes.len() as u64) as usize;
                bytes[place] =
                    random.pick(&[0, 1, 2, 0x7F, 0x80, 0xFF, bytes[place].wrapping_add(1)]);
            }
        }
    }
}

fn message(random: &mut Random) -> Vec<u8> {
    let (relid, id) = (relid(random), id(random));
    match random.below(1000) {
        0..190 => {
            let first = random.below(64) * 8;
            post::gpadl(relid, id, &[Range::pages(first, 8)]).remove(0)
        }
        190..220 => {
            let ranges = ranges(random, 12);
            post::gpadl(relid, id, &ranges).remove(0)
        }
        220..290 => {
            let ranges = ranges(random, 50);
            post::gpadl(relid, id, &ranges).remove(0)
        }
        290..310 => {
            let words: Vec<u8> = (0..random.below(216)).map(|_| random.next() as u8).collect();
            post::header(relid, id, random.below(4) as u16, random.below(300) as u16, &words)
        }
        310..460 => {
            let words = 1 + random.below(28);
            let data: Vec<u8> = (0..words).flat_map(|_| page(random).to_le_bytes()).collect();
            post::body(id, &data)
        }
        460..600 => {
            let downstream = if random.once_in(10) { random.small(12) } else { 4 };
            post::open_with_id(relid, random.word(), id, downstream, vp(random))
        }
        600..710 => post::close(relid),
        710..860 => post::teardown(relid, id),
        860..890 => post::release(relid),
        890..950 => post::modify(relid, vp(random)),
        950..953 => contact(random),
        953..967 => post::request_offers(),
        967..968 => post::unload(),
        968..976 => post::open_reserved(relid, vp(random), random.small(18)),
        976..984 => post::close_reserved(relid, vp(random), random.small(18)),
        984..990 => post::tl_connect(Guid::default(), Guid::default()),
        _ => post::zeroes(random.pick(MessageType::ALL)),
    }
}

fn contact(random: &mut Random) -> Vec<u8> {
    let any = random.word();
    let word = if random.once_in(5) {
        random.pick(&[0, 0x0009_0009, 0x0005_0004, any])
    } else {
        random.pick(&Version::ALL).word()
    };
    let mut body = InitiateContact::new(word, vp(random));
    if random.once_in(6) {
        body.target_info = random.next().to_le_bytes();
    }
    if random.once_in(10) {
        body.monitor_page1 = (random.below(3) << 12).into();
        body.monitor_page2 = random.below(3).wrapping_mul(0x1000).into();
    }
    post::contact_with(&body)
}

fn page(random: &mut Random) -> u64 {
    let any = random.next();
    if random.once_in(100) {
        random.pick(&[LOW_PAGES, u64::MAX, any])
    } else {
        random.below(LOW_PAGES)
    }
}

/// One or two ranges of up to `most` pages each, some of them wrong.
fn ranges(random: &mut Random, most: u64) -> Vec<Range> {
    let mut range = || {
        let pages: Vec<u64> = (0..=random.below(most)).map(|_| page(random)).collect();
        let offset = if random.once_in(2) { 0 } else { random.small(0x1001) };
        let span = pages.len() as u32 * 4096;
        let count = if random.once_in(20) {
            random.word()
        } else {
            span - random.small(4096).max(offset).min(4095)
        };
        Range { count, offset, pages }
    };
    let first = range();
    if first.pages.len().is_multiple_of(3) { vec![first, range()] } else { vec![first] }
}
