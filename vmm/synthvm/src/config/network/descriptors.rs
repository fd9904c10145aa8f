//! Descriptors that were passed to the program: `3` or `3:4`.

use std::fmt;
use std::os::fd::RawFd;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MAX_QUEUES;

/// The numbers of descriptors: 1 to [`MAX_QUEUES`] different ones, none of them standard input,
/// output or error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors(Vec<RawFd>);

impl Descriptors {
    /// Returns how many there are.
    pub(super) fn count(&self) -> u16 {
        // There are no more than MAX_QUEUES.
        u16::try_from(self.0.len()).unwrap_or(MAX_QUEUES)
    }

    /// Returns the numbers.
    pub fn numbers(&self) -> &[RawFd] {
        &self.0
    }
}

impl FromStr for Descriptors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "`{text}` is no list of 1 to {MAX_QUEUES} different descriptors from 3 up; write \
                 for example 3 or 3:4:5"
            )
        };
        let mut numbers = Vec::new();
        for part in text.split(':') {
            let is_digits = part.bytes().all(|byte| byte.is_ascii_digit());
            let number = part.parse().ok().filter(|number| is_digits && *number > 2);
            let number: RawFd = number.ok_or_else(refuse)?;
            if numbers.contains(&number) || numbers.len() == usize::from(MAX_QUEUES) {
                return Err(refuse());
            }
            numbers.push(number);
        }
        Ok(Descriptors(numbers))
    }
}

impl fmt::Display for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{number}")?;
        }
        Ok(())
    }
}

impl Serialize for Descriptors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Descriptors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DescriptorsVisitor)
    }
}

struct DescriptorsVisitor;

impl Visitor<'_> for DescriptorsVisitor {
    type Value = Descriptors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the numbers of descriptors, such as 3 or \"3:4\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Descriptors, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Descriptors, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Descriptors, E> {
        number.to_string().parse().map_err(E::custom)
    }
}
