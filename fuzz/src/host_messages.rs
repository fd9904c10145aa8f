//! A guest that posts any message at any moment, devices that answer at any time and in any way,
//! views that are dropped late, and resets: all against the host's sans-IO core. The model of the
//! host's own property test (`vmbus/host/tests/property`) checks every step.
//!
//! Among its rules are: no message is posted between UNLOAD_RESPONSE and the next contact; each
//! header is answered once; TORNDOWN is sent only when no view exists; a well-behaved channel works
//! at any time; and when all devices release their channels, no answer stays due and every quota is
//! free.

use vmbus_gpadl::GuestRam;
use vmbus_protocol::limits::MAX_MESSAGE_SIZE;
use vmbus_protocol::message::InitiateContact;
use vmbus_protocol::{Guid, Version};

use crate::common::{LOW_PAGES, Range, VPS, post, test_ram};
use crate::input::Input;
use crate::steps::Step;
use crate::world::World;

/// Most steps of one input.
const MAX_STEPS: usize = 400;

thread_local! {
    static RAM: GuestRam = test_ram();
}

/// Runs one input. Layout: steps until the end. Each is a byte for its kind, and its arguments.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    RAM.with(|ram| {
        let mut world = World::new(ram);
        for _ in 0..MAX_STEPS {
            if input.is_empty() {
                break;
            }
            world.step(&step(&mut input));
        }
        world.end();
    });
}

fn step(input: &mut Input<'_>) -> Step {
    let what = input.u8();
    let port = if what & 0x40 == 0 { 4 } else { 1 };
    let message = |bytes| Step::Message { port, bytes };
    match what & 0x3F {
        0 => {
            let (port, len) = (input.u8().into(), usize::from(input.u8()).min(MAX_MESSAGE_SIZE));
            Step::Message { port, bytes: input.bytes(len).to_vec() }
        }
        1 => message(contact(input)),
        2 => message(post::request_offers()),
        3 => message(post::unload()),
        4..=7 => message(gpadl_header(input, what & 3)),
        8 | 9 => {
            let (id, pages) = (input.u8().into(), input.u8());
            let data: Vec<u8> =
                (0..pages & 31).flat_map(|_| page(input.u16()).to_le_bytes()).collect();
            message(post::body(id, &data[..data.len().min(post::BODY_DATA)]))
        }
        10 | 11 => {
            let (relid, ring, downstream) = (relid(input), input.u8().into(), input.u8().into());
            let (vp, open_id) = (vp(input), input.u8().into());
            message(post::open_with_id(relid, open_id, ring, downstream, vp))
        }
        12 => message(post::close(relid(input))),
        13 | 14 => {
            let relid = relid(input);
            message(post::teardown(relid, input.u8().into()))
        }
        15 => message(post::release(relid(input))),
        16 => {
            let relid = relid(input);
            message(post::modify(relid, vp(input)))
        }
        17 => {
            let (relid, vp) = (relid(input), vp(input));
            message(post::open_reserved(relid, vp, input.u8().into()))
        }
        18 => {
            let (relid, vp) = (relid(input), vp(input));
            message(post::close_reserved(relid, vp, input.u8().into()))
        }
        19 => message(post::tl_connect(Guid::default(), Guid::default())),
        20..=23 => Step::AnswerOpen { pick: input.u8().into(), accept: what & 3 != 0 },
        24 | 25 => Step::AnswerClose { pick: input.u8().into() },
        26 => Step::Fault { pick: input.u8().into() },
        27 | 28 => {
            let relid = relid(input);
            Step::Map { relid, id: input.u8().into() }
        }
        29 | 30 => Step::DropView { pick: input.u8().into() },
        31..=33 => Step::Deliver { events: u64::from(input.u8() & 7) },
        34 => Step::Offer { number: u32::from(input.u8() & 15) },
        35 => Step::Rescind { pick: input.u8().into() },
        36 => Step::Subchannels { pick: input.u8().into(), total: input.u16() },
        37 => Step::Reset,
        38 => Step::Probe,
        39 => Step::LetGo,
        _ => message(malformed(input, what)),
    }
}

fn relid(input: &mut Input<'_>) -> u32 {
    match input.u8() {
        254 => 2048,
        255 => u32::MAX,
        relid => relid.into(),
    }
}

fn vp(input: &mut Input<'_>) -> u32 {
    match input.u8() {
        few @ 0..0xF0 => u32::from(few) % VPS,
        0xFF => u32::MAX,
        many => many.into(),
    }
}

fn page(bits: u16) -> u64 {
    match bits {
        0xFFFF => u64::MAX,
        0xFFFE => 1 << 20,
        0xFFFD => (1 << 20) + 16,
        bits if bits & 0x8000 == 0 => u64::from(bits) % LOW_PAGES,
        bits => bits.into(),
    }
}

fn contact(input: &mut Input<'_>) -> Vec<u8> {
    let version = input.u8();
    let word = match Version::ALL.get(usize::from(version & 15)) {
        Some(version) => version.word(),
        None => u32::from(version) << 16 | u32::from(version & 3),
    };
    let mut body = InitiateContact::new(word, vp(input));
    if version & 0x40 != 0 {
        body.target_info = input.u64().to_le_bytes();
    }
    if version & 0x80 != 0 {
        body.monitor_page1 = (u64::from(input.u8()) << 10).into();
        body.monitor_page2 = (u64::from(input.u8()) << 10).into();
    }
    post::contact_with(&body)
}

/// Builds the first message of a GPADL: a ring, whole pages, or arbitrary words with arbitrary
/// counts.
fn gpadl_header(input: &mut Input<'_>, how: u8) -> Vec<u8> {
    let (relid, id, first) = (relid(input), input.u8().into(), u64::from(input.u16()));
    match how {
        0 | 1 => post::gpadl(relid, id, &[Range::pages(first, 8)]).remove(0),
        2 => {
            let pages = usize::from(input.u16()) % 8190 + 1;
            post::gpadl(relid, id, &[Range::pages(first, pages)]).remove(0)
        }
        _ => {
            let (ranges, declared, words) = (input.u8().into(), input.u16(), input.u8() & 31);
            let mut data = Vec::new();
            for _ in 0..words {
                let word = match input.u8() {
                    0 => input.u64(),
                    1 => u64::from(input.u16()) | u64::from(input.u16()) << 32,
                    pages @ 2..64 => u64::from(pages) * 4096,
                    _ => page(input.u16()),
                };
                data.extend(word.to_le_bytes());
            }
            data.truncate(post::HEADER_DATA);
            post::header(relid, id, ranges, declared, &data)
        }
    }
}

/// Builds a message of any type and size, in which all other bytes are equal.
fn malformed(input: &mut Input<'_>, what: u8) -> Vec<u8> {
    let (len, fill) = (usize::from(input.u8()).min(MAX_MESSAGE_SIZE), input.u8());
    let mut bytes = vec![fill; len];
    let head = (u64::from(what & 0x3F) - 39).to_le_bytes();
    bytes.iter_mut().zip(head).for_each(|(byte, head)| *byte = head);
    bytes
}
