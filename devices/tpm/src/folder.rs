//! The folder of a TPM's state, which belongs to one machine at a time.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A folder that cannot hold the TPM's state, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another machine uses the folder.
    #[error("{}: another machine uses this TPM state; name another folder", .0.display())]
    Locked(PathBuf),
    /// The folder cannot be made or opened.
    #[error("{}: {error}; name a folder in which you can write", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// A locked folder. A folder that was made for this machine alone is removed on drop.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    temporary: bool,
    /// The lock, which ends with the descriptor.
    _lock: File,
}

impl StateFolder {
    /// Locks the folder, and makes it first if it does not exist (its parent must).
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |error| StateError::Folder { path: path.to_owned(), error };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            _ => {}
        }
        // A relative name could be taken for an option of swtpm.
        let path = fs::canonicalize(path).map_err(fail)?;
        Self::lock(path, false)
    }

    /// Makes a folder whose state is lost when the machine ends.
    pub(crate) fn temporary() -> Result<Self, StateError> {
        let template = std::env::temp_dir().join("synthvm-tpm-XXXXXX");
        let fail = |error: io::Error| StateError::Folder { path: template.clone(), error };
        let text = CString::new(template.as_os_str().as_bytes()).map_err(|e| fail(e.into()))?;
        let mut bytes = text.into_bytes_with_nul();
        // SAFETY: the buffer is a string that ends with NUL; mkdtemp changes its last letters.
        if unsafe { libc::mkdtemp(bytes.as_mut_ptr().cast()) }.is_null() {
            return Err(fail(io::Error::last_os_error()));
        }
        bytes.pop();
        Self::lock(PathBuf::from(std::ffi::OsString::from_vec(bytes)), true)
    }

    fn lock(path: PathBuf, temporary: bool) -> Result<Self, StateError> {
        let fail = |error| StateError::Folder { path: path.clone(), error };
        let file = File::open(&path).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_dir() {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        match file.try_lock() {
            Ok(()) => Ok(StateFolder { path, temporary, _lock: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(path)),
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        if self.temporary {
            // A folder that stays behind is in the system's folder for such.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_folder_of_another_machine_is_refused_and_free_after_its_end() {
        let parent = StateFolder::temporary().unwrap();
        let path = parent.path().join("tpm");
        let first = StateFolder::open(&path).unwrap();
        let error = StateFolder::open(&path).unwrap_err();
        assert!(error.to_string().contains("another machine uses"), "{error}");
        drop(first);
        StateFolder::open(&path).unwrap();
        assert!(path.is_dir(), "a folder that the user named stays");
        let removed = parent.path().to_owned();
        drop(parent);
        assert!(!removed.exists(), "a temporary folder does not");
    }

    #[test]
    fn test_folder_that_is_a_file_or_has_no_parent_is_refused_with_its_name() {
        let parent = StateFolder::temporary().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file, parent.path().join("no/folder")] {
            let error = StateFolder::open(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
