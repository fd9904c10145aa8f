//! One packet of arbitrary bytes, at any offset of a ring, read as GPA-direct and as transfer
//! pages, against a naive reading.

use std::cell::RefCell;

use vmbus_gpadl::GuestBuffer;
use vmbus_ring::{Incoming, Mode};

use crate::input::Input;
use crate::packet_model::{Frame, check_external};
use crate::page_list::{self, Memory};
use crate::twin::Twin;

/// Pages of the ring, the first one its control page: pairs of neighbours out of order, enough for
/// the longest list.
const PAGES: [u64; 20] = [1, 17, 18, 3, 4, 15, 16, 5, 6, 13, 14, 7, 8, 11, 12, 9, 10, 31, 32, 21];

struct Fixture {
    memory: Memory,
    twins: [Twin; 2],
    words: Vec<u64>,
    packet: Vec<u8>,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture {
        memory: Memory::new(),
        twins: [Twin::new(&PAGES[..19], Mode::Mirrored), Twin::new(&PAGES, Mode::Paged)],
        words: Vec::new(),
        packet: Vec::new(),
    });
}

/// Runs one input. Layout: flags, offset in the ring (u16), then the packet itself, or the parts
/// from which it is built; then parts of the buffer to check.
pub fn run(data: &[u8]) {
    FIXTURE.with_borrow_mut(|Fixture { memory, twins, words, packet }| {
        let mut input = Input::new(data);
        let flags = input.u8();
        let place = u32::from(input.u16()) * 8;
        if flags & 1 == 0 {
            build(flags, &mut input, words, packet);
        } else {
            let len = usize::from(input.u16());
            packet.clear();
            packet.extend_from_slice(input.bytes(len));
            packet.resize(packet.len().next_multiple_of(8).max(16), 0);
        }
        // The guest writes to the packet while the host reads it.
        let rewrite = (flags & 2 != 0).then(|| (usize::from(input.u16()), input.u64()));
        let rest = input.bytes(usize::MAX);
        for twin in twins {
            let most = twin.data_size() as usize - 16;
            let packet = &mut packet[..];
            let len = packet.len().min(most);
            check_packet(memory, twin, place, &mut packet[..len].to_vec(), rewrite, rest);
        }
    });
}

/// Builds a sound packet around the range list that the input makes.
fn build(flags: u8, input: &mut Input<'_>, words: &mut Vec<u64>, packet: &mut Vec<u8>) {
    let kind: u64 = if flags & 4 == 0 { 9 } else { 7 };
    let count = if flags & 8 == 0 { u32::from(input.u8()) } else { input.u32() };
    let reserved = input.u16();
    let payload = u64::from(input.u8() & 31);
    let making = usize::from(input.u16());
    page_list::words(&mut Input::new(input.bytes(making)), words);
    let header = 3 + words.len() as u64;
    packet.clear();
    packet.extend((kind | header << 16 | (header + payload) << 32 | 1 << 48).to_le_bytes());
    packet.extend(7_u64.to_le_bytes());
    packet.extend((u64::from(reserved) | u64::from(count) << 32).to_le_bytes());
    words.iter().for_each(|word| packet.extend(word.to_le_bytes()));
    packet.resize(packet.len() + payload as usize * 8, 0xAB);
}

fn check_packet(
    memory: &mut Memory,
    twin: &Twin,
    place: u32,
    packet: &mut [u8],
    rewrite: Option<(usize, u64)>,
    queries: &[u8],
) {
    let start = place % twin.data_size();
    let waiting = packet.len() as u32 + 8;
    twin.write(start, packet);
    twin.start(start, start + waiting);
    let mut incoming = Incoming::new(twin.map.clone()).expect("sound indices");
    let mut batch = incoming.batch().expect("sound indices");
    let next = batch.next();
    match (next, Frame::parse(packet, waiting)) {
        (Err(error), Err(expected)) => assert_eq!(error, expected),
        (Ok(Some(got)), Ok(frame)) => {
            frame.check(&got);
            if let Some((word, value)) = rewrite {
                let at = word % (packet.len() / 8) * 8;
                packet[at..at + 8].copy_from_slice(&value.to_le_bytes());
                twin.write((start + at as u32) % twin.data_size(), &value.to_le_bytes());
            }
            let mut buffer = GuestBuffer::new(memory.ram.clone());
            check_external(memory, &got, &frame, packet, &mut buffer, &mut Input::new(queries));
        }
        (got, expected) => panic!("{got:?} instead of {expected:?}"),
    }
}
