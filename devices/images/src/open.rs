//! Opens an image of any format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synthvm_block::{Backend, CacheMode, IoMode, LockedFile, RawFile, RawOptions};

use crate::error::OpenError;
use crate::format::{Format, detect_file};
use crate::mapped::Mapped;
use crate::qcow2::Qcow2;
use crate::vhd::Vhd;
use crate::vhdx::Vhdx;

/// Options of [`open`].
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Nothing is written to the image: its log is replayed in memory only. Other processes may
    /// read it too.
    pub read_only: bool,
    /// The format of the image. `None`: the format of its content, unless its name contradicts.
    pub format: Option<Format>,
    /// Whether data goes through the host's page cache. Structures always do, and so does all of a
    /// qcow2 image with clusters of less than 4 KiB.
    pub cache: CacheMode,
    /// How requests reach the kernel.
    pub io: IoMode,
    /// The location of the parent, for a differencing VHDX that has been moved. `None`: the
    /// location that the image names.
    pub parent: Option<PathBuf>,
    /// Whether the image may name other files.
    pub parents: Parents,
    /// Records all changes of the image's file, for simulated power losses.
    #[cfg(test)]
    pub(crate) recorder: Option<synthvm_block::conformance::powerloss::Recorder>,
}

/// The other files that an image may name: parents, backing files, data files. The author of the
/// image chose their names, and the guest can read their content on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parents {
    /// All files that the image names, in any folder: for trusted images.
    #[default]
    Named,
    /// Only [`OpenOptions::parent`]: for untrusted images. An image that names a file is refused,
    /// and that file is not looked up.
    Refuse,
}

/// Opens and locks the image at `path`.
///
/// If no format is given, the content decides. An image that may be raw by its name (`.img`,
/// `.raw`, ..., none at all) or is a block device, but looks like another format, is refused: the
/// guest of a raw image can write such content, and would then choose the files that the host
/// opens.
///
/// # Errors
/// [`OpenError`]: the flaw of the image, and the remedy.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Backend>, OpenError> {
    let file = lock(path, options.read_only)?;
    let format = decide(&file, options)?;
    open_as(&file, format, options)
}

/// Opens and locks the file at `path`. All later accesses use this file, even if the path then
/// names another one.
pub(crate) fn lock(path: &Path, read_only: bool) -> Result<LockedFile, OpenError> {
    Ok(LockedFile::open(path, read_only)?)
}

/// Opens the image in `file`, which has `format`.
pub(crate) fn open_as(
    file: &LockedFile,
    format: Format,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>, OpenError> {
    Ok(match format {
        Format::Raw => Arc::new(RawFile::from_locked(file, &options.raw())?),
        Format::Vhdx => Arc::new(Mapped::new(Arc::new(Vhdx::open(file, options)?))),
        Format::Vhd => Arc::new(Mapped::new(Arc::new(Vhd::open(file, options)?))),
        Format::Qcow2 => Arc::new(Mapped::new(Arc::new(Qcow2::open(file, options)?))),
    })
}

impl OpenOptions {
    /// Returns the options for inspecting or reading an image.
    pub fn reading(format: Option<Format>) -> Self {
        Self { read_only: true, format, ..Self::default() }
    }

    /// Returns the options for the file of the image.
    pub(crate) fn raw(&self) -> RawOptions {
        RawOptions { read_only: self.read_only, cache: self.cache, io: self.io }
    }
}

/// Returns the format in which `file` is opened.
pub(crate) fn decide(file: &LockedFile, options: &OpenOptions) -> Result<Format, OpenError> {
    let path = file.path();
    let looks = detect_file(file.file())
        .map_err(|source| OpenError::Read { path: path.to_owned(), source })?;
    match options.format {
        Some(format) if format == looks || format == Format::Raw => Ok(format),
        Some(expected) => Err(OpenError::WrongFormat {
            path: path.to_owned(),
            expected,
            looks,
            reason: "its signature is missing".to_owned(),
        }),
        None => match Format::of_name(path) {
            Some(named) if named == looks => Ok(looks),
            Some(Format::Raw) | None if looks != Format::Raw => {
                Err(OpenError::Ambiguous { path: path.to_owned(), looks })
            }
            Some(expected) if file.metadata().is_file() => Err(OpenError::WrongFormat {
                path: path.to_owned(),
                expected,
                looks,
                reason: "its name says so, its content does not".to_owned(),
            }),
            _ => Ok(looks),
        },
    }
}
