//! VHDX ([MS-VHDX]): dynamic, fixed and differencing disks.
//!
//! Crash safety comes from the order of writes, not from the log. A block's space is durably part
//! of the file and reads as zero before its entry in the block allocation table is written. The
//! entry is one aligned word. A flush makes data and entries durable together. So the file is sound
//! after every write, and a reader after a crash has nothing to replay. Logs of other programs are
//! replayed.

mod bat;
mod blocks;
mod header;
mod layout;
mod locate;
mod locator;
mod log;
mod make;
mod map;
mod metadata;
mod parent;
mod regions;
mod report;
mod resize;
mod space;
mod structures;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synthvm_block::{Backend, IoError, LockedFile};
use tracing::{info, warn};
use vmbus_protocol::Guid;

use crate::OpenOptions;
use crate::error::{Flaw, OpenError};
use crate::file::ImageFile;
use crate::guid::new_guid;
use crate::mapped::Changes;
use bat::{Bat, Entry, State};
use blocks::CopyUp;
use header::Current;
use layout::{MIB, SIGNATURE};
use metadata::Metadata;
use space::Space;
use structures::Structures;

pub(crate) use make::{Make, Parent, make};
pub(crate) use report::Report;

/// An open VHDX.
#[derive(Debug)]
pub(crate) struct Vhdx {
    structures: Structures,
    metadata: Metadata,
    bat: Bat,
    capacity: AtomicU64,
    parent: Option<Box<Vhdx>>,
    /// This file and its parents, nearest first.
    files: Vec<Arc<dyn Backend>>,
    identity: PathBuf,
    read_only: bool,
    writer: Mutex<Writer>,
    /// Whether the first change has been recorded in the header.
    begun: std::sync::atomic::AtomicBool,
    /// The count of changes of structures.
    changes: Changes,
    #[cfg(test)]
    published: tests::Hook,
}

/// State that changes along with structures.
#[derive(Debug)]
struct Writer {
    current: Current,
    space: Space,
    /// Blocks that are being copied from the parents.
    copies: HashMap<u64, CopyUp>,
}

impl Vhdx {
    /// Opens the image in `file`, and the parents of a differencing one.
    pub(crate) fn open(file: &LockedFile, options: &OpenOptions) -> Result<Self, OpenError> {
        Self::open_child(file, options, 0)
    }

    fn open_child(
        file: &LockedFile,
        options: &OpenOptions,
        depth: usize,
    ) -> Result<Self, OpenError> {
        let path = file.path();
        let file = ImageFile::of_locked(file, options)?;
        Self::assemble(file, path, options, depth).map_err(|flaw| flaw.of(path))
    }

    fn assemble(
        file: ImageFile,
        path: &Path,
        options: &OpenOptions,
        depth: usize,
    ) -> Result<Self, Flaw> {
        let mut signature = [0; 8];
        file.read(&mut signature, 0)?;
        if &signature != SIGNATURE {
            return Err(Flaw::damaged("it does not begin with the identifier of a VHDX"));
        }
        let mut current = Current::read(&file)?;
        let structures = Structures::new(file, &mut current, options.read_only)?;
        if structures.replayed != 0 {
            let (entries, read_only) = (structures.replayed, options.read_only);
            info!(image = %path.display(), entries, in_memory = read_only, "a VHDX was not \
                closed: its log was replayed");
        }
        let regions = regions::read(&structures)?;
        let metadata = metadata::read(&structures, regions.metadata)?;
        let bat = Bat::read(&structures, regions.bat, &metadata)?;
        let mut used = vec![
            (0, MIB, "the header"),
            (regions.bat.offset, regions.bat.length, "the block allocation table"),
        ];
        used.push((regions.metadata.offset, regions.metadata.length, "the metadata"));
        used.extend(regions.others.iter().map(|region| (region.offset, region.length, "a region")));
        if current.header.log_length.get() != 0 {
            used.push((
                current.header.log_offset.get(),
                current.header.log_length.get().into(),
                "the log",
            ));
        }
        add_blocks(&bat, &metadata, &mut used)?;
        let space = Space::new(used, structures.length)?;
        let parent = parent::open(path, &metadata, options, depth)?;
        let files = [structures.file.raw()]
            .into_iter()
            .chain(parent.iter().flat_map(|parent| &parent.files));
        Ok(Self {
            files: files.cloned().collect(),
            capacity: AtomicU64::new(metadata.capacity),
            identity: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
            read_only: options.read_only,
            writer: Mutex::new(Writer { current, space, copies: HashMap::new() }),
            begun: false.into(),
            changes: Changes::new(),
            #[cfg(test)]
            published: tests::Hook::default(),
            structures,
            metadata,
            bat,
            parent,
        })
    }

