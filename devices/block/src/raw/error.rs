//! The errors of opening an image.

use std::fs::FileType;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The reason that an image cannot be a disk, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file does not exist.
    #[error("disk image '{}' does not exist; create it first, for example with: truncate -s 10G \
        '{}'", .path.display(), .path.display())]
    NotFound {
        /// The image.
        path: PathBuf,
    },
    /// The file's permissions forbid opening it for writing, or at all.
    #[error("disk image '{}' cannot be opened for {}: permission denied; {}", .path.display(),
        if *.read_only { "reading" } else { "writing" },
        if *.read_only { "change its permissions" } else { "change its permissions, or add \
            readonly=on if the guest only reads it" })]
    Denied {
        /// The image.
        path: PathBuf,
        /// Whether it was opened for reading only.
        read_only: bool,
    },
    /// The file lies on a read-only file system or device.
    #[error(
        "disk image '{}' lies on read-only storage; add readonly=on, or move it",
        .path.display()
    )]
    ReadOnlyStorage {
        /// The image.
        path: PathBuf,
    },
    /// The file is a directory, a pipe, a terminal, ...
    #[error(
        "'{}' is {kind}; a disk image must be a regular file or a block device",
        .path.display()
    )]
    NotADisk {
        /// The image.
        path: PathBuf,
        /// The type of the file.
        kind: &'static str,
    },
    /// Another program uses the file.
    #[error("disk image '{}' is in use by another SynthVM (or another program that locks it); \
        stop that one first, or open it with readonly=on in both",
        .path.display())]
    Locked {
        /// The image.
        path: PathBuf,
    },
    /// The file has zero bytes.
    #[error(
        "disk image '{}' is empty; give it a size, for example with: truncate -s 10G '{}'",
        .path.display(), .path.display()
    )]
    Empty {
        /// The image.
        path: PathBuf,
    },
    /// The length is not a multiple of a sector.
    #[error("disk image '{}' has {size} bytes, which is not a multiple of 512; a raw image \
        consists of whole sectors. Round it up with: truncate -s %512 '{}'",
        .path.display(), .path.display())]
    NotWholeSectors {
        /// The image.
        path: PathBuf,
        /// The length of the file in bytes.
        size: u64,
    },
    /// The option cache=none was given, but the storage has no direct I/O.
    #[error(
        "the storage of disk image '{}' has no direct I/O; use cache=writeback",
        .path.display()
    )]
    NoDirect {
        /// The image.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The option io=uring was given, but io_uring is not available.
    #[error("disk image '{}' cannot be used through io_uring, which this kernel does not have or \
        does not allow; use io=auto or io=threads",
        .path.display())]
    NoUring {
        /// The image.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other error of open(2).
    #[error("cannot open disk image '{}'", .path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file was opened, but cannot be examined.
    #[error("cannot examine disk image '{}'", .path.display())]
    Inspect {
        /// The image.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn from_open(path: &Path, read_only: bool, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path, read_only },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnlyStorage { path },
            io::ErrorKind::IsADirectory => Self::NotADisk { path, kind: "a directory" },
            // open(2) returns ENXIO for a socket, and for a FIFO without a reader.
            _ if source.raw_os_error() == Some(libc::ENXIO) => {
                Self::NotADisk { path, kind: "no file" }
            }
            _ => Self::Open { path, source },
        }
    }

    pub(super) fn not_a_disk(path: &Path, kind: FileType) -> Self {
        let kind = match kind {
            kind if kind.is_dir() => "a directory",
            kind if kind.is_fifo() => "a pipe",
            kind if kind.is_char_device() => "a character device",
            kind if kind.is_socket() => "a socket",
            _ => "something else",
        };
        Self::NotADisk { path: path.to_owned(), kind }
    }
}
