//! The saved state of a device's channel: JSON that begins with the number of its format.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Quiesced, SavedPacket};

/// The form of the saved states of a device: the number of its format, and the maximum length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedForm {
    format: u32,
    max_bytes: usize,
}

/// The saved state of one channel, for handlers that save nothing but their state. Serialised, it
/// has the fields `format`, `packets` and `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SavedChannel<S> {
    format: u32,
    /// Packets to the guest that are not in its ring yet, oldest first.
    pub packets: Vec<SavedPacket>,
    /// The state of the handler.
    pub state: S,
}

impl SavedForm {
    /// Returns the form of states of `format` with at most `max_bytes` bytes. A device must
    /// increment its `format` with each change of the types that it saves: only states of the same
    /// format are read.
    #[must_use]
    pub const fn new(format: u32, max_bytes: usize) -> Self {
        Self { format, max_bytes }
    }

    /// Returns the number of the format, for types that have it as a field of their own.
    #[must_use]
    pub const fn format(self) -> u32 {
        self.format
    }

    /// Serialises the state of a quiesced channel. `None`: it is too long, or cannot be serialised.
    pub(crate) fn channel_to_bytes<S: Serialize>(self, quiesced: Quiesced<S>) -> Option<Vec<u8>> {
        let Quiesced { packets, state } = quiesced;
        self.to_bytes(&SavedChannel { format: self.format, packets, state })
    }

    /// Serialises a state, whose field `format` must be [`SavedForm::format`]. `None`: it is too
    /// long, or cannot be serialised.
    pub fn to_bytes<T: Serialize>(self, state: &T) -> Option<Vec<u8>> {
        serde_json::to_vec(state).ok().filter(|bytes| bytes.len() <= self.max_bytes)
    }

    /// Parses a state: a [`SavedChannel`], or a type of the device's own with a field `format`. The
    /// caller must validate the values.
    ///
    /// # Errors
    /// The state is not one that this program can have saved.
    pub fn parse<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, SavedFormError> {
        /// The format is read first, as the rest of an unknown format cannot be parsed.
        #[derive(Deserialize)]
        struct Begin {
            format: u32,
        }
        if bytes.len() > self.max_bytes {
            return Err(SavedFormError::TooLong);
        }
        let garbled = |_| SavedFormError::Garbled;
        let begin: Begin = serde_json::from_slice(bytes).map_err(garbled)?;
        if begin.format != self.format {
            return Err(SavedFormError::Format { saved: begin.format, known: self.format });
        }
        serde_json::from_slice(bytes).map_err(garbled)
    }
}

/// The error of a saved state that has a wrong form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedFormError {
    /// It is longer than any state of the device.
    #[error("it is too long")]
    TooLong,
    /// It is no JSON, or has other fields.
    #[error("it cannot be parsed")]
    Garbled,
    /// Another version of the program saved it.
    #[error("it has format {saved}, this program reads only {known}")]
    Format {
        /// The state's format.
        saved: u32,
        /// The only format that the device reads.
        known: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: SavedForm = SavedForm::new(3, 40);

    #[test]
    fn test_saved_state_of_a_wrong_form_is_refused_with_its_reason() {
        let parse = |text: &str| FORM.parse::<SavedChannel<u8>>(text.as_bytes());
        let saved = SavedChannel { format: 3, packets: Vec::new(), state: 7 };
        assert_eq!(parse(r#"{"format":3,"packets":[],"state":7}"#), Ok(saved));
        // The rest of another format is unknown.
        let other = SavedFormError::Format { saved: 4, known: 3 };
        assert_eq!(parse(r#"{"format":4,"other":[]}"#), Err(other));
        for text in [
            "",
            "{}",
            r#"{"format":3}"#,
            r#"{"format":3,"packets":[],"state":300}"#,
            r#"{"format":3,"packets":[],"state":7,"a":1}"#,
            r#"{"format":-1}"#,
        ] {
            let expected = match text.len() {
                41.. => SavedFormError::TooLong,
                _ => SavedFormError::Garbled,
            };
            assert_eq!(parse(text), Err(expected), "{text}");
        }
        assert_eq!(parse(r#"{"format":3,"packets":[],"state":7     }"#).unwrap().state, 7);
        let long = parse(r#"{"format":3,"packets":[],"state":7      }"#);
        assert_eq!(long, Err(SavedFormError::TooLong));
    }

    #[test]
    fn test_saved_state_is_written_as_it_is_read_or_not_at_all_when_too_long() {
        let save = |state: &str| FORM.channel_to_bytes(Quiesced::new(Vec::new(), state.to_owned()));
        let bytes = save("1234").unwrap();
        let saved: SavedChannel<String> = FORM.parse(&bytes).unwrap();
        assert_eq!((saved.packets.len(), saved.state.as_str(), bytes.len()), (0, "1234", 40));
        assert_eq!(save("12345"), None);
    }
}
