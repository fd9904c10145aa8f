//! What can go wrong while an image is made.

use std::io;
use std::path::{Path, PathBuf};

/// Why a package or an image could not be made. Every message says what was being done and, where
/// there is one, what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be used.
    #[error("{doing} {path}: {source}", path = path.display())]
    File {
        /// What was tried, as a present participle ("reading").
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program that we need could not be started.
    #[error("starting {program}: {source} (is it installed?)")]
    Start {
        /// The program's name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed ({status}) while {doing}; {said}")]
    Program {
        /// The program's name.
        program: String,
        /// Its exit status.
        status: String,
        /// What it was used for.
        doing: String,
        /// The end of what it printed, and where the rest is.
        said: String,
    },
    /// The package manager or an archive gave us something we cannot use.
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// Wraps an I/O error on a path.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { doing, path, source }
    }
}
