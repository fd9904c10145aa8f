//! The bytes of the variables: in memory, and in a file if they are to outlive the machine.
//!
//! The memory is what the guest reads. Each change goes to the file in the order in which the guest
//! made it, so that a machine that is killed leaves a state that the firmware's own journal
//! repairs, as after a power loss on a real board. A file is created complete or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use synthvm_block::LockedFile;
use tracing::warn;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};
use vmbus_log::LogRateLimiter;

use crate::image::check_variables;

/// The bytes of the variables.
#[derive(Debug)]
pub struct Variables {
    memory: Arc<MmapRegion<()>>,
    file: Option<LockedFile>,
    /// Programmed bytes that are not in the file yet.
    pending: Range<usize>,
    /// Whether the file was written since [`Variables::take_written`].
    is_written: bool,
    log: LogRateLimiter,
}

/// A variables file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// The file cannot be opened, or another machine uses it.
    #[error(transparent)]
    Open(#[from] synthvm_block::OpenError),
    /// The file cannot be created or read.
    #[error("{}: {what}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The failed operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The file belongs to firmware of another layout, or is no variables file.
    #[error(
        "{}: {problem}; name another file, which is then created from the firmware's template",
        path.display()
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// The difference.
        problem: String,
    },
    /// There is no memory for the bytes.
    #[error("memory for the variables: {0}")]
    Memory(String),
}

impl Variables {
    /// Returns a copy of `template` that is lost with the machine.
    ///
    /// # Errors
    /// [`VariablesError::Memory`].
    pub fn volatile(template: &[u8]) -> Result<Variables, VariablesError> {
        let memory = copy(template)?;
        Ok(Variables {
            memory,
            file: None,
            pending: 0..0,
            is_written: false,
            log: LogRateLimiter::default(),
        })
    }

    /// Opens and locks the variables file at `path`, and creates it from `template` if it does not
    /// exist.
    ///
    /// # Errors
    /// [`VariablesError`]. A file that exists is never changed here.
    pub fn open(path: &Path, template: &[u8]) -> Result<Variables, VariablesError> {
        let failed =
            |what| move |source| VariablesError::File { path: path.to_owned(), what, source };
        match fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, template).map_err(failed("cannot create it"))?;
            }
            Err(error) => return Err(failed("cannot open it")(error)),
        }
        let file = LockedFile::open(path, false)?;
        let len = file.metadata().len();
        let layout = |problem| VariablesError::Layout { path: path.to_owned(), problem };
        if len != template.len() as u64 {
            let needed = template.len();
            let problem = format!("has {len} bytes, this firmware's variables have {needed}");
            return Err(layout(problem));
        }
        let mut bytes = vec![0; template.len()];
        file.file().read_exact_at(&mut bytes, 0).map_err(failed("cannot read it"))?;
        check_variables(&bytes).map_err(|problem| layout(problem.to_owned()))?;
        let mut variables = Variables::volatile(&bytes)?;
        variables.file = Some(file);
        Ok(variables)
    }

    /// Returns the bytes as memory that can be mapped into the guest for reading. Its size is a
    /// multiple of 4 KiB.
    #[must_use]
    pub fn mapping(&self) -> &Arc<MmapRegion<()>> {
        &self.memory
    }

    /// Returns the file, for a thread that makes its changes durable, and its path. `None`: the
    /// variables are lost with the machine.
    #[must_use]
    pub fn file(&self) -> Option<(&File, &Path)> {
        self.file.as_ref().map(|file| (file.file(), file.path()))
    }

    /// Returns whether the file was written since the last call, so that it must be made durable.
    pub fn take_written(&mut self) -> bool {
        std::mem::take(&mut self.is_written)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.size()
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads `data` from `offset`. Bytes outside read as all ones.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        let Ok(offset) = usize::try_from(offset) else { return };
        let len = self.len().saturating_sub(offset).min(data.len());
        // The range is inside the memory, so the read cannot fail.
        let _ = self.memory.as_volatile_slice().read_slice(&mut data[..len], offset);
    }

    /// Stores `data` at `offset`, as far as it fits. It may stay pending until
    /// [`Variables::flush`].
    pub(super) fn program(&mut self, offset: usize, data: &[u8]) {
        let len = data.len().min(self.len().saturating_sub(offset));
        // Only bytes that follow each other are written at once: then the file has the guest's
        // order.
        if !self.pending.is_empty() && self.pending.end != offset {
            self.flush();
        }
        self.store(offset, &data[..len]);
        if self.pending.is_empty() {
            self.pending.start = offset;
        }
        self.pending.end = offset + len;
    }

    /// Sets `len` bytes from `offset` to FFh, as far as they exist.
    pub(super) fn erase(&mut self, offset: usize, len: usize) {
        self.flush();
        let len = len.min(self.len().saturating_sub(offset));
        self.store(offset, &vec![0xFF; len]);
        self.pending = offset..offset + len;
        self.flush();
    }

    /// Writes pending bytes to the file. An error is logged; the machine goes on with the bytes in
    /// memory.
    pub(super) fn flush(&mut self) {
        let range = std::mem::take(&mut self.pending);
        let Some(file) = self.file.as_ref().filter(|_| !range.is_empty()) else { return };
        let mut bytes = vec![0; range.len()];
        self.read(range.start as u64, &mut bytes);
        self.is_written = true;
        if let Err(error) = file.file().write_all_at(&bytes, range.start as u64) {
            let path = file.path().display();
            self.log.log(|suppressed| {
                warn!(
                    suppressed,
                    "{path}: firmware variables were not saved: {error}; the guest's change is \
                     lost when the machine ends"
                );
            });
        }
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        // The range is inside the memory, so the write cannot fail.
        let _ = self.memory.as_volatile_slice().write_slice(bytes, offset);
    }
}

impl Drop for Variables {
    fn drop(&mut self) {
        self.flush();
        if let Some(file) = &self.file
            && let Err(error) = file.file().sync_data()
        {
            warn!("{}: firmware variables may be lost: {error}", file.path().display());
        }
    }
}

/// Returns memory with these bytes, rounded up to whole pages.
fn copy(bytes: &[u8]) -> Result<Arc<MmapRegion<()>>, VariablesError> {
    let failed = |error: &dyn std::fmt::Display| VariablesError::Memory(error.to_string());
    let memory = MmapRegionBuilder::new(bytes.len().next_multiple_of(4096))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE)
        .build()
        .map_err(|error| failed(&error))?;
    memory.as_volatile_slice().write_slice(bytes, 0).map_err(|error| failed(&error))?;
    Ok(Arc::new(memory))
}

/// Creates a file with these bytes. It appears at `path` when it is complete, and never replaces
/// another file.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let partial = path.with_file_name(name);
    let written = write_new(&partial, bytes).and_then(|()| match fs::hard_link(&partial, path) {
        // Another machine has just created it: the lock decides.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without links.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => fs::rename(&partial, path),
        other => other,
    });
    let _ = fs::remove_file(&partial);
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
