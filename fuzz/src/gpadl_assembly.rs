//! Page lists of any content, split between messages in any way, against a naive reading of the
//! same words.

use std::cell::RefCell;
use std::sync::Arc;

use vmbus_gpadl::{Gpadl, GpadlKey, GuestBuffer, RangeAssembler, RangeError, ReleaseSink};

use crate::input::Input;
use crate::page_list::{self, Memory, Parsed, check, parse};

/// Bytes that an unfinished list may cost beyond the bytes received (docs/limits.md).
const BYTES_BEYOND: usize = 3072;

/// Bytes that the host may keep for each word of a complete list. A range takes 16 and its page 8,
/// and they arrive in two words.
const BYTES_PER_WORD: usize = 24;
/// Bytes that the host may keep for each page of a complete list.
const BYTES_PER_PAGE: usize = 24;

/// A sink that ignores the end of views, which this target does not test.
struct Nobody;

impl ReleaseSink for Nobody {
    fn gpadl_released(&self, _: GpadlKey) {}
}

struct Fixture {
    memory: Memory,
    words: Vec<u64>,
    bytes: Vec<u8>,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> =
        RefCell::new(Fixture { memory: Memory::new(), words: Vec::new(), bytes: Vec::new() });
}

/// Runs one input. Layout: flags, ranges (u16), bytes from which the words are made (u16 and that
/// many), cuts (u8 and that many), then parts to check.
pub fn run(data: &[u8]) {
    FIXTURE.with_borrow_mut(|fixture| {
        let mut input = Input::new(data);
        let flags = input.u8();
        let ranges = u32::from(input.u16());
        let making = usize::from(input.u16());
        page_list::words(&mut Input::new(input.bytes(making)), &mut fixture.words);
        let words = fixture.words.len();
        let declared = match flags & 3 {
            0 | 1 => words * 8,
            2 => usize::from(input.u16()),
            _ => input.u32() as usize,
        };
        let cuts = usize::from(input.u8());
        let cuts = input.bytes(cuts);
        let Fixture { memory, words, bytes } = fixture;
        bytes.clear();
        bytes.resize(words.len() * 8, 0);
        bytes
            .chunks_exact_mut(8)
            .zip(&*words)
            .for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        let expected = parse(memory, ranges, declared, words, None);

        let mut buffer = GuestBuffer::new(memory.ram.clone());
        let mut outcome = assemble(&mut buffer, ranges, declared, bytes, cuts);
        if flags & 4 != 0 {
            // A device uses the same buffer again for each packet, after any result of the list
            // before.
            buffer.clear();
            let again = assemble(&mut buffer, ranges, declared, bytes, cuts);
            assert_eq!(again, outcome, "the same list, assembled again");
            outcome = again;
        }
        match (outcome, expected) {
            (Ok(true), Parsed::Complete(list)) => {
                check(memory, &buffer, &list, &mut input);
                let gpadl =
                    Gpadl::new(GpadlKey { relid: 1, id: 1, serial: 1 }, buffer, Arc::new(Nobody));
                let kept = gpadl.buffer().heap_bytes();
                // A buffer that was filled before keeps the memory of its longest list.
                let most = BYTES_PER_PAGE * gpadl.buffer().pages();
                assert!(kept <= most || flags & 4 != 0, "{kept} bytes kept, {most} allowed");
            }
            (Ok(false), Parsed::Incomplete) => {}
            (Err(error), Parsed::Refused(expected)) => assert_eq!(error, expected),
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
    });
}

/// Pushes the words in pieces with the lengths in `cuts`, and the rest as one piece. Some pieces
/// end in an incomplete word.
fn assemble(
    buffer: &mut GuestBuffer,
    ranges: u32,
    declared: usize,
    bytes: &[u8],
    cuts: &[u8],
) -> Result<bool, RangeError> {
    let kept = buffer.heap_bytes();
    let mut assembler = RangeAssembler::begin(&mut *buffer, ranges, declared)?;
    let (mut rest, mut complete, mut received) = (bytes, false, 0);
    let cuts = cuts.iter().map(|cut| (usize::from(cut & 0x3F), usize::from(cut >> 6)));
    let mut ragged = Vec::new();
    for (words, tail) in cuts.chain([(bytes.len() / 8, 0)]) {
        let (mut now, later) = rest.split_at((words * 8).min(rest.len()));
        rest = later;
        received += now.len() / 8;
        if tail != 0 {
            ragged.clear();
            ragged.extend_from_slice(now);
            ragged.extend_from_slice(&[0xFF; 7][..tail * 2]);
            now = &ragged;
        }
        let was_complete = complete;
        complete = assembler.push(now)?;
        assert!(complete || !was_complete, "a complete list stays complete");
        let held = assembler.buffer().heap_bytes();
        assert!(
            held <= kept + BYTES_BEYOND + 8 * received,
            "{held} bytes kept for {received} words"
        );
    }
    assert_eq!(assembler.finish().is_some(), complete);
    let held = buffer.heap_bytes();
    let most = kept + BYTES_BEYOND + BYTES_PER_WORD * received;
    assert!(held <= most, "{held} bytes kept for {received} words");
    Ok(complete)
}
