//! VHD: fixed disks can be read and written, dynamic disks only read.

mod dynamic;
mod footer;
mod make;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use synthvm_block::BlockSize;
use synthvm_block::{Backend, Discard, Geometry, IoError, LockedFile};
use vmbus_protocol::Guid;

use crate::OpenOptions;
use crate::error::{Flaw, OpenError};
use crate::file::ImageFile;
use crate::mapped::{Clearing, Extents, Known, Location, Map, Step, StepResult};
use dynamic::Blocks;
use footer::{Footer, Kind, SIZE};

pub(crate) use make::make;

/// An open VHD.
#[derive(Debug)]
pub(crate) struct Vhd {
    file: ImageFile,
    files: [Arc<dyn Backend>; 1],
    footer: Footer,
    /// The table of a dynamic disk. `None`: the disk is fixed.
    blocks: Option<Blocks>,
    capacity: u64,
    identity: PathBuf,
    read_only: bool,
    discard: Option<Discard>,
}

impl Vhd {
    /// Opens the image in `file`.
    pub(crate) fn open(file: &LockedFile, options: &OpenOptions) -> Result<Self, OpenError> {
        let path = file.path();
        let file = ImageFile::of_locked(file, options)?;
        Self::assemble(file, path, options.read_only).map_err(|flaw| flaw.of(path))
    }

    fn assemble(file: ImageFile, path: &Path, read_only: bool) -> Result<Self, Flaw> {
        let length = file.len()?;
        let end = length
            .checked_sub(SIZE as u64)
            .ok_or_else(|| Flaw::damaged("it is too short for a footer"))?;
        let mut bytes = [0; SIZE];
        file.read(&mut bytes, end)?;
        let (footer, kind) = Footer::parse(&bytes)?;
        let capacity = footer.current_size.get();
        let blocks = match kind {
            Kind::Fixed if capacity > end => {
                return Err(Flaw::damaged(format!(
                    "its footer says that the disk has {capacity} bytes, but the file has {length}"
                )));
            }
            Kind::Fixed => None,
            Kind::Dynamic if !read_only => {
                return Err(Flaw::unsupported(
                    "dynamic VHDs can only be read",
                    "add readonly=on, or convert it with: synthvm image convert --format vhdx",
                ));
            }
            Kind::Dynamic => Some(Blocks::read(&file, footer.data_offset.get(), capacity, end)?),
            Kind::Differencing => {
                return Err(Flaw::unsupported(
                    "it is a differencing VHD",
                    "merge it with its parent, or convert both to VHDX with the program that made \
                    them",
                ));
            }
        };
        let discard = file.raw().geometry().discard.filter(|_| blocks.is_none());
        Ok(Self {
            files: [Arc::clone(file.raw())],
            file,
            footer,
            blocks,
            capacity,
            identity: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
            read_only,
            discard: discard.map(|discard| Discard { zeroes: true, ..discard }),
        })
    }

    /// Returns whether the disk is fixed, with all its blocks in the file.
    pub(crate) fn is_fixed(&self) -> bool {
        self.blocks.is_none()
    }

    pub(crate) fn id(&self) -> Guid {
        Guid::from_bytes(self.footer.id)
    }

    pub(crate) fn file(&self) -> &ImageFile {
        &self.file
    }

    /// Returns the bytes of a block of a dynamic disk.
    pub(crate) fn block_size(&self) -> Option<u64> {
        self.blocks.as_ref().map(Blocks::block_size)
    }
}

impl Map for Vhd {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.capacity,
            block_size: BlockSize::B512,
            physical_block_size: 4096,
            read_only: self.read_only,
            write_cache: true,
            rotational: false,
            discard: self.discard,
        }
    }

    fn identity(&self) -> &[u8] {
        self.identity.as_os_str().as_bytes()
    }

    fn files(&self) -> &[Arc<dyn Backend>] {
        &self.files
    }

    /// Returns false, because the table is in memory and never changes.
    fn may_block(&self) -> bool {
        false
    }

    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        match &self.blocks {
            None => extents.push(length, Location::File { file: 0, offset }),
            Some(blocks) => blocks.locate(offset, length, extents),
        }
        Some(Ok(()))
    }

    fn try_allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        if self.blocks.is_some() {
            return Some(Err(IoError::ReadOnly));
        }
        self.try_locate(offset, length, extents)
    }

    fn try_clear(&self, _: Clearing, offset: u64, length: u64, extents: &mut Extents) -> Known {
        self.try_allocate(offset, length, extents)
    }

    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        done(length, self.try_locate(offset, length, extents))
    }

    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        done(length, self.try_allocate(offset, length, extents))
    }

    fn clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        done(length, self.try_clear(how, offset, length, extents))
    }

    /// Fails, because the footer lies immediately behind the disk.
    fn resize(&self, _capacity: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported)
    }
}

/// Returns the step of a lookup that never blocks.
fn done(length: u64, result: Known) -> StepResult {
    result.transpose()?;
    Ok(Step::Done(length))
}
