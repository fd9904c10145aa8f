//! Errors of requests.

use std::io;

/// The error of a request, as far as a guest can learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The host's storage has no space left for the image (ENOSPC, EDQUOT, EFBIG).
    #[error("no space is left for the image")]
    NoSpace,
    /// The image is read-only (EROFS, EPERM).
    #[error("the image cannot be written")]
    ReadOnly,
    /// The image is shorter than the disk: it was truncated while in use.
    #[error("the image is shorter than when it was opened")]
    EndOfImage,
    /// An earlier flush failed. Its writes may be lost even if a later flush succeeds, so all later
    /// flushes fail.
    #[error("an earlier flush of the image failed")]
    FlushLost,
    /// The backend does not support the operation.
    #[error("the image's format cannot do this")]
    Unsupported,
    /// Another error of the system, by errno.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Os(i32),
}

impl From<io::Error> for IoError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::NoSpace,
            Some(libc::EROFS | libc::EPERM) => Self::ReadOnly,
            Some(code) => Self::Os(code),
            None => Self::Os(libc::EIO),
        }
    }
}
