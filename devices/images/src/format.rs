//! The formats of images, and their recognition.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A format of disk images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk's bytes alone.
    Raw,
    /// Virtual Hard Disk v2 ([MS-VHDX]).
    Vhdx,
    /// Virtual Hard Disk, fixed or dynamic.
    Vhd,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Vhdx, Self::Vhd, Self::Qcow2];

    /// Returns the name that options and reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Returns the format that a file of this name is expected to have. `None`: the name does not
    /// tell.
    pub fn of_name(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "raw" | "img" | "iso" | "bin" => Some(Self::Raw),
            "vhdx" | "avhdx" => Some(Self::Vhdx),
            "vhd" | "vpc" => Some(Self::Vhd),
            "qcow2" | "qcow" => Some(Self::Qcow2),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for a word that is not the name of a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no image format; the formats are raw, vhdx, vhd and qcow2")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// Returns the format that the content of the file at `path` has. Content that looks like no other
/// format is raw. A block device is always raw.
///
/// A guest decides the content of a raw image, so content alone must never decide the format that
/// an image is opened as: see [`crate::open`].
///
/// # Errors
/// The file cannot be read.
pub fn detect(path: &Path) -> io::Result<Format> {
    let metadata = std::fs::metadata(path)?;
    if metadata.file_type().is_block_device() || !metadata.is_file() {
        return Ok(Format::Raw);
    }
    detect_file(&File::open(path)?)
}

/// Returns the format of an open file, like [`detect`].
pub(crate) fn detect_file(file: &File) -> io::Result<Format> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Format::Raw);
    }
    let mut begin = [0; 8];
    if read_at(file, &mut begin, 0)? {
        match &begin {
            b"vhdxfile" => return Ok(Format::Vhdx),
            // A dynamic VHD begins with a copy of its footer.
            b"conectix" => return Ok(Format::Vhd),
            [b'Q', b'F', b'I', 0xFB, ..] => return Ok(Format::Qcow2),
            _ => {}
        }
    }
    if let Some(footer) = metadata.len().checked_sub(512)
        && read_at(file, &mut begin, footer)?
        && &begin == b"conectix"
    {
        return Ok(Format::Vhd);
    }
    Ok(Format::Raw)
}

/// Reads `bytes` at `offset`. Returns false if the file is too short.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
