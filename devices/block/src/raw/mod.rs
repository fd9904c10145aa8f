//! Raw images: a file or a block device with the disk's bytes.
//!
//! | module | knowledge |
//! |---|---|
//! | `image` | the open file, facts about its storage, and a call on it |
//! | `task` | a request as a series of system calls; it makes none itself |
//! | `call` | one system call |
//! | `entry`, `fixed` | one system call as an entry of a ring; guest memory registered with rings |
//! | `uring`, `threads` | queues that execute calls, besides the `ImmediateQueue` of the crate |

mod bounce;
mod call;
mod device;
mod direct;
mod entry;
mod error;
mod fixed;
mod image;
mod limits;
mod lock;
mod options;
mod task;
#[cfg(test)]
mod tests;
mod threads;
#[cfg(any(test, feature = "conformance"))]
mod trace;
mod uring;
mod vectored;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

pub use error::OpenError;
pub use fixed::{FixedError, FixedMemory};
pub use lock::{LockedFile, try_lock, unlock};
pub use options::{CacheMode, IoMode, RawOptions};

use super::{Backend, Discard, Extent, Geometry, IoError, Queue};
use crate::BlockSize;
use crate::immediate::ImmediateQueue;
use direct::Direct;
use image::Image;
use task::Task;
use threads::{SharedPool, ThreadedQueue};
use uring::UringQueue;

/// The block size of most storage under image files; the guest's physical block size.
const FILE_PHYSICAL_BLOCK: u32 = 4096;

/// An open raw image, locked against a second user.
#[derive(Debug)]
pub struct RawFile {
    image: Arc<Image>,
    pool: Arc<SharedPool>,
    physical_block_size: u32,
    discard: Option<Discard>,
    identity: PathBuf,
    /// The I/O path in use; never `Auto`.
    io: IoMode,
    /// Whether io=uring was given.
    forced: bool,
}

#[cfg(any(test, feature = "conformance"))]
impl RawFile {
    /// Opens a file as if it were a block device. Its discards wait at `gate` and then succeed
    /// without a change. Tests use it to check that other requests continue during a slow discard.
    ///
    /// # Errors
    /// As [`RawFile::open_with`].
    ///
    /// # Panics
    /// Never, because no other reference to an image exists directly after it was opened.
    pub fn open_as_slow_device(
        path: &Path,
        options: &RawOptions,
        gate: &Arc<crate::conformance::Gate>,
    ) -> Result<Self, OpenError> {
        let mut raw = Self::open_with(path, options)?;
        let image = Arc::get_mut(&mut raw.image).expect("just opened");
        image.is_device = true;
        image.discard_gate = Some(Arc::clone(gate));
        Ok(raw)
    }
}

