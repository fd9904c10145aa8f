//! Files that get their name when they are complete.

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use synthvm_block::LockedFile;

use crate::OpenError;

/// A new file under a temporary name. It is removed if it is dropped before [`Partial::finish`].
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Partial {
    /// Creates a file that will become `target`, which must not exist.
    pub(super) fn begin(target: &Path) -> io::Result<Self> {
        if target.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        let path = target.with_file_name(name);
        // A process with the same number, which has ended, may have left such a file.
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, target: target.to_owned(), finished: false })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the file, locked, to be opened as an image.
    pub(super) fn lock(&self, read_only: bool) -> Result<LockedFile, OpenError> {
        let failed = |source| OpenError::Read { path: self.path.clone(), source };
        Ok(LockedFile::from_file(self.file.try_clone().map_err(failed)?, &self.path, read_only)?)
    }

    /// Makes the file durable and gives it its name, unless another file has taken the name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // A hard link, unlike a rename, never replaces a file. The open file gets the name, even if
        // the temporary path names another file then.
        match link(&self.file, &self.target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(error) => {
                // The file system has no hard links.
                let (here, there) = (self.file.metadata()?, std::fs::symlink_metadata(&self.path)?);
                if (here.dev(), here.ino()) != (there.dev(), there.ino()) {
                    return Err(error);
                }
                std::fs::rename(&self.path, &self.target)?;
                self.finished = true;
            }
        }
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Gives the open `file` the name `target`, which must not exist.
fn link(file: &File, target: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let target = CString::new(target.as_os_str().as_bytes())?;
    let (here, flags) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: two strings that end in a zero; the descriptor is open while `file` lives.
    match unsafe { libc::linkat(here, from.as_ptr(), here, target.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
