//! The format of a trace: a header and records, all little-endian.
//!
//! | header | bytes |
//! |---|---|
//! | `SVMTRACE` | 8 |
//! | version, 1 | 4 |
//! | 0 | 4 |
//! | time of the start, nanoseconds since 1970 | 8 |
//!
//! | record | bytes |
//! |---|---|
//! | bytes of the record, these included | 4 |
//! | kind: 1 message, 2 packet, 3 dropped records | 2 |
//! | flags: bit 0 to the guest, bit 1 completion requested | 2 |
//! | nanoseconds since the start | 8 |
//! | message: its bytes, header included | |
//! | packet: relid | 4 |
//! | ... subchannel | 2 |
//! | ... packet type, as in a ring | 2 |
//! | ... transaction id | 8 |
//! | ... bytes of the payload | 8 |
//! | ... first bytes of the payload | up to 64 |
//! | dropped records: their number since the last such record | 8 |
//!
//! A reader skips records of a kind that it does not know.

use vmbus_host::TracedPacket;
use vmbus_protocol::message::Direction;
use vmbus_ring::PacketKind;

pub(super) const MAGIC: [u8; 8] = *b"SVMTRACE";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_SIZE: usize = 24;
/// Bytes of a record before its content.
pub(super) const RECORD_HEADER: usize = 16;
/// Bytes of a packet's record before the payload.
pub(super) const PACKET_HEADER: usize = 24;
/// No record is longer. A message has at most 240 bytes.
pub(super) const MAX_RECORD: usize = 4096;

pub(super) const MESSAGE: u16 = 1;
pub(super) const PACKET: u16 = 2;
pub(super) const DROPPED: u16 = 3;

pub(super) const TO_GUEST: u16 = 1;
pub(super) const COMPLETION_REQUESTED: u16 = 2;

pub(super) fn header(start: u64) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4], &start.to_le_bytes()].concat()
}

pub(super) fn message(time: u64, direction: Direction, message: &[u8]) -> Vec<u8> {
    record(MESSAGE, flags(direction), time, &[message])
}

pub(super) fn packet(time: u64, packet: &TracedPacket<'_>) -> Vec<u8> {
    let requested = if packet.completion_requested { COMPLETION_REQUESTED } else { 0 };
    let kind: u16 = match packet.kind {
        PacketKind::InBand => 6,
        PacketKind::TransferPages => 7,
        PacketKind::GpaDirect => 9,
        PacketKind::Completion => 0xB,
    };
    let content: [&[u8]; 6] = [
        &packet.relid.to_le_bytes(),
        &packet.subchannel.to_le_bytes(),
        &kind.to_le_bytes(),
        &packet.transaction_id.to_le_bytes(),
        &(packet.payload_len as u64).to_le_bytes(),
        packet.payload,
    ];
    record(PACKET, flags(packet.direction) | requested, time, &content)
}

pub(super) fn dropped(time: u64, count: u64) -> Vec<u8> {
    record(DROPPED, 0, time, &[&count.to_le_bytes()])
}

fn flags(direction: Direction) -> u16 {
    match direction {
        Direction::ToGuest => TO_GUEST,
        Direction::ToHost => 0,
    }
}

fn record(kind: u16, flags: u16, time: u64, content: &[&[u8]]) -> Vec<u8> {
    let size = RECORD_HEADER + content.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(time.to_le_bytes());
    content.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}
