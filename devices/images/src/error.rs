//! Reasons why an image cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::Format;

/// A reason why an image cannot be opened, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file itself cannot be opened.
    #[error(transparent)]
    File(#[from] synthvm_block::OpenError),
    /// Its name says raw, its content says otherwise. A guest can write any content into a raw
    /// image, so the format is not guessed here.
    #[error("disk image '{}' looks like {looks}, but its name does not say so; add format={looks} if it is one, or format=raw if its content is the guest's own",
        .path.display())]
    Ambiguous {
        /// The image.
        path: PathBuf,
        /// The format that its content has.
        looks: Format,
    },
    /// It does not have the format that was given.
    #[error("disk image '{}' is no {expected} image: {reason}; give its own format (its content looks like {looks})", .path.display())]
    WrongFormat {
        /// The image.
        path: PathBuf,
        /// The format that was given.
        expected: Format,
        /// The format that its content has.
        looks: Format,
        /// The part that is missing.
        reason: String,
    },
    /// Its structures contradict themselves or the file.
    #[error("disk image '{}' is damaged: {reason}; restore it from a copy, or see what can be saved with: synthvm image check '{}'",
        .path.display(), .path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// It seems sound, but its kind is not supported here.
    #[error("disk image '{}' cannot be used: {reason}; {advice}", .path.display())]
    Unsupported {
        /// The image.
        path: PathBuf,
        /// The feature that is not supported.
        reason: String,
        /// The remedy.
        advice: String,
    },
    /// The image that it differs from cannot be opened.
    #[error("disk image '{}' differs from a parent that cannot be used: {reason}", .path.display())]
    Parent {
        /// The image.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Reading it failed.
    #[error("cannot read disk image '{}'", .path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Why a file that an image names is not opened, and the remedy.
pub(crate) const REFUSED: &str = "it was to bring no other file along (parents=refuse, --no-parents); leave that away if its maker may choose \
    which files are read";

/// A flaw inside an image, where only the caller knows the image's name.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// The structures are wrong.
    Damaged(String),
    /// Not supported, and the remedy.
    Unsupported(String, String),
    /// The parent cannot be opened.
    Parent(String),
    /// The system's error.
    Io(io::Error),
}

impl Flaw {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    pub(crate) fn unsupported(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Unsupported(reason.into(), advice.into())
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
            io::ErrorKind::UnexpectedEof => {
                Self::damaged("the file ends where structures should be")
            }
            _ => Self::Io(error),
        }
    }
}
