//! Reasons why an image cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::Format;

/// A reason why an image cannot be opened, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened.
    #[error(transparent)]
    File(#[from] synthvm_block::OpenError),
    /// The name of the file says raw, its content says otherwise. A guest can write any content
    /// into a raw image, so the format is not guessed here.
    #[error("disk image '{}' looks like {looks}, but its name does not say so; add format={looks} \
        if it is one, or format=raw if its content is the guest's own",
        .path.display())]
    Ambiguous {
        /// The image.
        path: PathBuf,
        /// The format that its content has.
        looks: Format,
    },
    /// The image does not have the format that was given.
    #[error("disk image '{}' is no {expected} image: {reason}; give its own format (its content \
        looks like {looks})", .path.display())]
    WrongFormat {
        /// The image.
        path: PathBuf,
        /// The format that was given.
        expected: Format,
        /// The format that its content has.
        looks: Format,
        /// The missing part of the format.
        reason: String,
    },
    /// The image's structures contradict each other or the file.
    #[error("disk image '{}' is damaged: {reason}; restore it from a copy, or check it with: \
        synthvm image check '{}'",
        .path.display(), .path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// The image seems sound, but its kind is not supported here.
    #[error("disk image '{}' cannot be used: {reason}; {advice}", .path.display())]
    Unsupported {
        /// The image.
        path: PathBuf,
        /// The feature that is not supported.
        reason: String,
        /// The remedy.
        advice: String,
    },
    /// The parent of the image cannot be opened.
    #[error("disk image '{}' differs from a parent that cannot be used: {reason}", .path.display())]
    Parent {
        /// The image.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The image cannot be read.
    #[error("cannot read disk image '{}'", .path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The reason to refuse a file that an image names, and the remedy.
pub(crate) const REFUSED: &str = "no image may name other files here (parents=refuse, \
    --no-parents); leave that option out if you trust the image's \
    author";

/// A flaw inside an image. The caller adds the image's name.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// The structures are wrong.
    Damaged(String),
    /// A feature that is not supported, and the remedy.
    Unsupported(String, String),
    /// The parent cannot be opened.
    Parent(String),
    /// An error of the operating system.
    Io(io::Error),
}

impl Flaw {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    pub(crate) fn unsupported(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Unsupported(reason.into(), advice.into())
    }

    /// Returns the flaw of a structure that has `bytes` bytes, where at most `limit` are supported.
    pub(crate) fn too_large(what: &str, bytes: u64, limit: u64, advice: impl Into<String>) -> Self {
        let (size, limit) = (bytes >> 20, limit >> 20);
        let reason = format!("its {what} has {size} MiB, and at most {limit} MiB are supported");
        Self::unsupported(reason, advice)
    }

    /// Returns the flaw of an image whose parent cannot be opened. It names the innermost image
    /// with a flaw; the images above that one only pass it on.
    pub(crate) fn of_parent(error: OpenError) -> Self {
        match error {
            OpenError::Parent { reason, .. } => Self::Parent(reason),
            other => Self::Parent(other.to_string()),
        }
    }

    pub(crate) fn of(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Damaged(reason) => OpenError::Damaged { path, reason },
            Self::Unsupported(reason, advice) => OpenError::Unsupported { path, reason, advice },
            Self::Parent(reason) => OpenError::Parent { path, reason },
            Self::Io(source) => OpenError::Read { path, source },
        }
    }
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::damaged("the file ends within its structures"),
            _ => Self::Io(error),
        }
    }
}
