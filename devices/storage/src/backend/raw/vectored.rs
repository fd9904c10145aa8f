//! Vectored I/O to the last byte: what the system does in part is continued.

use std::io;

use crate::backend::IoError;

/// Most pieces of one preadv or pwritev (Linux's IOV_MAX).
pub(super) const MAX_PIECES: usize = libc::UIO_MAXIOV as usize;

/// Moves all bytes of `pieces` from or to `offset` on, by `step(pieces, offset)` -> bytes moved. Each step gets at most [`MAX_PIECES`].
///
/// Interrupted steps are repeated, short ones continued; `pieces` are shortened meanwhile.
pub(super) fn move_all(
    pieces: &mut [libc::iovec],
    mut offset: u64,
    mut step: impl FnMut(&[libc::iovec], u64) -> io::Result<usize>,
) -> Result<(), IoError> {
    let mut rest = pieces;
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(MAX_PIECES)];
        let moved = match step(batch, offset) {
            Ok(0) => return Err(IoError::EndOfImage),
            Ok(moved) => moved,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        offset += moved as u64;
        rest = skip(rest, moved);
    }
    Ok(())
}

/// The pieces after the first `bytes` bytes.
fn skip(mut pieces: &mut [libc::iovec], mut bytes: usize) -> &mut [libc::iovec] {
    while let Some((first, _)) = pieces.split_first_mut() {
        if bytes < first.iov_len {
            first.iov_base = first.iov_base.wrapping_byte_add(bytes);
            first.iov_len -= bytes;
            break;
        }
        bytes -= first.iov_len;
        pieces = &mut pieces[1..];
    }
    pieces
}
