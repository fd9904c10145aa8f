//! Synchronous I/O on the worker's own thread, straight between the guest's pages and the file.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::vectored::move_all;
use crate::backend::{IoDone, IoError, IoRequest, Operation, Queue};

/// What all queues of one image share.
#[derive(Debug)]
pub(super) struct Shared {
    file: File,
    capacity: u64,
    read_only: bool,
    /// A flush failed. The kernel reports a lost page once and then forgets it, so a later flush would lie.
    flush_lost: AtomicBool,
    /// The file system knows no RWF_DSYNC: FUA takes a whole flush.
    no_dsync: AtomicBool,
}

impl Shared {
    pub(super) fn new(file: File, capacity: u64, read_only: bool) -> Self {
        Self {
            file,
            capacity,
            read_only,
            flush_lost: AtomicBool::new(false),
            no_dsync: AtomicBool::new(false),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn execute(&self, request: &mut IoRequest) -> Result<(), IoError> {
        if request.offset.checked_add(request.length).is_none_or(|end| end > self.capacity) {
            return Err(IoError::EndOfImage);
        }
        let pieces = request.buffer.iovecs_mut();
        match request.operation {
            Operation::Read => move_all(pieces, request.offset, |pieces, at| self.read(pieces, at)),
            Operation::Flush if self.read_only => Ok(()),
            Operation::Flush => self.flush(),
            _ if self.read_only => Err(IoError::ReadOnly),
            Operation::Write { fua: false } => {
                move_all(pieces, request.offset, |pieces, at| self.write(pieces, at, 0))
            }
            Operation::Write { fua: true } => self.write_through(pieces, request.offset),
            Operation::Discard => Ok(()),
            Operation::WriteZeroes { .. } => self.write_zeroes(request.offset, request.length),
        }
    }

    fn write_zeroes(&self, mut offset: u64, length: u64) -> Result<(), IoError> {
        static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
        let end = offset + length;
        while offset < end {
            let len = (end - offset).min(ZEROES.len() as u64) as usize;
            let base = ZEROES.as_ptr().cast_mut().cast();
            let mut piece = [libc::iovec { iov_base: base, iov_len: len }];
            move_all(&mut piece, offset, |pieces, at| self.write(pieces, at, 0))?;
            offset += len as u64;
        }
        Ok(())
    }

    /// Writes so that the bytes are durable before this returns.
    fn write_through(&self, pieces: &mut [libc::iovec], offset: u64) -> Result<(), IoError> {
        if self.flush_lost.load(Ordering::Acquire) {
            return Err(IoError::FlushLost);
        }
        if self.no_dsync.load(Ordering::Relaxed) {
            move_all(pieces, offset, |pieces, at| self.write(pieces, at, 0))?;
            return self.flush();
        }
        let mut unsupported = false;
        let written = move_all(pieces, offset, |pieces, at| {
            let result = self.write(pieces, at, libc::RWF_DSYNC);
            unsupported = matches!(&result, Err(error) if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
            ));
            result
        });
        match written {
            Err(_) if unsupported => {
                self.no_dsync.store(true, Ordering::Relaxed);
                // `pieces` still holds all that was not written: nothing of a refused call was, and none came before it.
                move_all(pieces, offset, |pieces, at| self.write(pieces, at, 0))?;
                self.flush()
            }
            Err(IoError::Os(libc::EIO)) => {
                self.flush_lost.store(true, Ordering::Release);
                written
            }
            _ => written,
        }
    }

    fn flush(&self) -> Result<(), IoError> {
        if self.flush_lost.load(Ordering::Acquire) {
            return Err(IoError::FlushLost);
        }
        loop {
            // SAFETY: the descriptor is open while `self` lives.
            if unsafe { libc::fdatasync(self.file.as_raw_fd()) } == 0 {
                return self.check_length();
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                self.flush_lost.store(true, Ordering::Release);
                return Err(error.into());
            }
        }
    }

    /// A file that somebody shortened has lost data, even where later writes made it long again: no flush may vouch for it. Costs
    /// nothing beside a flush. Block devices report length 0.
    fn check_length(&self) -> Result<(), IoError> {
        let metadata = self.file.metadata()?;
        if metadata.is_file() && metadata.len() < self.capacity { Err(IoError::EndOfImage) } else { Ok(()) }
    }

    fn read(&self, pieces: &[libc::iovec], offset: u64) -> io::Result<usize> {
        let (count, offset) = arguments(pieces, offset)?;
        // SAFETY: each piece lies in memory that the request's buffer keeps mapped and that is meant to be written; the descriptor is open.
        moved(unsafe { libc::preadv(self.file.as_raw_fd(), pieces.as_ptr(), count, offset) })
    }

    fn write(&self, pieces: &[libc::iovec], offset: u64, flags: libc::c_int) -> io::Result<usize> {
        let (count, offset) = arguments(pieces, offset)?;
        let fd = self.file.as_raw_fd();
        // SAFETY: each piece lies in memory that the request's buffer keeps mapped; the descriptor is open.
        moved(unsafe {
            match flags {
                0 => libc::pwritev(fd, pieces.as_ptr(), count, offset),
                _ => libc::pwritev2(fd, pieces.as_ptr(), count, offset, flags),
            }
        })
    }
}

/// One worker's queue: everything is finished when `submit` returns.
pub(super) struct RawQueue {
    shared: Arc<Shared>,
    done: Vec<IoDone>,
}

impl RawQueue {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, done: Vec::new() }
    }
}

impl Queue for RawQueue {
    fn submit(&mut self, requests: &mut Vec<IoRequest>) {
        for mut request in requests.drain(..) {
            let result = self.shared.execute(&mut request);
            self.done.push(IoDone { id: request.id, result, copied: 0, buffer: request.buffer });
        }
    }

    fn poll(&mut self, done: &mut Vec<IoDone>) {
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        None
    }
}

fn arguments(pieces: &[libc::iovec], offset: u64) -> io::Result<(libc::c_int, libc::off_t)> {
    let out_of_range = || io::Error::from_raw_os_error(libc::EINVAL);
    let count = pieces.len().try_into().map_err(|_| out_of_range())?;
    let offset = offset.try_into().map_err(|_| out_of_range())?;
    Ok((count, offset))
}

fn moved(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
