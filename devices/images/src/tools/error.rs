//! Why a tool gave up.

use std::io;
use std::path::{Path, PathBuf};

use synthvm_block::IoError;

use crate::OpenError;

/// Why a tool gave up, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// An image cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing is overwritten.
    #[error("'{}' exists already; choose another name, or remove it first", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An option makes no sense.
    #[error("{option}: {reason}")]
    Option {
        /// The option at fault, as it stands on the command line.
        option: &'static str,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {what} '{}'", .path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An image failed while it was read or written.
    #[error("cannot {what} '{}'", .path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The image.
        path: PathBuf,
        /// Why not.
        source: IoError,
    },
}

impl ToolError {
    pub(super) fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::Option { option, reason: reason.into() }
    }

    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            _ => Self::File { what, path, source },
        }
    }

    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(IoError) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
