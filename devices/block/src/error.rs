//! Why a request failed.

use std::io;

/// The reason why a request failed, as far as a guest can learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// No room is left where the image lies (ENOSPC, EDQUOT, EFBIG).
    #[error("no space is left for the image")]
    NoSpace,
    /// The image turned out to be read-only (EROFS, EPERM).
    #[error("the image cannot be written")]
    ReadOnly,
    /// The image ends before the disk does: it was shortened while it was in use.
    #[error("the image is shorter than when it was opened")]
    EndOfImage,
    /// An earlier flush failed. Its writes may be lost although later flushes
    /// would succeed, so none may claim to.
    #[error("an earlier flush of the image failed")]
    FlushLost,
    /// The medium cannot do this at all.
    #[error("the image's format cannot do this")]
    Unsupported,
    /// Any other error of the system, by number.
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
