//! The state that all queues of one raw image share.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use vmbus_log::LogRateLimiter;

use super::call::{Call, Way};
use super::device;
use super::direct::{Align, Direct};
use super::fixed::FixedMemory;
use super::lock::Lock;
use super::threads::Pool;
#[cfg(test)]
use crate::conformance::FaultPlan;
#[cfg(any(test, feature = "conformance"))]
use crate::conformance::powerloss::{Change, Trace};
use crate::{Extent, IoError};

/// An open image, and facts about its storage that were found in use.
#[derive(Debug)]
pub(super) struct Image {
    /// Holds the lock.
    pub(super) file: Arc<Lock>,
    /// The same file, opened once more, for rings.
    pub(super) unlocked: Option<File>,
    pub(super) direct: Option<Direct>,
    pub(super) read_only: bool,
    pub(super) is_device: bool,
    capacity: AtomicU64,
    resizing: Mutex<()>,
    /// A flush failed. The kernel reports a lost page once and then forgets it, so a later flush
    /// would lie.
    flush_lost: AtomicBool,
    pub(super) lacks: Lacks,
    /// One flush at a time through one descriptor: the kernel tells only one of two that something
    /// was lost.
    pub(super) flushing: Mutex<()>,
    /// What queues that are made from now on register with their rings.
    pub(super) fixed: OnceLock<Arc<FixedMemory>>,
    fixed_calls: AtomicU64,
    /// The threads of the queues that are open, if they have any.
    pub(super) pool: Mutex<Weak<Pool>>,
    /// A guest opens queues as often as it likes, and each may log how the kernel serves it.
    pub(super) log: LogRateLimiter,
    #[cfg(test)]
    pub(super) faults: Option<FaultPlan>,
    /// Records all changes of the file.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) trace: Option<Trace>,
    /// Holds up discards of a block device.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) discard_gate: Option<Arc<crate::conformance::seam::DiscardGate>>,
}

/// Operations that the storage turned out not to support: tried once, then done otherwise.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    /// RWF_DSYNC: FUA takes a whole flush.
    pub(super) dsync: AtomicBool,
    /// FALLOC_FL_PUNCH_HOLE.
    pub(super) punching: AtomicBool,
    /// FALLOC_FL_ZERO_RANGE.
    pub(super) zeroing: AtomicBool,
    /// BLKDISCARD.
    pub(super) discarding: AtomicBool,
}

impl Image {
    pub(super) fn new(
        file: Arc<Lock>,
        direct: Option<Direct>,
        capacity: u64,
        read_only: bool,
        is_device: bool,
    ) -> Self {
        Self {
            file,
            unlocked: None,
            direct,
            read_only,
            is_device,
            capacity: AtomicU64::new(capacity),
            resizing: Mutex::default(),
            flush_lost: AtomicBool::new(false),
            lacks: Lacks::default(),
            flushing: Mutex::default(),
            fixed: OnceLock::new(),
            fixed_calls: AtomicU64::new(0),
            pool: Mutex::default(),
            log: LogRateLimiter::default(),
            #[cfg(test)]
            faults: None,
            #[cfg(any(test, feature = "conformance"))]
            trace: None,
            #[cfg(any(test, feature = "conformance"))]
            discard_gate: None,
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    /// The descriptor for `way`; without a direct one, all ways are cached.
    pub(super) fn descriptor(&self, way: Way) -> RawFd {
        match (way, &self.direct) {
            (Way::Direct, Some(direct)) => direct.file.as_raw_fd(),
            _ => self.file.as_raw_fd(),
        }
    }

    /// What direct I/O wants, where it is to be used.
    pub(super) fn align(&self) -> Option<Align> {
        self.direct.as_ref().map(Direct::align)
    }

    /// All of the range is on the medium.
    pub(super) fn contains(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.capacity())
    }

    /// Refuses whatever promises durability after a flush was lost.
    pub(super) fn check_flushes(&self) -> Result<(), IoError> {
        if self.flush_lost.load(Ordering::Acquire) { Err(IoError::FlushLost) } else { Ok(()) }
    }

    /// A flush, or a write that includes one, failed.
    pub(super) fn lose_flush(&self) {
        self.flush_lost.store(true, Ordering::Release);
    }

    /// A file that somebody shortened has lost data, even where later writes made it long again: no
    /// flush may vouch for it. Costs nothing beside a flush.
    pub(super) fn check_length(&self) -> Result<(), IoError> {
        let shrank = !self.is_device && self.file.metadata()?.len() < self.capacity();
        if shrank { Err(IoError::EndOfImage) } else { Ok(()) }
    }

    /// See [`crate::Backend::extent`].
    pub(super) fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        let rest = self.capacity().saturating_sub(offset);
        let mapped = Extent { length: rest, mapped: true };
        if rest == 0 || self.is_device {
            return Ok(mapped);
        }
        match self.seek(offset, libc::SEEK_DATA) {
            // Nothing but a hole up to the end.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                Ok(Extent { length: rest, mapped: false })
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(mapped),
            Err(error) => Err(error.into()),
            Ok(data) if data > offset => {
                Ok(Extent { length: rest.min(data - offset), mapped: false })
            }
            Ok(_) => {
                let hole = self.seek(offset, libc::SEEK_HOLE)?;
                Ok(Extent { length: rest.min(hole.saturating_sub(offset).max(1)), mapped: true })
            }
        }
    }

