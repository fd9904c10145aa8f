//! READ CAPACITY(10) and (16) (spec storvsc section 6.2).

use super::Disk;

/// Appends 8 bytes: the last block address and the block size. An address of all ones says that the
/// last address needs more than 32 bits, and the guest then sends READ CAPACITY(16).
pub(super) fn read_capacity_10(disk: &Disk, out: &mut Vec<u8>) {
    let last = u32::try_from(disk.last_lba()).unwrap_or(u32::MAX);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&disk.block_size().bytes().to_be_bytes());
}

/// Appends 32 bytes: the last block address, the block size, no protection, the blocks of a
/// physical block, and thin provisioning.
pub(super) fn read_capacity_16(disk: &Disk, out: &mut Vec<u8>) {
    out.extend_from_slice(&disk.last_lba().to_be_bytes());
    out.extend_from_slice(&disk.block_size().bytes().to_be_bytes());
    out.push(0);
    out.push(disk.physical_exponent());
    // LBPME: the disk can unmap blocks. LBPRZ: unmapped blocks read as zero. The lowest aligned
    // block is 0.
    out.push(match disk.discard() {
        None => 0,
        Some(discard) => 0x80 | u8::from(discard.zeroes) << 6,
    });
    out.resize(32, 0);
}