impl RawFile {
    /// Opens and locks the image at `path`: exclusively, or shared with other readers when
    /// `read_only`.
    ///
    /// # Errors
    /// [`OpenError`]: the problem of the image, and the remedy.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        Self::open_with(path, &RawOptions { read_only, ..RawOptions::default() })
    }

    /// Opens and locks the image at `path` with `options`.
    ///
    /// # Errors
    /// [`OpenError`]: the problem of the image or the options, and the remedy.
    pub fn open_with(path: &Path, options: &RawOptions) -> Result<Self, OpenError> {
        Self::from_locked(&LockedFile::open(path, options.read_only)?, options)
    }

    /// Opens a raw image in a file that is already open and locked, even if its path now names
    /// another file. A file that was opened for reading only cannot be written, for any `options`.
    ///
    /// # Errors
    /// [`OpenError`]: the problem of the image or the options, and the remedy.
    pub fn from_locked(locked: &LockedFile, options: &RawOptions) -> Result<Self, OpenError> {
        Self::sized(locked, options, check_size)
    }

    /// Opens a file in which a format stores a disk, like [`Self::from_locked`]. The file may have
    /// any length: bytes behind its last whole sector are not part of the backend until it grows.
    ///
    /// # Errors
    /// [`OpenError`]: the problem of the file or the options, and the remedy.
    pub fn container(locked: &LockedFile, options: &RawOptions) -> Result<Self, OpenError> {
        Self::sized(locked, options, |path, size| check_size(path, size / 512 * 512))
    }

    fn sized(
        locked: &LockedFile,
        options: &RawOptions,
        check_size: impl FnOnce(&Path, u64) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        let (path, file, metadata) = (locked.path(), locked.lock(), locked.metadata());
        let read_only = options.read_only || locked.is_read_only();
        let inspect = |source: io::Error| OpenError::Inspect { path: path.to_owned(), source };
        let kind = metadata.file_type();
        let (capacity, physical_block_size) = if kind.is_file() {
            (metadata.len(), FILE_PHYSICAL_BLOCK)
        } else {
            let device = device::inspect(file).map_err(inspect)?;
            (device.size, device.physical_block_size)
        };
        check_size(path, capacity)?;
        let discard = match kind.is_file() {
            _ if read_only => None,
            // The probe is behind the last byte.
            true if call::knows_punching(locked.file(), capacity) => {
                let granularity = metadata.blksize().clamp(512, 1 << 20).next_power_of_two() as u32;
                Some(Discard { granularity, zeroes: true })
            }
            true => None,
            false => device::discard(file),
        };
        let direct = match options.cache {
            CacheMode::Writeback => None,
            CacheMode::None => {
                let no_direct = |source| OpenError::NoDirect { path: path.to_owned(), source };
                Some(Direct::open(file, read_only).map_err(no_direct)?)
            }
        };
        let sectors = capacity / 512 * 512;
        let mut image = Image::new(Arc::clone(file), direct, sectors, read_only, !kind.is_file());
        let io = choose(path, options.io, &mut image)?;
        Ok(Self {
            image: Arc::new(image),
            pool: Arc::default(),
            physical_block_size,
            discard,
            identity: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
            io,
            forced: options.io == IoMode::Uring,
        })
    }

    /// Records all later changes of the file. See [`crate::conformance::powerloss`].
    ///
    /// # Errors
    /// The file cannot be read.
    ///
    /// # Panics
    /// The image has queues already.
    #[cfg(any(test, feature = "conformance"))]
    pub fn record(&mut self, recorder: &super::conformance::powerloss::Recorder) -> io::Result<()> {
        let image = Arc::get_mut(&mut self.image).expect("no queue has been made");
        let source = super::conformance::powerloss::Source::Data;
        image.trace = Some(recorder.attach(&self.identity, &image.file, source)?);
        Ok(())
    }

    /// Returns the I/O path in use, which [`IoMode::Auto`] has chosen.
    pub fn io_mode(&self) -> IoMode {
        self.io
    }
}

/// The descriptor of the locked file, for formats that store structures beside the disk's bytes.
impl AsFd for RawFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.image.file.as_fd()
    }
}

impl Backend for RawFile {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.image.capacity(),
            block_size: BlockSize::B512,
            physical_block_size: self.physical_block_size,
            read_only: self.image.read_only,
            write_cache: true,
            rotational: false,
            discard: self.discard,
        }
    }

    fn identity(&self) -> &[u8] {
        self.identity.as_os_str().as_bytes()
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        match self.io {
            IoMode::Sync => {
                let image = Arc::clone(&self.image);
                let run = move |request| Task::new(request).run(&image);
                return Ok(Box::new(ImmediateQueue::new(run)));
            }
            IoMode::Threads => {}
            IoMode::Auto | IoMode::Uring => match UringQueue::new(&self.image, &self.pool) {
                Ok(queue) => return Ok(Box::new(queue)),
                Err(error) if self.forced => return Err(error),
                Err(error) => self.image.log.log(|left_out| {
                    info!(%error, left_out, "io_uring is not available: a disk's queue uses \
                        threads");
                }),
            },
        }
        Ok(Box::new(ThreadedQueue::new(self.pool.get(&self.image))?))
    }

    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        self.image.extent(offset)
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.image.resize(capacity)
    }

    fn use_fixed(&self, memory: &Arc<FixedMemory>) -> Result<(), IoError> {
        match self.io {
            // The first memory stays, because queues may use it.
            IoMode::Auto | IoMode::Uring => self.image.fixed.set(Arc::clone(memory)).or(Ok(())),
            IoMode::Threads | IoMode::Sync => Err(IoError::Unsupported),
        }
    }

    fn fixed_calls(&self) -> Option<u64> {
        self.image.fixed_calls()
    }
}

/// Resolves [`IoMode::Auto`], and opens the files that a ring needs while files can be opened.
fn choose(path: &Path, io: IoMode, image: &mut Image) -> Result<IoMode, OpenError> {
    if matches!(io, IoMode::Threads | IoMode::Sync) {
        return Ok(io);
    }
    match uring::probe().and_then(|()| direct::reopen(&image.file, image.read_only, 0)) {
        Ok(file) => {
            image.unlocked = Some(file);
            Ok(IoMode::Uring)
        }
        Err(source) if io == IoMode::Uring => {
            Err(OpenError::NoUring { path: path.to_owned(), source })
        }
        Err(_) => Ok(IoMode::Threads),
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
