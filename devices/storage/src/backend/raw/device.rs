//! What a block device says of itself.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// BLKGETSIZE64: size in bytes, as u64.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
/// BLKPBSZGET: physical block size in bytes, as unsigned int.
const BLKPBSZGET: libc::Ioctl = 0x127B;

/// A block device's size and alignment.
pub(super) struct Device {
    pub(super) size: u64,
    pub(super) physical_block_size: u32,
}

/// Asks the block device `file`.
pub(super) fn inspect(file: &File) -> io::Result<Device> {
    let (mut size, mut physical_block_size) = (0_u64, 0_u32);
    // SAFETY: the descriptor is open while `file` lives; each request writes exactly the type it is given.
    let results = unsafe {
        [
            libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut size),
            libc::ioctl(file.as_raw_fd(), BLKPBSZGET, &raw mut physical_block_size),
        ]
    };
    if results.iter().any(|&result| result < 0) {
        return Err(io::Error::last_os_error());
    }
    let physical_block_size = physical_block_size.max(512).next_power_of_two();
    Ok(Device { size, physical_block_size })
}
