//! The state that all queues of one raw image share.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vmbus_log::LogRateLimiter;

use super::call::{Call, Way};
use super::device;
use super::direct::{Align, Direct};
use super::fixed::FixedMemory;
use super::lock::Lock;
#[cfg(test)]
use crate::conformance::FaultPlan;
#[cfg(any(test, feature = "conformance"))]
use crate::conformance::powerloss::{Change, Trace};
use crate::{Extent, IoError};

/// An open image, with the facts about its storage that were found in use.
#[derive(Debug)]
pub(super) struct Image {
    /// The open file, which holds the lock.
    pub(super) file: Arc<Lock>,
    /// A second descriptor of the same file, for rings.
    pub(super) unlocked: Option<File>,
    pub(super) direct: Option<Direct>,
    pub(super) read_only: bool,
    pub(super) is_device: bool,
    capacity: AtomicU64,
    resizing: Mutex<()>,
    /// Whether a flush failed. The kernel reports a lost page once and then forgets it, so a later
    /// flush would wrongly succeed.
    flush_lost: AtomicBool,
    pub(super) lacks: Lacks,
    /// Serialises flushes of one descriptor, because the kernel reports lost data only to one of
    /// two concurrent flushes.
    pub(super) flushing: Mutex<()>,
    /// The memory that later queues register with their rings.
    pub(super) fixed: OnceLock<Arc<FixedMemory>>,
    fixed_calls: AtomicU64,
    /// Limits the log lines about queues, because a guest can open queues as often as it likes.
    pub(super) log: LogRateLimiter,
    #[cfg(test)]
    pub(super) faults: Option<FaultPlan>,
    /// Records all changes of the file.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) trace: Option<Trace>,
    /// Delays discards of a block device.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) discard_gate: Option<Arc<crate::conformance::Gate>>,
    /// Delays writes.
    #[cfg(test)]
    pub(super) write_gate: Option<Arc<crate::conformance::Gate>>,
}