    /// Moves nothing but the descriptor's position, which nobody uses.
    fn seek(&self, offset: u64, whence: libc::c_int) -> io::Result<u64> {
        // SAFETY: plain numbers on an open descriptor.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), offset as libc::off_t, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    /// See [`crate::Backend::resize`]. Files grow, durably; nothing shrinks, as requests in
    /// flight would bring back what was cut off.
    pub(super) fn resize(&self, capacity: u64) -> Result<(), IoError> {
        let _one_at_a_time = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let invalid = IoError::Os(libc::EINVAL);
        if self.read_only {
            return Err(IoError::ReadOnly);
        }
        if capacity == 0 || !capacity.is_multiple_of(512) || i64::try_from(capacity).is_err() {
            return Err(invalid);
        }
        if self.is_device {
            let size = device::inspect(&self.file)?.size;
            if size != capacity {
                return Err(IoError::Unsupported);
            }
        } else if capacity < self.capacity() {
            return Err(IoError::Unsupported);
        } else if capacity > self.file.metadata()?.len() {
            self.set_length(capacity)?;
            self.sync()?;
        }
        self.capacity.store(capacity, Ordering::Release);
        Ok(())
    }

    /// A flush on this thread.
    fn sync(&self) -> Result<(), IoError> {
        self.check_flushes()?;
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = Call::Sync.perform(self);
        if result < 0 {
            self.lose_flush();
            return Err(io::Error::from_raw_os_error(-result).into());
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        #[cfg(any(test, feature = "conformance"))]
        if let Some(trace) = &self.trace {
            return trace.record(Change::Length(length), || self.file.set_len(length));
        }
        self.file.set_len(length)
    }

    /// So many calls more went to memory that the kernel had in place.
    pub(super) fn count_fixed(&self, calls: u64) {
        self.fixed_calls.fetch_add(calls, Ordering::Relaxed);
    }

    /// See [`crate::Backend::fixed_calls`].
    pub(super) fn fixed_calls(&self) -> Option<u64> {
        self.fixed.get().map(|_| self.fixed_calls.load(Ordering::Relaxed))
    }

    /// The error of the next access.
    #[cfg(test)]
    pub(super) fn fault(&self) -> Option<i32> {
        match self.faults.as_ref()?.strike() {
            Ok(()) => None,
            Err(IoError::NoSpace) => Some(-libc::ENOSPC),
            Err(IoError::Os(code)) => Some(-code),
            Err(_) => Some(-libc::EIO),
        }
    }
}
