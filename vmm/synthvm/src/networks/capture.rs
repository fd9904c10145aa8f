//! The file of a card's capture.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::NetworkError;

/// A new file. Dropping it removes the file; [`CaptureFile::keep`] returns it for writing.
#[derive(Debug)]
pub(super) struct CaptureFile {
    /// `None` once the file is kept.
    file: Option<File>,
    path: PathBuf,
}

impl CaptureFile {
    /// Creates the file.
    ///
    /// # Errors
    /// It exists, or cannot be created.
    pub(super) fn create(path: &Path) -> Result<Self, NetworkError> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok(CaptureFile { file: Some(file), path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(NetworkError::CaptureExists(path.to_owned()))
            }
            Err(error) => Err(NetworkError::Capture { path: path.to_owned(), error }),
        }
    }

    /// Returns the file, which stays.
    pub(super) fn keep(mut self) -> Option<File> {
        self.file.take()
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The machine did not start: the file is empty, and new.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