/// Operations that the storage does not support. Each was tried once, and a substitute is used
/// since then.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    /// RWF_DSYNC. A forced write is then followed by a flush.
    pub(super) dsync: AtomicBool,
    /// FALLOC_FL_PUNCH_HOLE.
    pub(super) punching: AtomicBool,
    /// FALLOC_FL_ZERO_RANGE.
    pub(super) zeroing: AtomicBool,
    /// BLKDISCARD.
    pub(super) discarding: AtomicBool,
    /// RWF_NOWAIT for writes to the page cache. Not known before the first such write.
    pub(super) cached_nowait: OnceLock<bool>,
    /// RWF_NOWAIT for direct writes.
    pub(super) direct_nowait: AtomicBool,
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
            log: LogRateLimiter::default(),
            #[cfg(test)]
            faults: None,
            #[cfg(any(test, feature = "conformance"))]
            trace: None,
            #[cfg(any(test, feature = "conformance"))]
            discard_gate: None,
            #[cfg(test)]
            write_gate: None,
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    /// Makes `call` on this thread. Returns the result of the call, or a negative error number,
    /// like a ring's completion.
    pub(super) fn perform(&self, call: Call) -> i32 {
        #[cfg(test)]
        if let Some(result) = self.fault() {
            return result;
        }
        #[cfg(test)]
        if let (Call::Write { .. }, Some(gate)) = (call, &self.write_gate) {
            gate.pass();
        }
        #[cfg(any(test, feature = "conformance"))]
        if let (Call::DiscardBlocks { .. }, Some(gate)) = (call, &self.discard_gate) {
            gate.pass();
            return 0;
        }
        #[cfg(any(test, feature = "conformance"))]
        if let Some(trace) = &self.trace
            && let Some(ticket) = super::trace::issue(trace, call)
        {
            let result = self.make(call);
            super::trace::complete(trace, ticket, result);
            return result;
        }
        self.make(call)
    }

    fn make(&self, call: Call) -> i32 {
        let file = self.file_of(call.way());
        if self.lacks.cached_nowait.get().is_none()
            && let Some(result) = call.write_nowait(file)
        {
            let lacks = matches!(-result, libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS);
            let _ = self.lacks.cached_nowait.set(lacks);
            if result > 0 {
                return result;
            }
        }
        call.make(file)
    }

    /// Returns whether the kernel may make `call` of a ring wait for calls to other files. It
    /// leaves writes to files that cannot be done without a wait to threads of its own, sorted by
    /// inode into 64 queues for all rings of a thread. One write to a stalled file system then
    /// stops its queue (Linux io_uring/io-wq.c, `io_wq_hash_work`). Newer kernels except some
    /// direct writes.
    pub(super) fn is_queued_by_rings(&self, call: Call) -> bool {
        matches!(call, Call::Write { .. }) && !self.is_device
    }

    /// Returns whether a ring may try the write `call` without a wait.
    pub(super) fn may_write_nowait(&self, call: Call) -> bool {
        match call {
            Call::Write { way: Way::Direct, .. } if self.direct.is_some() => {
                !self.lacks.direct_nowait.load(Ordering::Relaxed)
            }
            // It waits for the storage in any case.
            Call::Write { durable: true, .. } => false,
            _ => self.lacks.cached_nowait.get() == Some(&false),
        }
    }

    /// Takes the result of a write that a ring has tried without a wait. Returns whether the write
    /// has to be made again in the normal way.
    pub(super) fn must_wait_to_write(&self, call: Call, result: i32) -> bool {
        if result == -libc::EOPNOTSUPP && matches!(call, Call::Write { durable: false, .. }) {
            self.lacks.direct_nowait.store(true, Ordering::Relaxed);
        }
        matches!(-result, libc::EAGAIN | libc::EOPNOTSUPP) && self.is_queued_by_rings(call)
    }

    /// Makes `call` on this thread if it reads and need not wait, as [`Call::read_nowait`] does.
    pub(super) fn read_nowait(&self, call: Call) -> Option<i32> {
        call.read_nowait(self.file_of(call.way()))
    }

    /// Returns the file for `way`. Without O_DIRECT both are the cached one.
    fn file_of(&self, way: Way) -> &File {
        match (way, &self.direct) {
            (Way::Direct, Some(direct)) => &direct.file,
            _ => &self.file,
        }
    }

    /// Returns the alignments of direct I/O, if it is in use.
    pub(super) fn align(&self) -> Option<Align> {
        self.direct.as_ref().map(Direct::align)
    }

    /// Returns whether all of the range is on the disk.
    pub(super) fn contains(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.capacity())
    }

    /// Refuses requests that promise durability after a flush was lost.
    pub(super) fn check_flushes(&self) -> Result<(), IoError> {
        if self.flush_lost.load(Ordering::Acquire) { Err(IoError::FlushLost) } else { Ok(()) }
    }

    /// Records that a flush failed, or a write that includes one.
    pub(super) fn lose_flush(&self) {
        self.flush_lost.store(true, Ordering::Release);
    }

    /// Checks that the file was not truncated by another program. Truncation loses data, even if
    /// later writes made the file long again, so no flush may succeed. The check is cheap compared
    /// with a flush.
    pub(super) fn check_length(&self) -> Result<(), IoError> {
        let shrank = !self.is_device && self.file.metadata()?.len() < self.capacity();
        if shrank { Err(IoError::EndOfImage) } else { Ok(()) }
    }

    /// Returns the extent at `offset`, as [`crate::Backend::extent`] does.
    pub(super) fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        let rest = self.capacity().saturating_sub(offset);
        let mapped = Extent { length: rest, mapped: true };
        if rest == 0 || self.is_device {
            return Ok(mapped);
        }
        match self.seek(offset, libc::SEEK_DATA) {
            // The rest of the file is a hole.
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

    /// Changes only the position of the descriptor, which no other code uses.
    fn seek(&self, offset: u64, whence: libc::c_int) -> io::Result<u64> {
        // SAFETY: plain numbers on an open descriptor.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), offset as libc::off_t, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    /// Changes the capacity, as [`crate::Backend::resize`] does. Files grow, durably. No file
    /// shrinks, as requests in flight would restore the truncated part.
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

    /// Flushes the file on this thread.
    fn sync(&self) -> Result<(), IoError> {
        self.check_flushes()?;
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.perform(Call::Sync);
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

    /// Adds `calls` to the number of calls with registered memory.
    pub(super) fn count_fixed(&self, calls: u64) {
        self.fixed_calls.fetch_add(calls, Ordering::Relaxed);
    }

    /// Returns the number of calls with registered memory, as [`crate::Backend::fixed_calls`] does.
    pub(super) fn fixed_calls(&self) -> Option<u64> {
        self.fixed.get().map(|_| self.fixed_calls.load(Ordering::Relaxed))
    }

    /// Makes the next access fail with an error.
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
