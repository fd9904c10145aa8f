//! The saved state of a device's channel: JSON that begins with the number of its format.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Parses the saved state of a channel. Its field `format` must be `format`; it has at most
/// `max_bytes` bytes. The caller must validate the values.
///
/// # Errors
/// The state is not one that this program can have saved.
pub fn parse_saved<T: DeserializeOwned>(
    bytes: &[u8],
    format: u32,
    max_bytes: usize,
) -> Result<T, SavedFormError> {
    /// The format is read first, as the rest of an unknown format cannot be parsed.
    #[derive(Deserialize)]
    struct Begin {
        format: u32,
    }
    if bytes.len() > max_bytes {
        return Err(SavedFormError::TooLong);
    }
    let garbled = |_| SavedFormError::Garbled;
    let begin: Begin = serde_json::from_slice(bytes).map_err(garbled)?;
    if begin.format != format {
        return Err(SavedFormError::Format { saved: begin.format, known: format });
    }
    serde_json::from_slice(bytes).map_err(garbled)
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

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct State {
        format: u32,
        value: u8,
    }

    #[test]
    fn test_saved_state_of_a_wrong_form_is_refused_with_its_reason() {
        let parse = |text: &str| parse_saved::<State>(text.as_bytes(), 3, 30);
        assert_eq!(parse(r#"{"format":3,"value":7}"#), Ok(State { format: 3, value: 7 }));
        // The rest of another format is unknown.
        let other = SavedFormError::Format { saved: 4, known: 3 };
        assert_eq!(parse(r#"{"format":4,"other":[]}"#), Err(other));
        for text in ["", "{}", r#"{"format":3}"#, r#"{"format":3,"value":300}"#, r#"{"format":-1}"#]
        {
            assert_eq!(parse(text), Err(SavedFormError::Garbled), "{text}");
        }
        assert_eq!(parse(r#"{"format":3,"value":7        }"#).unwrap().value, 7);
        assert_eq!(parse(r#"{"format":3,"value":7         }"#), Err(SavedFormError::TooLong));
    }
}
