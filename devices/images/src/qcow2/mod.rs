//! qcow2, by way of the imago library: read and written, with backing files; compressed clusters are read.
//!
//! imago's calls wait, so a few threads make them. Bytes move straight between guest memory and the file; only compressed clusters pass
//! through a buffer. Metadata is cached and written back in an order that keeps the image sound; what was not flushed before a crash may be
//! lost, and clusters may be left over that only `qemu-img check -r leaks` gives back.

mod gate;
mod header;
mod pool;
mod queue;
mod work;

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use imago::file::File as Storage;
use imago::format::PreallocateMode;
use imago::{FormatAccess, FormatCreateBuilder, FormatDriverBuilder, Mapping, StorageOpenOptions};
use synthvm_storage::backend::{Backend, Discard, Extent, Geometry, IoError, Queue, raw};
use synthvm_storage::scsi::BlockSize;

use crate::OpenOptions;
use crate::error::{Flaw, OpenError};
use gate::Gate;
use pool::Pool;

/// An open qcow2 image.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    image: Arc<Image>,
    pool: Pool,
    identity: PathBuf,
}

/// What its threads share.
#[derive(Debug)]
struct Image {
    /// Written by those who take mappings away: discards and changes of the size.
    access: RwLock<FormatAccess<Storage>>,
    capacity: AtomicU64,
    read_only: bool,
    /// See [`IoError::FlushLost`].
    flush_lost: AtomicBool,
    /// Locked while they are open.
    _locks: Locks,
}

/// Files that are locked. In [`Image`] behind what is written back when it is dropped.
#[derive(Debug)]
struct Locks(Vec<File>);

impl Drop for Locks {
    fn drop(&mut self) {
        self.0.iter().for_each(raw::unlock);
    }
}

impl Qcow2 {
    /// Opens the image at `path`.
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let read_only = options.read_only;
        let gate = Gate::new(options.parents);
        // Before anything is read.
        gate.lock(path, read_only).map_err(|error| error.of(path, read_only))?;
        header::check(path, read_only).map_err(|flaw| flaw.of(path))?;
        let files = gate.files();
        let builder = imago::qcow2::Qcow2::<Storage>::builder_path(path).write(!read_only);
        // The library takes offence at some broken images.
        let image = catch_unwind(AssertUnwindSafe(|| builder.open(gate)));
        let image = image.map_err(|_| Flaw::damaged("its structures make no sense").of(path))?;
        let access = FormatAccess::new(image.map_err(|error| flaw(&error).of(path))?);
        let capacity = access.size();
        if capacity == 0 || !capacity.is_multiple_of(512) {
            let reason = format!("its disk has {capacity} bytes, which are not whole sectors");
            return Err(Flaw::unsupported(reason, "give it a size with: qemu-img resize").of(path));
        }
        let image = Arc::new(Image {
            access: RwLock::new(access),
            capacity: AtomicU64::new(capacity),
            read_only,
            flush_lost: AtomicBool::new(false),
            _locks: Locks(std::mem::take(&mut *files.lock().unwrap_or_else(PoisonError::into_inner))),
        });
        let pool = Pool::start().map_err(|source| OpenError::Read { path: path.to_owned(), source })?;
        Ok(Self { image, pool, identity: path.canonicalize().unwrap_or_else(|_| path.to_owned()) })
    }
}

fn flaw(error: &io::Error) -> Flaw {
    let text = error.to_string();
    if text.contains("incompatible feature") {
        return Flaw::unsupported(
            text,
            "if it says dirty or corrupt, repair it with: qemu-img check -r all; else convert it with: qemu-img convert",
        );
    }
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Flaw::Damaged(text),
        io::ErrorKind::Unsupported => Flaw::unsupported(text, "convert it with: qemu-img convert"),
        _ => Flaw::Parent(text),
    }
}

impl Backend for Qcow2 {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.image.capacity.load(Ordering::Acquire),
            block_size: BlockSize::B512,
            physical_block_size: 4096,
            read_only: self.image.read_only,
            write_cache: true,
            rotational: false,
            discard: Some(Discard { granularity: 64 << 10, zeroes: true }),
        }
    }

    fn identity(&self) -> &[u8] {
        self.identity.as_os_str().as_bytes()
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(queue::PoolQueue::new(Arc::clone(&self.image), self.pool.sender())?))
    }

    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        let left = self.image.capacity.load(Ordering::Acquire).saturating_sub(offset);
        if left == 0 {
            return Ok(Extent { length: 0, mapped: false });
        }
        let (mapped, length) = self.image.contain(|| {
            let access = self.image.read();
            let (mapping, length) = access.get_mapping(offset, left)?;
            Ok((!matches!(mapping, Mapping::Zero { .. } | Mapping::Eof { .. }), length))
        })?;
        Ok(Extent { length: length.clamp(1, left), mapped })
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        if self.image.read_only {
            return Err(IoError::ReadOnly);
        }
        if capacity == 0 || !capacity.is_multiple_of(512) {
            return Err(IoError::Unsupported);
        }
        self.image.contain(|| {
            let mut access = self.image.write();
            access.resize(capacity, PreallocateMode::None)?;
            self.image.capacity.store(capacity, Ordering::Release);
            access.flush()?;
            Ok(access.sync()?)
        })
    }
}

/// Writes an empty qcow2 image into the empty file at `path`. `backing`: name, as seen from there, and format.
pub(crate) fn make(
    path: &Path,
    size: u64,
    cluster: u64,
    backing: Option<(String, String)>,
) -> io::Result<()> {
    use imago::Storage as _;
    let file = Storage::open(StorageOpenOptions::new().filename(path).write(true))?;
    let builder = imago::qcow2::Qcow2::<Storage>::create_builder(file);
    let mut builder = builder.size(size).cluster_size(cluster as usize);
    if let Some((name, format)) = backing {
        builder = builder.backing(name, format);
    }
    builder.create()
}
