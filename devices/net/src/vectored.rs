//! System calls that move a frame and what stands before it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::vlan::{self, Tag};
use crate::{Frame, Pieces};

/// A list of iovecs that each call fills, so that none allocates. Empty between calls.
#[derive(Default)]
pub(crate) struct Vectors(Vec<libc::iovec>);

// SAFETY: the list is empty between calls, and each call is on one thread.
unsafe impl Send for Vectors {}

/// The kind of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A character device: `readv`, `writev`.
    Device,
    /// A socket: `recvmsg`, `sendmsg`, without signal and without blocking.
    Socket,
}

impl Vectors {
    /// Writes `head` and the frame with its tag. Returns the bytes written.
    pub(crate) fn write(
        &mut self,
        fd: BorrowedFd<'_>,
        kind: Kind,
        head: &[u8],
        frame: &Frame<'_>,
    ) -> io::Result<usize> {
        let tag = frame.tag.map(Tag::to_bytes);
        self.append(head);
        match &tag {
            None => self.0.extend_from_slice(frame.pieces.iovecs()),
            Some(tag) => {
                self.append_pieces(frame.pieces, 0, vlan::OFFSET);
                self.append(tag);
                self.append_pieces(frame.pieces, vlan::OFFSET, usize::MAX);
            }
        }
        let fd = fd.as_raw_fd();
        let written = match kind {
            // SAFETY: the iovecs name `head`, `tag` and guest memory, which all outlive the call;
            // the kernel only reads them, and tolerates the guest's writes.
            Kind::Device => unsafe { libc::writev(fd, self.0.as_ptr(), self.count()) },
            Kind::Socket => {
                let message = self.message();
                // SAFETY: as above; the message has no name and no control data.
                unsafe { libc::sendmsg(fd, &raw const message, FLAGS | libc::MSG_NOSIGNAL) }
            }
        };
        self.0.clear();
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Reads one message into `head`, `space` and `tail`. Returns its bytes. A stream fills as much
    /// as there is.
    pub(crate) fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        kind: Kind,
        head: &mut [u8],
        space: &Pieces<'_>,
        tail: &mut [u8],
    ) -> io::Result<usize> {
        self.append_mut(head);
        self.0.extend_from_slice(space.iovecs());
        self.append_mut(tail);
        let fd = fd.as_raw_fd();
        let read = match kind {
            // SAFETY: the iovecs name `head`, guest memory and `tail`, which outlive the call and
            // may be written.
            Kind::Device => unsafe { libc::readv(fd, self.0.as_ptr(), self.count()) },
            Kind::Socket => {
                let mut message = self.message();
                // SAFETY: as above; the message has no name and no control data.
                unsafe { libc::recvmsg(fd, &raw mut message, FLAGS) }
            }
        };
        self.0.clear();
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Appends bytes that the kernel only reads.
    fn append(&mut self, bytes: &[u8]) {
        self.0
            .push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
    }

    fn append_mut(&mut self, bytes: &mut [u8]) {
        self.0.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
    }

    /// Appends up to `length` bytes of `pieces` from `offset` on.
    fn append_pieces(&mut self, pieces: &Pieces<'_>, offset: usize, length: usize) {
        let (mut skip, mut left) = (offset, length);
        for piece in pieces.iovecs() {
            let begin = skip.min(piece.iov_len);
            let take = left.min(piece.iov_len - begin);
            skip -= begin;
            left -= take;
            if take != 0 {
                let iov_base = piece.iov_base.wrapping_byte_add(begin);
                self.0.push(libc::iovec { iov_base, iov_len: take });
            }
        }
    }

    fn message(&mut self) -> libc::msghdr {
        // SAFETY: all zeroes is a message without name, control data and flags.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.0.as_mut_ptr();
        message.msg_iovlen = self.0.len();
        message
    }

    /// At most `MAX_PIECES` and four more, below the kernel's limit of 1024.
    fn count(&self) -> libc::c_int {
        self.0.len() as libc::c_int
    }
}

const FLAGS: libc::c_int = libc::MSG_DONTWAIT;
