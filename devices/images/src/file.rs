//! The file of an image, for the structures that a format stores beside the disk's bytes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

#[cfg(test)]
use synthvm_block::conformance::{FaultPlan, powerloss};
use synthvm_block::{Backend, IoError, LockedFile, RawFile};

use crate::OpenOptions;
use crate::error::OpenError;

/// Opens and locks the file at `path`. All later accesses use this file, even if the path then
/// names another one.
pub(crate) fn lock(path: &Path, read_only: bool) -> Result<LockedFile, OpenError> {
    Ok(LockedFile::open(path, read_only)?)
}

/// An open image file. The disk's bytes move through [`Self::raw`]. Structures move through the
/// page cache, by the methods here.
#[derive(Debug)]
pub(crate) struct ImageFile {
    raw: Arc<dyn Backend>,
    cached: File,
    #[cfg(test)]
    faults: Option<FaultPlan>,
    #[cfg(test)]
    pub(crate) probe: Arc<crate::testing::Probe>,
    /// Records changes of structures. [`Self::raw`] records those of the disk's bytes.
    #[cfg(test)]
    trace: Option<powerloss::Trace>,
}

/// A change of structures, for the tests that record it or make it fail.
#[derive(Clone, Copy)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests look inside"))]
enum Change<'a> {
    Write { bytes: &'a [u8], offset: u64 },
    Zero { offset: u64, length: u64 },
    Length(u64),
    Sync,
}

