//! The configuration blob, walked as the firmware does.

use crate::cpu::bytes_at;

/// Of an image of 6 MiB.
const BLOB: u64 = 0x70_9000;
const MANDATORY: [u32; 7] = [0x01, 0x03, 0x04, 0x05, 0x12, 0x13, 0x14];

/// Returns the number of entries.
pub(crate) fn check() -> Result<u64, u32> {
    let word = |at: u64| {
        bytes_at(BLOB + at, 4).first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    if word(0) != 0 || word(4) != 16 {
        return Err(1);
    }
    let (count, total) = (word(8), u64::from(word(12)));
    let (mut at, mut entries, mut seen) = (0, 0, 0_u32);
    while at < total {
        let (kind, len) = (word(at), u64::from(word(at + 4)));
        if len <= 8 || len % 8 != 0 || at + len > total {
            return Err(2);
        }
        if let Some(bit) = MANDATORY.iter().position(|number| *number == kind) {
            seen |= 1 << bit;
        }
        entries += 1;
        at += len;
    }
    if entries != count {
        return Err(3);
    }
    if seen != 0x7F { Err(4) } else { Ok(entries.into()) }
}