    /// Returns the id of the state of the disk's content.
    fn data_id(&self) -> Guid {
        self.lock().current.header.data_write
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the first change: gives the content a new id, so that children and copies of the
    /// old state do not match, and makes free space read as zero.
    fn begin(&self, writer: &mut Writer) -> Result<(), IoError> {
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let Writer { current, space, .. } = writer;
        space.clean(&self.structures.file)?;
        let (file_write, data_write) = (new_guid()?, new_guid()?);
        current.update(&self.structures.file, |header| {
            header.file_write = file_write;
            header.data_write = data_write;
        })?;
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    /// Changes a block's entry.
    ///
    /// The order matters. The change is counted after it is in the file, so that a flush that then
    /// begins covers it. It is counted before it is published, so that a forced write into the
    /// block, which can follow immediately on another queue, sees that it needs a flush.
    fn set(&self, block: u64, entry: Entry) -> Result<(), IoError> {
        self.bat.write(&self.structures, block, entry)?;
        self.changes.count();
        self.bat.publish(block, entry);
        #[cfg(test)]
        self.published.call(block);
        Ok(())
    }

    /// Truncates unused space at the file's end. Returns its length in bytes.
    pub(crate) fn trim(self) -> Result<u64, IoError> {
        self.lock().space.trim(&self.structures.file)
    }

    fn identity_bytes(&self) -> &[u8] {
        self.identity.as_os_str().as_bytes()
    }
}

impl Drop for Vhdx {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.begun.load(Ordering::Acquire)
            && let Err(error) = self
                .structures
                .file
                .sync()
                .map_err(IoError::from)
                .and_then(|()| writer.space.trim(&self.structures.file).map(|_| ()))
        {
            warn!(image = %self.identity.display(), %error, "a VHDX could not be closed properly");
        }
    }
}

/// Adds the locations of the blocks, and refuses entries that are not valid.
fn add_blocks(bat: &Bat, metadata: &Metadata, used: &mut Vec<space::Used>) -> Result<(), Flaw> {
    let blocks = metadata.capacity.div_ceil(metadata.block_size);
    let ratio = metadata.chunk_ratio();
    let differencing = metadata.parent.is_some();
    for block in 0..blocks {
        let entry = bat.block(block);
        match entry.state() {
            Some(State::NotPresent | State::Zero) => {}
            Some(State::Present) => used.push((entry.offset(), metadata.block_size, "a block")),
            Some(State::Partial) if differencing => {
                used.push((entry.offset(), metadata.block_size, "a block"));
                if bat.bitmap(block).state() != Some(State::Present) {
                    return Err(Flaw::damaged(format!("block {block} has no sector bitmap")));
                }
            }
            Some(State::Partial) | None => {
                return Err(Flaw::damaged(format!("block {block} has the entry {:#x}", entry.0)));
            }
        }
        if differencing && block % ratio == 0 {
            let bitmap = bat.bitmap(block);
            match bitmap.state() {
                Some(State::NotPresent) => {}
                Some(State::Present) => used.push((bitmap.offset(), MIB, "a sector bitmap")),
                _ => {
                    return Err(Flaw::damaged(format!(
                        "the bitmap of block {block} has the entry {:#x}",
                        bitmap.0
                    )));
                }
            }
        }
    }
    Ok(())
}