impl ImageFile {
    /// Opens and locks the file at `path`, which may have any length.
    #[cfg(test)]
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        Self::of_locked_any_length(&LockedFile::open(path, options.read_only)?, options)
    }

    /// Returns the image file for `locked`, whose length is a multiple of a sector.
    pub(crate) fn of_locked(locked: &LockedFile, options: &OpenOptions) -> Result<Self, OpenError> {
        Self::of_raw(locked, options, RawFile::from_locked(locked, &options.raw())?)
    }

    /// Returns the image file for `locked`, of any length. The disk's bytes lie in its whole
    /// sectors.
    pub(crate) fn of_locked_any_length(
        locked: &LockedFile,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        Self::of_raw(locked, options, RawFile::container(locked, &options.raw())?)
    }

    fn of_raw(locked: &LockedFile, options: &OpenOptions, raw: RawFile) -> Result<Self, OpenError> {
        let path = locked.path();
        #[cfg(test)]
        let mut raw = raw;
        // This opens the locked file, even if its path now names another one. The raw backend's
        // flags are left out, as structures need not be aligned.
        let link = format!("/proc/self/fd/{}", raw.as_fd().as_raw_fd());
        let cached = File::options()
            .read(true)
            .write(!options.read_only)
            .open(link)
            .map_err(|source| OpenError::Read { path: path.to_owned(), source })?;
        #[cfg(test)]
        let trace = match options.recorder.as_ref().filter(|_| !options.read_only) {
            Some(recorder) => {
                let failed = |source| OpenError::Read { path: path.to_owned(), source };
                raw.record(recorder).map_err(failed)?;
                Some(
                    recorder
                        .attach(path, &cached, powerloss::Source::Structures)
                        .map_err(failed)?,
                )
            }
            None => None,
        };
        Ok(Self {
            raw: Arc::new(raw),
            cached,
            #[cfg(test)]
            faults: None,
            #[cfg(test)]
            probe: Arc::default(),
            #[cfg(test)]
            trace,
        })
    }

    /// Makes every access fail as `plan` says, to structures and to the disk's bytes. A lost flush
    /// stays lost.
    #[cfg(test)]
    pub(crate) fn fail(&mut self, plan: &FaultPlan) {
        use std::sync::atomic::{AtomicBool, Ordering};
        use synthvm_block::{Fault, Faulty, Operation};
        let (judge, lost) = (plan.clone(), AtomicBool::new(false));
        self.raw = Arc::new(Faulty::new(Arc::clone(&self.raw), move |request| {
            let is_flush = request.operation == Operation::Flush;
            match judge.strike() {
                _ if is_flush && lost.load(Ordering::Relaxed) => Fault::Fail(IoError::FlushLost),
                Ok(()) => Fault::None,
                Err(error) => {
                    lost.fetch_or(is_flush, Ordering::Relaxed);
                    Fault::Fail(error)
                }
            }
        }));
        self.faults = Some(plan.clone());
    }

    /// Replaces the backend that moves the disk's bytes.
    #[cfg(test)]
    pub(crate) fn wrap_raw(&mut self, wrap: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>) {
        self.raw = wrap(Arc::clone(&self.raw));
    }

    /// Returns the backend that moves the file's bytes.
    pub(crate) fn raw(&self) -> &Arc<dyn Backend> {
        &self.raw
    }

    /// Returns the length of the file in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        let metadata = self.cached.metadata()?;
        Ok(if metadata.is_file() { metadata.len() } else { self.raw.geometry().capacity })
    }

    /// Returns whether the file is a regular file, which can grow and be truncated, and not a
    /// device.
    pub(crate) fn is_regular(&self) -> io::Result<bool> {
        Ok(self.cached.metadata()?.is_file())
    }

    /// Returns the number of bytes that the file takes up.
    pub(crate) fn allocated(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.cached.metadata()?.blocks() * 512)
    }

    /// Reads all of `bytes`.
    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.cached.read_exact_at(bytes, offset)
    }

    /// Writes all of `bytes`. The write survives this process, and a crash of the machine after
    /// [`Self::sync`].
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { bytes, offset }, || self.cached.write_all_at(bytes, offset))
    }

    /// Makes all writes and the file's length durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.change(Change::Sync, || self.cached.sync_all())
    }

    /// Extends the file to `length` bytes, which must be at least its present length. Durable after
    /// [`Self::sync`].
    pub(crate) fn grow(&self, length: u64) -> Result<(), IoError> {
        // The raw backend makes a length durable that it sets, but not a length that the file
        // already has.
        if self.cached.metadata()?.is_file() && self.len()? < length {
            self.change(Change::Length(length), || self.cached.set_len(length))?;
        }
        self.raw.resize(length)
    }

    /// Truncates the file to `length` bytes. [`Self::raw`] must not be used afterwards.
    pub(crate) fn cut(&self, length: u64) -> Result<(), IoError> {
        if self.cached.metadata()?.is_file() {
            self.change(Change::Length(length), || self.cached.set_len(length))?;
        }
        Ok(())
    }

    /// Makes a range of the file read as zero, without writing bytes if the file system can.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<(), IoError> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        if self.punch(offset, length)? {
            return Ok(());
        }
        for at in (0..length).step_by(ZEROES.len()) {
            let len = (length - at).min(ZEROES.len() as u64) as usize;
            self.write(&ZEROES[..len], offset + at)?;
        }
        Ok(())
    }

    /// Releases the space of a range, which then reads as zero. Returns false if the file system
    /// cannot do that.
    pub(crate) fn punch(&self, offset: u64, length: u64) -> Result<bool, IoError> {
        if length == 0 {
            return Ok(true);
        }
        let call = || {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
            let begin = libc::off_t::try_from(offset).map_err(invalid)?;
            let length = libc::off_t::try_from(length).map_err(invalid)?;
            // SAFETY: plain integers; the descriptor is open while `self` lives.
            match unsafe { libc::fallocate(self.cached.as_raw_fd(), mode, begin, length) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        loop {
            match self.change(Change::Zero { offset, length }, call) {
                Ok(()) => return Ok(true),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV) => return Ok(false),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Runs `call`, which changes structures. Tests record the change, or make it fail.
    fn change<T>(&self, change: Change<'_>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        #[cfg(test)]
        {
            if let Some(Err(error)) = self.faults.as_ref().map(FaultPlan::strike) {
                let code = if let IoError::Os(code) = error { code } else { libc::ENOSPC };
                return Err(io::Error::from_raw_os_error(code));
            }
            match change {
                Change::Write { bytes, .. } => self.probe.write(bytes.len()),
                Change::Sync => self.probe.sync()?,
                Change::Zero { .. } | Change::Length(_) => {}
            }
            if let Some(trace) = &self.trace {
                return trace.record(change.into(), call);
            }
        }
        let _ = change;
        call()
    }
}

#[cfg(test)]
impl From<Change<'_>> for powerloss::Change {
    fn from(change: Change<'_>) -> Self {
        match change {
            Change::Write { bytes, offset } => {
                Self::Write { offset, bytes: bytes.to_vec(), durable: false }
            }
            Change::Zero { offset, length } => Self::Zero { offset, length },
            Change::Length(length) => Self::Length(length),
            Change::Sync => Self::Sync,
        }
    }
}
