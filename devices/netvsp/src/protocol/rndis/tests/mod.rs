//! The RNDIS half of the conformance checklist (netvsc section 13).

mod receive;
mod transmit;

/// Returns the word at `offset`.
fn word_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// Replaces the word at `offset`.
fn put(bytes: &mut [u8], offset: usize, word: u32) {
    bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
}
