//! Shutdown: power off, restart, hibernate. Source: docs/spec/integration-services.md, section 4.

use serde::{Deserialize, Serialize};

use super::{TextError, Version, encode_into};

/// Bytes of a request's body. Linux requires all of them.
const BODY: usize = 2060;

/// Offset of the text.
const TEXT: usize = 12;

/// SHTDN_REASON_FLAG_PLANNED.
const PLANNED: u32 = 0x8000_0000;

/// The action that the guest is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownMode {
    /// The guest powers itself off.
    #[default]
    PowerOff,
    /// The guest restarts.
    Restart,
    /// The guest saves its memory to its disk and powers itself off.
    Hibernate,
}

impl ShutdownMode {
    /// Returns the first version of the messages with this action.
    pub fn since(self) -> Version {
        match self {
            Self::PowerOff => Version::new(1, 0),
            Self::Restart => Version::new(3, 1),
            Self::Hibernate => Version::new(3, 2),
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::PowerOff => 0,
            Self::Restart => 2,
            Self::Hibernate => 4,
        }
    }
}

/// Returns the body of a request. `force`: the guest does not wait for programs that refuse to end.
/// `seconds`: the time that the guest gives its users.
///
/// # Errors
/// The text does not fit.
pub fn request(
    mode: ShutdownMode,
    force: bool,
    seconds: u32,
    text: &str,
) -> Result<Vec<u8>, TextError> {
    let mut body = vec![0; BODY];
    let flags = mode.flags() | u32::from(force);
    let words = [PLANNED, seconds, flags].into_iter().flat_map(u32::to_le_bytes);
    body.iter_mut().zip(words).for_each(|(place, byte)| *place = byte);
    encode_into(text, body.get_mut(TEXT..).unwrap_or_default())?;
    Ok(body)
}
