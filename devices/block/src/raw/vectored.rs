//! Continuation of a partial vectored transfer.

/// Removes `bytes` from the front of `pieces`: counts the used pieces, and shortens the next one.
pub(super) fn skip(pieces: &mut [libc::iovec], mut bytes: usize) -> usize {
    let mut used_up = 0;
    for piece in pieces {
        if bytes < piece.iov_len {
            piece.iov_base = piece.iov_base.wrapping_byte_add(bytes);
            piece.iov_len -= bytes;
            break;
        }
        bytes -= piece.iov_len;
        used_up += 1;
    }
    used_up
}
