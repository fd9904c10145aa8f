//! qcow2, versions 2 and 3 (QEMU, docs/interop/qcow2.rst): read and written, with backing files and
//! external data files; compressed clusters, internal snapshots and subclusters are read.
//!
//! Crash safety comes from the order of writes. Clusters are taken from a reserve: their reference
//! counts are durable and they read as zero, durably, before any entry names them. So entries need
//! no barrier: each is one aligned word, and a flush makes data and entries durable together. A
//! cluster with content that must be kept (of a backing file, of a snapshot, or compressed) is
//! copied, durably, before its entry changes. Counts of unused clusters decrease only when the file
//! is closed. So the worst result of a crash is clusters that are counted and not used. An image of
//! version 3 is marked as dirty while it is open for writing.
//!
//! | module | content |
//! |---|---|
//! | `layout`, `header`, `entry`, `width`, `compressed` | bytes of the file |
//! | `tables` | the two levels of tables, which locate the clusters of the disk |
//! | `counts`, `reserve` | the used clusters of the file, and those to be used next |
//! | `locate`, `allocate`, `clear`, `resize` | the requests |
//! | `backing` | the other files of an image |
//! | `walk`, `repair` | the check of the whole image, and the repair of its counts |
//! | `make` | new images |

mod allocate;
mod backing;
mod clear;
mod compressed;
mod counts;
mod entry;
mod header;
mod layout;
mod locate;
mod make;
mod map;
mod reader;
mod repair;
mod reserve;
mod resize;
mod snapshots;
mod tables;
#[cfg(test)]
mod tests;
mod walk;
mod width;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synthvm_block::{Backend, CacheMode, IoError, LockedFile};
use tracing::{info, warn};

use crate::OpenOptions;
use crate::error::{Flaw, OpenError};
use crate::file::ImageFile;
use crate::mapped::{Changes, Map};
use allocate::Prepared;
use compressed::Compression;
use counts::Counts;
use header::Header;
use layout::Layout;
use locate::{Tail, Unpacked};
use reader::Reader;
use reserve::{Freed, Reserve};
use tables::Tables;

pub(crate) use make::{MAX_L1_BYTES, l1_bytes, make};

/// Smallest cluster in which data may be read and written past the page cache: a page is either all
/// data or all tables.
const MIN_DIRECT: u64 = 4096;

/// An open qcow2 image.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    layout: Layout,
    compression: Compression,
    file: ImageFile,
    /// The data file, if the disk's bytes do not lie in `file`.
    data: Option<ImageFile>,
    parent: Option<Arc<dyn Map>>,
    /// The image's file, the data file if there is one, and those of the backing file.
    files: Vec<Arc<dyn Backend>>,
    tables: Tables,
    capacity: AtomicU64,
    identity: PathBuf,
    read_only: bool,
    unpacked: Mutex<Unpacked>,
    /// The part of a sector behind the file's last whole sector.
    tail: Tail,
    writer: Mutex<Writer>,
    /// Whether the image has been marked as dirty for the first change.
    begun: AtomicBool,
    /// The count of changes of structures.
    changes: Changes,
}

/// State that changes along with structures.
#[derive(Debug)]
struct Writer {
    header: Header,
    counts: Counts,
    reserve: Reserve,
    freed: Freed,
    /// Clusters of the disk with a new location that is filled but not yet named by an entry, by
    /// position.
    prepared: HashMap<u64, Prepared>,
    /// The number of copies, and the number of durable ones.
    copies: u64,
    durable_copies: u64,
    /// Whether a barrier failed. Structures must then not change any more.
    failed: bool,
    reader: Reader,
}

impl Qcow2 {
    /// Opens the image in `locked`, its data file and its backing files.
    pub(crate) fn open(locked: &LockedFile, options: &OpenOptions) -> Result<Self, OpenError> {
        Self::open_at(locked, options, 0)
    }

    /// Opens the image. `depth`: the number of images above this one in the chain of backing files.
    fn open_at(
        locked: &LockedFile,
        options: &OpenOptions,
        depth: usize,
    ) -> Result<Self, OpenError> {
        let (path, read_only) = (locked.path(), options.read_only);
        let read = |options: &OpenOptions| {
            // All reads use the file that was locked.
            let file = ImageFile::of_locked_any_length(locked, options)?;
            let header = Header::read(&file, read_only).map_err(|flaw| flaw.of(path))?;
            Ok::<_, OpenError>((file, header))
        };
        let (mut file, mut header) = read(options)?;
        let mut data_options = options.clone();
        if header.layout.cluster() < MIN_DIRECT && options.cache == CacheMode::None {
            drop(file);
            data_options.cache = CacheMode::Writeback;
            (file, header) = read(&data_options)?;
        }
        if header.capacity == 0 || !header.capacity.is_multiple_of(512) {
            let reason =
                format!("its disk has {} bytes, which are not whole sectors", header.capacity);
            return Err(Flaw::unsupported(reason, "give it a size with: qemu-img resize").of(path));
        }
        let parent = backing::open(path, &header, options, depth).map_err(|flaw| flaw.of(path))?;
        let data = backing::open_data(path, &header, &data_options)?;
        Self::assemble(path, read_only, file, data, parent, header).map_err(|flaw| flaw.of(path))
    }

