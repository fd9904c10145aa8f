//! Key-value pairs: data exchange. Source: docs/spec/integration-services.md, section 6.

use serde::{Deserialize, Serialize};

use super::fields::{field, put};
use super::{TextError, decode, encode_into};

/// Bytes of every body but those about addresses: the host always sends all.
const BODY: usize = 2580;

/// Maximum bytes of a key, with its NUL.
pub const MAX_KEY: usize = 512;
/// Maximum bytes of a value, with its NUL.
pub const MAX_VALUE: usize = 2048;

/// Offset of the key in a message that sets.
const KEY: usize = 16;
/// Offset of the key in a message that deletes.
const DELETE_KEY: usize = 8;
/// Offset of the type in a message that enumerates; sizes, key and value follow.
const TYPE: usize = 8;

const REG_SZ: u32 = 1;
const REG_EXPAND_SZ: u32 = 2;
const REG_DWORD: u32 = 4;
/// Linux's name for a 64-bit number.
const LINUX_U64: u32 = 8;
const REG_QWORD: u32 = 11;

/// A pool of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// Written by the host for programs in the guest.
    External,
    /// Written by programs in the guest for the host.
    Guest,
    /// Facts that the guest's driver or daemon reports: names, versions, addresses.
    Auto,
    /// Facts about the host, which the host writes.
    AutoExternal,
    /// Internal facts of the guest's driver.
    AutoInternal,
}

impl Pool {
    /// All pools, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::External, Self::Guest, Self::Auto, Self::AutoExternal, Self::AutoInternal];

    fn number(self) -> u8 {
        match self {
            Self::External => 0,
            Self::Guest => 1,
            Self::Auto => 2,
            Self::AutoExternal => 3,
            Self::AutoInternal => 4,
        }
    }
}

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value as text; numbers are decimal.
    pub value: String,
}

/// An operation on a pool. The host never sends GET, to which Linux answers with an empty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Set,
    Delete,
    Enumerate,
}

impl Operation {
    fn number(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Delete => 2,
            Self::Enumerate => 3,
        }
    }
}

/// Returns the body that sets the value of a key.
///
/// # Errors
/// The key or the value does not fit.
pub fn set(pool: Pool, key: &str, value: &str) -> Result<Vec<u8>, TextError> {
    let mut body = header(Operation::Set, pool);
    put(&mut body, 4, &REG_SZ.to_le_bytes());
    let key = encode_into(key, field(&mut body, (KEY, MAX_KEY)))?;
    let value = encode_into(value, field(&mut body, (KEY + MAX_KEY, MAX_VALUE)))?;
    put_size(&mut body, 8, key);
    put_size(&mut body, 12, value);
    Ok(body)
}

/// Returns the body that deletes a key.
///
/// # Errors
/// The key does not fit.
pub fn delete(pool: Pool, key: &str) -> Result<Vec<u8>, TextError> {
    let mut body = header(Operation::Delete, pool);
    let size = encode_into(key, field(&mut body, (DELETE_KEY, MAX_KEY)))?;
    put_size(&mut body, 4, size);
    Ok(body)
}

/// Returns the body that asks for the pair with an index, from 0.
pub fn enumerate(pool: Pool, index: u32) -> Vec<u8> {
    let mut body = header(Operation::Enumerate, pool);
    put(&mut body, 4, &index.to_le_bytes());
    body
}

/// Reads the pair of a response to [`enumerate`]. `None`: it is invalid.
pub fn pair(body: &[u8]) -> Option<Pair> {
    let fields = body.get(TYPE..)?;
    let (words, _) = fields.as_chunks::<4>();
    let [kind, key_size, value_size, ..] = words else { return None };
    let [kind, key_size, value_size] =
        [kind, key_size, value_size].map(|word| u32::from_le_bytes(*word));
    let sizes = [key_size, value_size].map(|size| usize::try_from(size).ok());
    let [Some(key_size @ 0..=MAX_KEY), Some(value_size @ 0..=MAX_VALUE)] = sizes else {
        return None;
    };
    let (key, value) = fields.get(12..)?.split_at_checked(MAX_KEY)?;
    let value = value.get(..value_size)?;
    let value = match kind {
        REG_SZ | REG_EXPAND_SZ => decode(value),
        REG_DWORD => u32::from_le_bytes(*value.first_chunk()?).to_string(),
        LINUX_U64 | REG_QWORD => u64::from_le_bytes(*value.first_chunk()?).to_string(),
        _ => return None,
    };
    Some(Pair { key: decode(key.get(..key_size)?), value })
}

