//! File copy from the host to the guest. Source: docs/spec/integration-services.md, section 7.

use super::fields::{field, put};
use super::{TextError, encode_into};

/// Maximum bytes of a file in one message.
pub const MAX_CHUNK: usize = 6144;

/// Bytes of the header: the operation and two GUIDs, which are zero.
const HEADER: usize = 36;
/// Bytes of the message that starts a copy.
const START: usize = 1088;
/// Bytes of the message with a part of the file: the host always sends all.
const WRITE: usize = 52 + MAX_CHUNK;

/// The fields of both names: offset and bytes.
const NAME: (usize, usize) = (36, 520);
const FOLDER: (usize, usize) = (556, 520);

const OVERWRITE: u32 = 1;
const CREATE_PATH: u32 = 2;

/// The destination of a copy in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// The folder, with a separator at its end: at most 259 UTF-16 code units.
    pub folder: String,
    /// The name in the folder: at most 259 UTF-16 code units.
    pub name: String,
    /// Replaces a file that exists.
    pub overwrite: bool,
    /// Makes missing folders.
    pub create_path: bool,
}

/// Returns the body that starts the copy of a file of `size` bytes.
///
/// # Errors
/// A name does not fit.
pub fn start(destination: &Destination, size: u64) -> Result<Vec<u8>, TextError> {
    let Destination { folder, name, overwrite, create_path } = destination;
    let mut body = vec![0; START];
    let flags = if *overwrite { OVERWRITE } else { 0 } | if *create_path { CREATE_PATH } else { 0 };
    encode_into(name, field(&mut body, NAME))?;
    encode_into(folder, field(&mut body, FOLDER))?;
    put(&mut body, 1076, &flags.to_le_bytes());
    put(&mut body, 1080, &size.to_le_bytes());
    Ok(body)
}

/// Returns the body with the bytes of the file from `offset` on. Takes at most [`MAX_CHUNK`] bytes.
pub fn write(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let bytes = bytes.get(..MAX_CHUNK).unwrap_or(bytes);
    let mut body = header(1, WRITE);
    put(&mut body, 40, &offset.to_le_bytes());
    put(&mut body, 48, &u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
    put(&mut body, 52, bytes);
    body
}

/// Returns the body that completes the copy.
pub fn complete() -> Vec<u8> {
    header(2, HEADER)
}

/// Returns the body that cancels the copy.
pub fn cancel() -> Vec<u8> {
    header(3, HEADER)
}

fn header(operation: u8, length: usize) -> Vec<u8> {
    let mut body = vec![operation];
    body.resize(length, 0);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_messages_have_their_lengths_and_fields() {
        let destination = Destination {
            folder: "/tmp/".to_owned(),
            name: "a.bin".to_owned(),
            overwrite: true,
            create_path: false,
        };
        let body = start(&destination, 0x0102_0304_0506).unwrap();
        assert_eq!((body.len(), body[36], body[556], body[1076]), (1088, b'a', b'/', 1));
        assert_eq!(body[1080..], [6, 5, 4, 3, 2, 1, 0, 0]);
        let part = write(6144, &[7; 10]);
        assert_eq!(
            (part.len(), part[0], part[41], part[48], part[61], part[62]),
            (6196, 1, 24, 10, 7, 0)
        );
        assert_eq!(write(0, &[1; 7000]).len(), 6196, "at most one chunk");
        assert_eq!((complete()[0], cancel()[0], cancel().len()), (2, 3, 36));
        let long = Destination { name: "n".repeat(260), ..destination };
        assert_eq!(start(&long, 0), Err(TextError::TooLong { length: 260, max: 259 }));
    }
}
