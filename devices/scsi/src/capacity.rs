//! READ CAPACITY(10) and (16) (spec storvsc section 6.2).

use super::Disk;

/// 8 bytes: last block address (all ones when it needs more than 32 bits: ask (16)), block size.
pub(super) fn read_capacity_10(disk: &Disk, out: &mut Vec<u8>) {
    let last = u32::try_from(disk.last_lba()).unwrap_or(u32::MAX);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&disk.block_size().bytes().to_be_bytes());
}

/// 32 bytes: last block address, block size, no protection, blocks per physical block, thin
/// provisioning.
pub(super) fn read_capacity_16(disk: &Disk, out: &mut Vec<u8>) {
    out.extend_from_slice(&disk.last_lba().to_be_bytes());
    out.extend_from_slice(&disk.block_size().bytes().to_be_bytes());
    out.push(0);
    out.push(disk.physical_exponent());
    // LBPME: blocks may be given up. LBPRZ: then they read as zero. The lowest aligned block is 0.
    out.push(match disk.discard() {
        None => 0,
        Some(discard) => 0x80 | u8::from(discard.zeroes) << 6,
    });
    out.resize(32, 0);
}
