//! Sizes in bytes, as users write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written `512M`, `1G`, `5GiB` or plain bytes. Units are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Returns a size of `bytes` bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        ByteSize(bytes)
    }

    /// Returns a size of `mib` MiB. Saturates.
    pub const fn from_mib(mib: u64) -> Self {
        ByteSize(mib.saturating_mul(MIB))
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!("`{text}` is not a size; write for example 512M, 1G, 5GiB or a number of bytes")
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => KIB,
            "m" | "mib" => MIB,
            "g" | "gib" => GIB,
            "t" | "tib" => TIB,
            // Powers of 1000 are refused rather than guessed: RAM sizes are powers of 1024.
            "kb" | "mb" | "gb" | "tb" => {
                let binary = unit[..1].to_ascii_uppercase();
                return Err(format!(
                    "`{text}` is ambiguous; write {number}{binary} or {number}{binary}iB (powers \
                    of 1024)"
                ));
            }
            _ => return Err(malformed()),
        };
        if number.is_empty() {
            return Err(malformed());
        }
        let number: u64 = number.parse().map_err(|_| format!("`{text}` is too large"))?;
        number.checked_mul(unit).map(ByteSize).ok_or_else(|| format!("`{text}` is too large"))
    }
}

impl fmt::Display for ByteSize {
    /// Writes the shortest form that parses as the same number of bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(TIB, "T"), (GIB, "G"), (MIB, "M"), (KIB, "K")];
        match units.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, letter)) => write!(f, "{}{letter}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl serde::de::Visitor<'_> for SizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"512M\", \"1G\" or a number of bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes)
            .map(ByteSize)
            .map_err(|_| E::custom(format!("`{bytes}` is not a size; it is negative")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_size_with_each_unit_is_a_power_of_1024() {
        let sizes = [
            ("0", 0),
            ("4096", 4096),
            ("7b", 7),
            ("3K", 3 << 10),
            ("512M", 512 << 20),
            ("1g", 1 << 30),
        ];
        let long = [("5GiB", 5 << 30), ("2MiB", 2 << 20), ("1TiB", 1 << 40), ("8kib", 8 << 10)];
        for (text, bytes) in sizes.into_iter().chain(long) {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn test_size_malformed_is_refused_with_an_example() {
        for text in ["", "G", "1.5G", "-1", "1 G", "1GG", "0x10", "١G", "1iB"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.contains("512M"), "{text}: {error}");
        }
    }

    #[test]
    fn test_size_in_decimal_unit_is_refused_with_the_binary_one() {
        assert!("1GB".parse::<ByteSize>().unwrap_err().contains("1G or 1GiB"));
    }

    #[test]
    fn test_size_beyond_64_bits_is_too_large() {
        for text in ["18446744073709551616", "99999999999G", "16777216T"] {
            assert!(text.parse::<ByteSize>().unwrap_err().contains("too large"), "{text}");
        }
    }

    #[test]
    fn test_size_displayed_reads_back_as_itself() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, (1 << 30) + 1, 5 << 30, 3 << 40, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