fn header(operation: Operation, pool: Pool) -> Vec<u8> {
    let mut body = vec![operation.number(), pool.number()];
    body.resize(BODY, 0);
    body
}

fn put_size(body: &mut [u8], at: usize, size: usize) {
    put(body, at, &u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the response to an enumeration with these fields.
    fn response(kind: u32, sizes: [u32; 2], key: &str, value: &[u8]) -> Vec<u8> {
        let mut body = enumerate(Pool::Auto, 0);
        for (at, word) in [(8, kind), (12, sizes[0]), (16, sizes[1])] {
            put(&mut body, at, &word.to_le_bytes());
        }
        encode_into(key, field(&mut body, (20, MAX_KEY))).unwrap();
        put(&mut body, 532, value);
        body
    }

    #[test]
    fn test_key_of_512_bytes_is_sent_and_of_514_refused() {
        let longest = "k".repeat(255);
        let body = set(Pool::External, &longest, &"v".repeat(1023)).unwrap();
        assert_eq!(body.len(), 2580);
        assert_eq!(
            (&body[..2], &body[8..10], &body[12..14]),
            (&[1, 0][..], &[0, 2][..], &[0, 8][..])
        );
        assert_eq!((body[16], body[528]), (b'k', b'v'));
        let error = TextError::TooLong { length: 256, max: 255 };
        assert_eq!(set(Pool::External, &(longest.clone() + "k"), ""), Err(error));
        assert!(set(Pool::External, "k", &"v".repeat(1024)).is_err());
        assert_eq!(delete(Pool::Guest, &longest).unwrap()[..6], [2, 1, 0, 0, 0, 2]);
        assert_eq!(enumerate(Pool::Auto, 7)[..5], [3, 2, 0, 0, 7]);
    }

    #[test]
    fn test_pair_is_read_by_its_type() {
        let text: Vec<u8> = "6.1\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let read = |kind, value: &[u8]| {
            pair(&response(kind, [8, value.len() as u32], "key", value)).map(|pair| pair.value)
        };
        assert_eq!(read(1, &text).as_deref(), Some("6.1"));
        assert_eq!(read(4, &7_u32.to_le_bytes()).as_deref(), Some("7"));
        assert_eq!(read(11, &u64::MAX.to_le_bytes()).as_deref(), Some("18446744073709551615"));
        assert_eq!(read(4, &[1, 2]), None, "a number that is too short");
        assert_eq!(read(3, &text), None, "an unknown type");
        assert_eq!(pair(&response(1, [8, 8], "key", &text)).unwrap().key, "key");
    }

    #[test]
    fn test_pair_with_sizes_beyond_its_fields_or_without_a_nul_is_dropped_or_bounded() {
        for sizes in [[514, 2], [u32::MAX, 2], [2, 2050], [2, u32::MAX]] {
            assert_eq!(pair(&response(1, sizes, "key", &[])), None, "{sizes:?}");
        }
        // Odd sizes, and texts that end with their field.
        let odd = pair(&response(1, [5, 3], "key", &[b'a', 0, b'b'])).unwrap();
        assert_eq!((odd.key.as_str(), odd.value.as_str()), ("ke", "a"));
        let full = pair(&response(1, [512, 2048], "k", &[b'x', 0].repeat(1024))).unwrap();
        assert_eq!(full.value.len(), 1024);
        for length in [0, 3, 19, 600, 2579] {
            assert_eq!(pair(&response(1, [2, 2048], "k", &[])[..length]), None);
        }
    }
}
