//! Why an image cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::Format;

/// Why an image cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] synthvm_block::OpenError),
    /// Its name says raw, its content says otherwise. A guest can write any content into a raw image, so nobody guesses here.
    #[error("disk image '{}' looks like {looks}, but its name does not say so; add format={looks} if it is one, or format=raw if its content is the guest's own",
        .path.display())]
    Ambiguous {
        /// The image.
        path: PathBuf,
        /// What its content looks like.
        looks: Format,
    },
    /// It is not what it was said to be.
    #[error("disk image '{}' is no {expected} image: {reason}; give its own format (its content looks like {looks})", .path.display())]
    WrongFormat {
        /// The image.
        path: PathBuf,
        /// What it was said to be.
        expected: Format,
        /// What its content looks like.
        looks: Format,
        /// What is missing.
        reason: String,
    },
    /// Its structures contradict themselves or the file.
    #[error("disk image '{}' is damaged: {reason}; restore it from a copy, or see what can be saved with: synthvm image check '{}'",
        .path.display(), .path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Sound as far as one can see, but of a kind that is not supported here.
    #[error("disk image '{}' cannot be used: {reason}; {advice}", .path.display())]
    Unsupported {
        /// The image.
        path: PathBuf,
        /// What is not supported.
        reason: String,
        /// What to do instead.
        advice: String,
    },
    /// The image that it differs from.
    #[error("disk image '{}' differs from a parent that cannot be used: {reason}", .path.display())]
    Parent {
        /// The image.
        path: PathBuf,
        /// What is wrong with its parent.
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

/// Why a file that an image names is not opened, and what to do.
pub(crate) const REFUSED: &str = "it was to bring no other file along (parents=refuse, --no-parents); leave that away if its maker may choose \
    which files are read";

/// What is wrong inside an image, while its name is known only to the caller.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// The structures are wrong.
    Damaged(String),
    /// Not supported, and what to do.
    Unsupported(String, String),
    /// The parent.
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
            io::ErrorKind::UnexpectedEof => Self::damaged("the file ends where structures should be"),
            _ => Self::Io(error),
        }
    }
}
