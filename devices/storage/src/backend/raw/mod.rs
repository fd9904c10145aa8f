//! Raw images: a file or a block device whose bytes are the disk's.

mod device;
mod error;
mod lock;
mod queue;
#[cfg(test)]
mod tests;
mod vectored;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::OpenError;

use super::{Backend, Geometry, Queue};
use crate::scsi::BlockSize;
use queue::{RawQueue, Shared};

/// What most storage under an image file works in; told to the guest as the physical block size.
const FILE_PHYSICAL_BLOCK: u32 = 4096;

/// An open raw image, locked against a second user.
#[derive(Debug)]
pub struct RawFile {
    shared: Arc<Shared>,
    geometry: Geometry,
    identity: PathBuf,
}

impl RawFile {
    /// Opens and locks the image at `path`: for itself alone, or together with other readers when `read_only`.
    ///
    /// # Errors
    /// [`OpenError`]: what is wrong with the image, and what to do.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            // Else opening a FIFO would wait for its other end.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| OpenError::from_open(path, read_only, error))?;
        let inspect = |source: io::Error| OpenError::Inspect { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(inspect)?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::not_a_disk(path, kind));
        }
        // Before the size is looked at: whoever holds the image may be changing it.
        if !lock::try_lock(&file, read_only).map_err(inspect)? {
            return Err(OpenError::Locked { path: path.to_owned() });
        }
        let (capacity, physical_block_size) = if kind.is_file() {
            (file.metadata().map_err(inspect)?.len(), FILE_PHYSICAL_BLOCK)
        } else {
            let device = device::inspect(&file).map_err(inspect)?;
            (device.size, device.physical_block_size)
        };
        check_size(path, capacity)?;
        clear_nonblock(&file).map_err(inspect)?;
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let geometry = Geometry {
            capacity,
            block_size: BlockSize::B512,
            physical_block_size,
            read_only,
            write_cache: true,
            rotational: false,
            discard: None,
        };
        Ok(Self { shared: Arc::new(Shared::new(file, capacity, read_only)), geometry, identity })
    }
}

/// The locked file, for formats that keep more in it than the disk's bytes.
impl AsFd for RawFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.file().as_fd()
    }
}

impl Backend for RawFile {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn identity(&self) -> &[u8] {
        self.identity.as_os_str().as_bytes()
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(RawQueue::new(Arc::clone(&self.shared))))
    }
}

fn check_size(path: &Path, size: u64) -> Result<(), OpenError> {
    let path = path.to_owned();
    match size {
        0 => Err(OpenError::Empty { path }),
        _ if !size.is_multiple_of(512) => Err(OpenError::NotWholeSectors { path, size }),
        _ => Ok(()),
    }
}

fn clear_nonblock(file: &File) -> io::Result<()> {
    // SAFETY: plain fcntl calls on a descriptor that `file` keeps open.
    unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        if flags < 0 || libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
