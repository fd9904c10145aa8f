//! Which files an image may bring along: backing files, each locked as the image is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use imago::format::gate::ImplicitOpenGate;
use imago::{FormatAccess, FormatDriverBuilder, Storage, StorageOpenOptions};
use synthvm_storage::backend::{self, raw};

use crate::Parents;
use crate::error::{OpenError, REFUSED};

/// Longest chain of backing files.
const MAX_DEPTH: usize = 32;

/// Opens and locks them.
#[derive(Clone)]
pub(super) struct Gate {
    files: Arc<Mutex<Vec<File>>>,
    parents: Parents,
    /// Of the image that is being opened.
    depth: usize,
    /// Its own file was opened; what comes now is named by it.
    begun: bool,
}

/// Why a file is not to be had.
pub(super) enum LockError {
    Open(io::Error),
    Locked,
}

impl LockError {
    pub(super) fn of(self, path: &Path, read_only: bool) -> OpenError {
        match self {
            Self::Locked => OpenError::File(backend::OpenError::Locked { path: path.to_owned() }),
            // The raw backend says more of what is wrong.
            Self::Open(source) => match backend::RawFile::open(path, read_only) {
                Err(error) => OpenError::File(error),
                Ok(_) => OpenError::Read { path: path.to_owned(), source },
            },
        }
    }
}

impl Gate {
    /// Of an image that may bring `parents` along.
    pub(super) fn new(parents: Parents) -> Self {
        Self { files: Arc::default(), parents, depth: 0, begun: false }
    }

    /// Whether a file that the image names may be opened.
    fn admit(&self, name: Option<&Path>) -> io::Result<()> {
        if self.parents == Parents::Named {
            return Ok(());
        }
        let name = name.map_or_else(|| "a file".to_owned(), |name| format!("{name:?}"));
        Err(io::Error::other(format!("it names {name}, and {REFUSED}")))
    }

    /// What was locked, shared with all clones.
    pub(super) fn files(&self) -> Arc<Mutex<Vec<File>>> {
        Arc::clone(&self.files)
    }

    /// Locks the file at `path` for as long as the list lives.
    pub(super) fn lock(&self, path: &Path, read_only: bool) -> Result<(), LockError> {
        // Nobody at the other end of a pipe is waited for.
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(LockError::Open)?;
        let kind = file.metadata().map_err(LockError::Open)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let path = path.display();
            return Err(LockError::Open(io::Error::other(format!(
                "'{path}' is neither a file nor a block device"
            ))));
        }
        match raw::try_lock(&file, read_only) {
            Ok(true) => {}
            Ok(false) => return Err(LockError::Locked),
            Err(error) => return Err(LockError::Open(error)),
        }
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        Ok(())
    }
}

impl<S: Storage + 'static> ImplicitOpenGate<S> for Gate {
    fn open_format<F: FormatDriverBuilder<S>>(&mut self, builder: F) -> io::Result<FormatAccess<S>> {
        if self.depth >= MAX_DEPTH {
            return Err(io::Error::other(format!(
                "the chain of backing files is longer than {MAX_DEPTH}, or runs in a circle"
            )));
        }
        self.admit(builder.get_image_path().as_deref())?;
        let next = Self { files: self.files(), parents: self.parents, depth: self.depth + 1, begun: false };
        Ok(FormatAccess::new(builder.open(next)?))
    }

    fn open_storage(&mut self, builder: StorageOpenOptions) -> io::Result<S> {
        if std::mem::replace(&mut self.begun, true) {
            self.admit(builder.get_filename())?;
        }
        let already = self.files.lock().unwrap_or_else(PoisonError::into_inner).len();
        // The first one is the image itself, which was locked before; backing files are never written.
        let is_image = self.depth == 0 && already == 1 && builder.get_writable();
        if let Some(path) = builder.get_filename().map(Path::to_owned)
            && !is_image
        {
            self.lock(&path, !builder.get_writable()).map_err(|error| match error {
                LockError::Open(error) => error,
                LockError::Locked => io::Error::other(format!("'{}' is in use", path.display())),
            })?;
        }
        S::open(builder)
    }
}
