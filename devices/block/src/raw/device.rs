//! The properties of a block device.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Discard;

/// BLKGETSIZE64: size in bytes, as u64.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
/// BLKPBSZGET: physical block size in bytes, as unsigned int.
const BLKPBSZGET: libc::Ioctl = 0x127B;

/// A block device's size and alignment.
pub(super) struct Device {
    pub(super) size: u64,
    pub(super) physical_block_size: u32,
}

/// Queries the block device `file`.
pub(super) fn inspect(file: &File) -> io::Result<Device> {
    let (mut size, mut physical_block_size) = (0_u64, 0_u32);
    // SAFETY: the descriptor is open while `file` lives, and each request writes exactly the type
    // of its argument.
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

/// Returns whether the block device `file` can discard, and its granularity, from its queue in
/// sysfs. Discarded bytes may read as anything.
pub(super) fn discard(file: &File) -> Option<Discard> {
    let number = file.metadata().ok()?.rdev();
    let device = format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number));
    // A partition uses the queue of its disk.
    let limit = |name: &str| {
        let own = Path::new(&device).join("queue").join(name);
        let text = fs::read_to_string(own).or_else(|_| {
            let disk = Path::new(&device).canonicalize()?.join("../queue").join(name);
            fs::read_to_string(disk)
        });
        text.ok()?.trim().parse::<u64>().ok()
    };
    if limit("discard_max_bytes")? == 0 {
        return None;
    }
    let granularity =
        limit("discard_granularity").unwrap_or(0).clamp(512, 1 << 30).next_power_of_two();
    Some(Discard { granularity: granularity as u32, zeroes: false })
}
