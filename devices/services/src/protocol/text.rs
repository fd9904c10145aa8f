//! UTF-16 texts in fields of a fixed size, terminated by a NUL.

/// The error of a text that does not fit its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The text is too long.
    #[error("it has {length} UTF-16 code units; at most {max} fit")]
    TooLong {
        /// Code units of the text.
        length: usize,
        /// Maximum number of code units.
        max: usize,
    },
    /// The text has a NUL, which would end it.
    #[error("it contains a NUL character")]
    Nul,
}

/// Writes a text and its NUL to the start of `field`, the rest of which is unchanged. Returns the
/// bytes written, including those of the NUL.
///
/// # Errors
/// The text does not fit, or contains a NUL.
pub fn encode_into(text: &str, field: &mut [u8]) -> Result<usize, TextError> {
    if text.contains('\0') {
        return Err(TextError::Nul);
    }
    let (length, max) = (text.encode_utf16().count(), (field.len() / 2).saturating_sub(1));
    if length > max {
        return Err(TextError::TooLong { length, max });
    }
    let (units, _) = field.as_chunks_mut::<2>();
    for (place, unit) in units.iter_mut().zip(text.encode_utf16().chain([0])) {
        *place = unit.to_le_bytes();
    }
    Ok((length + 1) * 2)
}

/// Reads a text up to its NUL, or to the end of the field without one. Invalid code units become
/// U+FFFD, so that any bytes are a text.
pub fn decode(field: &[u8]) -> String {
    let (units, _) = field.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_text_that_fills_its_field_is_written_and_one_more_unit_is_refused() {
        let mut field = [0xEE; 8];
        assert_eq!(encode_into("aé\u{20AC}", &mut field), Ok(8));
        assert_eq!(decode(&field), "aé\u{20AC}");
        // A character outside the first plane takes two units.
        let error = TextError::TooLong { length: 4, max: 3 };
        assert_eq!(encode_into("ab\u{1F600}", &mut field), Err(error));
        assert_eq!(encode_into("a\0", &mut field), Err(TextError::Nul));
        assert_eq!(encode_into("", &mut []), Ok(2), "an empty field takes an empty text");
    }

    #[test]
    fn test_any_units_are_a_text() {
        assert_eq!(decode(&[0x61, 0, 0x00, 0xD8]), "a\u{FFFD}", "half of a pair, and no NUL");
        assert_eq!(decode(&[0x61, 0, 0x62]), "a", "half of a unit");
        assert_eq!(decode(&[]), "");
    }
}