    fn assemble(
        path: &Path,
        read_only: bool,
        file: ImageFile,
        data: Option<ImageFile>,
        parent: Option<Arc<dyn Map>>,
        header: Header,
    ) -> Result<Self, Flaw> {
        let counts = Counts::read(&file, &header)?;
        let tables = Tables::read(&file, &header, header.layout.clusters(file.len()?))?;
        let own = [Some(file.raw()), data.as_ref().map(ImageFile::raw)].into_iter().flatten();
        let files = own.chain(parent.iter().flat_map(|parent| parent.files())).cloned().collect();
        let is_dirty = header.is_dirty();
        let image = Self {
            layout: header.layout,
            compression: header.compression,
            capacity: AtomicU64::new(header.capacity),
            identity: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
            read_only,
            unpacked: Mutex::default(),
            tail: Tail::read(&file)?,
            writer: Mutex::new(Writer {
                header,
                counts,
                reserve: Reserve::default(),
                freed: Freed::default(),
                prepared: HashMap::new(),
                copies: 0,
                durable_copies: 0,
                failed: false,
                reader: Reader::default(),
            }),
            begun: AtomicBool::new(false),
            changes: Changes::new(),
            file,
            data,
            parent,
            files,
            tables,
        };
        if !read_only {
            image.prepare_to_write(is_dirty)?;
        }
        Ok(image)
    }

    /// Checks an image before it is used for writing: its structures must not overlap, and its
    /// counts must exist.
    fn prepare_to_write(&self, is_dirty: bool) -> Result<(), Flaw> {
        let mut writer = self.lock();
        self.protect_structures(&writer)?;
        if is_dirty {
            let repaired = self.repair(&mut writer)?;
            info!(
                image = %self.identity.display(), raised = repaired.raised, freed = repaired.freed,
                "a qcow2 image was not closed: its reference counts are rebuilt"
            );
        }
        if self.file.is_regular()? {
            writer.counts.check(&self.file)
        } else {
            writer.counts.check_blocks(&self.file)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the first change: marks the image as dirty, and makes its last cluster whole.
    fn begin(&self, writer: &mut Writer) -> Result<(), IoError> {
        if writer.failed {
            return Err(IoError::FlushLost);
        }
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let end = writer.counts.end() << self.layout.bits;
        if self.file.is_regular()? && self.file.len()? < end {
            self.file.grow(end)?;
        }
        if let Some(data) = &self.data {
            let end = self.capacity.load(Ordering::Acquire);
            if data.len()? < end {
                data.grow(end)?;
            }
        }
        // The kernel reports lost writes only once to each descriptor.
        writer.header.write_features(&self.file, true).inspect_err(|_| writer.failed = true)?;
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns the file with the disk's bytes, and its index in [`Self::files`].
    fn data_file(&self) -> (&ImageFile, usize) {
        match &self.data {
            Some(data) => (data, 1),
            None => (&self.file, 0),
        }
    }

    /// Releases the reserve and unused clusters, and marks the image as closed.
    fn close(&mut self) -> Result<(), IoError> {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if writer.failed {
            return Err(IoError::FlushLost);
        }
        if let Some(data) = &self.data {
            data.sync()?;
        }
        // Entries that now name other clusters must become durable before counts decrease.
        self.file.sync()?;
        let Writer { header, counts, reserve, freed, prepared, .. } = writer;
        if !self.layout.external {
            prepared.drain().for_each(|(_, prepared)| freed.push(prepared.cluster));
        }
        freed.apply(&self.file, counts)?;
        let end = reserve.give_back(&self.file, counts)?;
        self.file.sync()?;
        if self.file.is_regular()? && self.file.len()? > end << self.layout.bits {
            self.file.cut(end << self.layout.bits)?;
            self.file.sync()?;
        }
        Ok(header.write_features(&self.file, false)?)
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if self.begun.load(Ordering::Acquire)
            && let Err(error) = self.close()
        {
            warn!(
                image = %self.identity.display(), %error,
                "a qcow2 image could not be closed properly: it is checked when it is opened the \
                next time"
            );
        }
    }
}
