//! New fixed VHDs.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use zerocopy::IntoBytes;

use super::footer::{Footer, SIZE};
use crate::guid::new_guid;

/// 2000-01-01 in seconds since 1970.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// Writes a fixed VHD of `size` bytes into the empty `file`. Its space is allocated immediately,
/// unless `sparse`.
pub(crate) fn make(file: &File, size: u64, sparse: bool) -> io::Result<()> {
    let length = size + SIZE as u64;
    let off =
        libc::off_t::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    if sparse {
        file.set_len(length)?;
    } else {
        // SAFETY: plain integers; the descriptor is open while `file` lives.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, off) } {
            0 => {}
            libc::EOPNOTSUPP | libc::EINVAL => file.set_len(length)?,
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(EPOCH);
    let timestamp = now.saturating_sub(EPOCH).as_secs() as u32;
    let footer = Footer::fixed(size, new_guid()?, timestamp);
    file.write_all_at(footer.as_bytes(), size)
}
