//! The errors of the tools.

use std::io;
use std::path::{Path, PathBuf};

use synthvm_block::IoError;

use crate::OpenError;

/// A reason why a tool failed, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// An image cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The target exists. The tools overwrite no file.
    #[error("'{}' exists already; choose another name, or remove it first", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An option is not valid.
    #[error("{option}: {reason}")]
    Option {
        /// The option at fault, in its spelling on the command line.
        option: &'static str,
        /// The reason, and the remedy.
        reason: String,
    },
    /// A system call failed.
    #[error("cannot {what} '{}'", .path.display())]
    File {
        /// The action that failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An image failed while it was read or written.
    #[error("cannot {what} '{}'", .path.display())]
    Io {
        /// The action that failed.
        what: &'static str,
        /// The image.
        path: PathBuf,
        /// The reason.
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
