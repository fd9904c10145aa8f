//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng), written by hand: four kinds of blocks
//! are less code than the adapter to a crate, whose packet blocks own their bytes.
//!
//! All fields are little-endian.

use std::time::{SystemTime, UNIX_EPOCH};

/// The direction of a frame, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Received = 1,
    Sent = 2,
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

const LINKTYPE_ETHERNET: u32 = 1;

/// Options: of an interface, of a packet, of statistics.
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Bytes of a packet's block besides the frame and its padding.
pub(super) const PACKET_OVERHEAD: usize = 28 + 8 + 4 + 4;

/// Appends the start of a file with one Ethernet interface, whose times are in nanoseconds.
pub(super) fn start(out: &mut Vec<u8>, name: &str) {
    block(out, SECTION, |out| {
        words(out, &[0x1a2b_3c4d]);
        // Version 1.0, and a section of unknown length.
        out.extend([1, 0, 0, 0]);
        words(out, &[u32::MAX, u32::MAX]);
    });
    block(out, INTERFACE, |out| {
        // No limit of length.
        words(out, &[LINKTYPE_ETHERNET, 0]);
        option(out, IF_NAME, name.as_bytes());
        option(out, IF_TSRESOL, &[9]);
        words(out, &[0]);
    });
}

/// Appends one frame. `copy` appends its `length` bytes.
pub(super) fn packet(
    out: &mut Vec<u8>,
    direction: Direction,
    length: usize,
    copy: impl FnOnce(&mut Vec<u8>),
) {
    block(out, PACKET, |out| {
        let [high, low] = time();
        words(out, &[0, high, low, length as u32, length as u32]);
        let start = out.len();
        copy(out);
        debug_assert_eq!(out.len() - start, length, "the frame's bytes");
        pad(out);
        option(out, EPB_FLAGS, &(direction as u32).to_le_bytes());
        words(out, &[0]);
    });
}

/// Appends the totals at the end of a file.
pub(super) fn statistics(out: &mut Vec<u8>, received: u64, dropped: u64) {
    block(out, STATISTICS, |out| {
        let [high, low] = time();
        words(out, &[0, high, low]);
        option(out, ISB_IFRECV, &received.to_le_bytes());
        option(out, ISB_IFDROP, &dropped.to_le_bytes());
        words(out, &[0]);
    });
}

/// Appends a block, with its length before and after the content.
fn block(out: &mut Vec<u8>, kind: u32, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    words(out, &[kind, 0]);
    content(out);
    let length = (out.len() - start + 4) as u32;
    words(out, &[length]);
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Names are cut; no other value is as long.
    let value = &value[..value.len().min(255)];
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    pad(out);
}

/// Pads to whole words. All blocks have whole words, so the buffer does.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| out.extend(word.to_le_bytes()));
}

/// Returns the high and the low half of the nanoseconds since 1970.
fn time() -> [u32; 2] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = since.as_nanos() as u64;
    [(nanoseconds >> 32) as u32, nanoseconds as u32]
}
