//! The options of an open image.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use synthvm_block::{CacheMode, IoMode, LockedFile, RawOptions};

use crate::error::OpenError;
use crate::format::{Format, detect_file};

/// Longest chain of parents or backing files.
pub(crate) const MAX_DEPTH: usize = 32;

/// Options of [`crate::open`].
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

impl OpenOptions {
    /// Returns the options for inspecting or reading an image.
    pub fn reading(format: Option<Format>) -> Self {
        Self { read_only: true, format, ..Self::default() }
    }

    /// Returns the options for the file of the image.
    pub(crate) fn raw(&self) -> RawOptions {
        RawOptions { read_only: self.read_only, cache: self.cache, io: self.io }
    }

    /// Returns the format in which `file` is opened.
    pub(crate) fn format_of(&self, file: &LockedFile) -> Result<Format, OpenError> {
        let path = file.path();
        let looks = detect_file(file.file())
            .map_err(|source| OpenError::Read { path: path.to_owned(), source })?;
        match self.format {
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
}
