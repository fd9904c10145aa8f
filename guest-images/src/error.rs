//! Errors in making an image.

use std::io;
use std::path::{Path, PathBuf};

/// An error in making a package or an image. Every message has the failed operation and, if there
/// is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be used.
    #[error("{doing} {path}: {source}", path = path.display())]
    File {
        /// The failed operation, as a present participle ("reading").
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A required program cannot be started.
    #[error("starting {program}: {source} (is it installed?)")]
    Start {
        /// The program's name.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed ({status}) while {doing}; {said}")]
    Program {
        /// The program's name.
        program: String,
        /// The exit status.
        status: String,
        /// The purpose of the program.
        doing: String,
        /// The end of its output, and the location of the rest.
        said: String,
    },
    /// The package manager or an archive returned an unusable result.
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// Returns a converter of an I/O error on a path.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { doing, path, source }
    }
}
