//! The RNDIS half of the conformance checklist (netvsc section 13).

mod control;
mod offload;
mod receive;
mod transmit;

use super::{TransmitCursor, TransmitError, TransmitFrame};

const MAX_FRAME: u32 = 1514;

/// Returns the word at `offset`.
fn word_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// Replaces the word at `offset`.
fn put(bytes: &mut [u8], offset: usize, word: u32) {
    bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
}

fn item(kind: u32, word: u32) -> Vec<u8> {
    [16, kind, 12, word].iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// An RNDIS packet with per-packet information and a frame of `length` bytes.
fn packet(info: &[u8], length: u32) -> Vec<u8> {
    let data_offset = 44 + info.len();
    let mut bytes = vec![0; 44];
    let total = data_offset as u32 + length;
    for (at, word) in [(0, 1), (4, total), (8, data_offset as u32 - 8), (12, length)] {
        put(&mut bytes, at, word);
    }
    if !info.is_empty() {
        put(&mut bytes, 28, 36);
        put(&mut bytes, 32, info.len() as u32);
    }
    bytes.extend_from_slice(info);
    bytes.resize(total as usize, 0xAA);
    bytes
}

/// Parses all packets of a message.
fn parse_all(message: &[u8]) -> Result<Vec<TransmitFrame>, TransmitError> {
    let mut cursor = TransmitCursor::new(message.len() as u32, MAX_FRAME);
    let mut frames = Vec::new();
    while let Some(header) = cursor.next_header() {
        assert!(header.end - header.start <= 256);
        frames.push(cursor.parse_next(&message[header.start as usize..header.end as usize])?);
    }
    Ok(frames)
}

fn parse(message: &[u8]) -> Result<TransmitFrame, TransmitError> {
    parse_all(message).map(|frames| {
        assert_eq!(frames.len(), 1);
        frames[0]
    })
}
