//! The agreement on versions of the framework and of a service's messages.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ServiceKind;

/// A version: major, minor. Ordered from old to new.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// Returns the version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    pub(super) fn to_bytes(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.major.to_le_bytes(), self.minor.to_le_bytes());
        [a, b, c, d]
    }

    fn from_bytes([a, b, c, d]: [u8; 4]) -> Self {
        Self { major: u16::from_le_bytes([a, b]), minor: u16::from_le_bytes([c, d]) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The versions on which host and guest have agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// The version of the framework.
    pub framework: Version,
    /// The version of the service's messages.
    pub message: Version,
}

/// The guest's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Agreed(Agreed),
    /// The guest supports no version that the host offered.
    None,
    /// The guest chose a version that the host did not offer, or none of the forms of an answer.
    Invalid,
}

/// Returns the body of the request: the number of versions of the framework and of the messages,
/// then all versions.
pub(super) fn offer(kind: ServiceKind) -> Vec<u8> {
    let (frameworks, versions) = (kind.frameworks(), kind.versions());
    let count = |list: &[Version]| u16::try_from(list.len()).unwrap_or(u16::MAX).to_le_bytes();
    let mut body = [count(frameworks), count(versions), [0; 2], [0; 2]].concat();
    body.extend(frameworks.iter().chain(versions).flat_map(|version| version.to_bytes()));
    body
}

/// Reads the answer's body.
pub(super) fn answer(kind: ServiceKind, body: &[u8]) -> Answer {
    let (words, _) = body.as_chunks::<2>();
    let counts = words.first_chunk().map(|[one, other]| [one, other].map(|n| *n));
    match counts.map(|counts| counts.map(u16::from_le_bytes)) {
        Some([0, 0]) => return Answer::None,
        Some([1, 1]) => {}
        Some(_) | None => return Answer::Invalid,
    }
    let (fields, _) = body.as_chunks::<4>();
    let [_, _, framework, message, ..] = fields else { return Answer::Invalid };
    let [framework, message] = [framework, message].map(|bytes| Version::from_bytes(*bytes));
    let is_offered = kind.frameworks().contains(&framework) && kind.versions().contains(&message);
    if is_offered { Answer::Agreed(Agreed { framework, message }) } else { Answer::Invalid }
}
