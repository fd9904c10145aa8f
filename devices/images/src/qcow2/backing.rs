//! The other files of an image: a backing file, and a data file. Each of them is locked like the
//! image.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use synthvm_block::{Backend, Geometry, IoError, RawFile};

use super::Qcow2;
use super::header::Header;
use crate::error::{Flaw, OpenError, REFUSED};
use crate::file::{ImageFile, lock};
use crate::format::Format;
use crate::mapped::{Clearing, Extents, Known, Location, Map, Step, StepResult};
use crate::options::MAX_DEPTH;
use crate::vhd::Vhd;
use crate::vhdx::Vhdx;
use crate::{OpenOptions, Parents};

/// Opens the backing file of the image at `path`, if it has one, read-only.
pub(super) fn open(
    path: &Path,
    header: &Header,
    options: &OpenOptions,
    depth: usize,
) -> Result<Option<Arc<dyn Map>>, Flaw> {
    let Some(name) = &header.backing else { return Ok(None) };
    if depth >= MAX_DEPTH {
        let reason =
            format!("its chain of backing files is longer than {MAX_DEPTH}, or runs in a circle");
        return Err(Flaw::Parent(reason));
    }
    let found = find(path, name, options)?;
    let format = match header.backing_format.as_deref() {
        None => None,
        Some("vpc") => Some(Format::Vhd),
        Some(format) => {
            Some(format.parse::<Format>().map_err(|error| Flaw::Parent(error.to_string()))?)
        }
    };
    let options = OpenOptions { read_only: true, format, parent: None, ..options.clone() };
    let open = || -> Result<Arc<dyn Map>, OpenError> {
        let locked = lock(&found, true)?;
        Ok(match options.format_of(&locked)? {
            Format::Raw => Arc::new(RawMap::new(RawFile::from_locked(&locked, &options.raw())?)),
            Format::Qcow2 => Arc::new(Qcow2::open_at(&locked, &options, depth + 1)?),
            Format::Vhdx => Arc::new(Vhdx::open(&locked, &options)?),
            Format::Vhd => Arc::new(Vhd::open(&locked, &options)?),
        })
    };
    open().map(Some).map_err(Flaw::of_parent)
}

/// Opens the data file, if the disk's bytes do not lie in the image: as the only writer, or beside
/// other readers.
pub(super) fn open_data(
    path: &Path,
    header: &Header,
    options: &OpenOptions,
) -> Result<Option<ImageFile>, OpenError> {
    let Some(name) = header.data_file.as_deref().filter(|_| header.layout.external) else {
        return Ok(None);
    };
    let found = find(path, name, options).map_err(|flaw| flaw.of(path))?;
    ImageFile::of_locked(&lock(&found, options.read_only)?, options).map(Some)
}

/// Returns the path of a file that the image at `path` names, if it may be opened.
fn find(path: &Path, name: &OsStr, options: &OpenOptions) -> Result<PathBuf, Flaw> {
    if options.parents == Parents::Refuse {
        return Err(Flaw::Parent(format!("it names {name:?}, and {REFUSED}")));
    }
    let bytes = name.as_bytes();
    let is_url = bytes.windows(3).any(|part| part == b"://");
    if bytes.starts_with(b"json:") || is_url {
        return Err(Flaw::Parent(format!(
            "it names {name:?}, and only plain file names are supported"
        )));
    }
    let name = Path::new(OsStr::from_bytes(bytes.strip_prefix(b"file:").unwrap_or(bytes)));
    let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(folder.parent().unwrap_or(Path::new("/")).join(name))
}

/// A raw backing file.
#[derive(Debug)]
struct RawMap {
    files: [Arc<dyn Backend>; 1],
}

impl RawMap {
    fn new(file: RawFile) -> Self {
        Self { files: [Arc::new(file)] }
    }
}

impl Map for RawMap {
    fn geometry(&self) -> Geometry {
        self.files[0].geometry()
    }

    fn identity(&self) -> &[u8] {
        self.files[0].identity()
    }

    fn files(&self) -> &[Arc<dyn Backend>] {
        &self.files
    }

    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        extents.push(length, Location::File { file: 0, offset });
        Some(Ok(()))
    }

    fn try_allocate(&self, _: u64, _: u64, _: &mut Extents) -> Known {
        Some(Err(IoError::ReadOnly))
    }

    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        extents.push(length, Location::File { file: 0, offset });
        Ok(Step::Done(length))
    }

    fn allocate(&self, _: u64, _: u64, _: &mut Extents) -> StepResult {
        Err(IoError::ReadOnly)
    }

    fn clear(&self, _: Clearing, _: u64, _: u64, _: &mut Extents) -> StepResult {
        Err(IoError::ReadOnly)
    }

    fn resize(&self, _: u64) -> Result<(), IoError> {
        Err(IoError::ReadOnly)
    }
}
