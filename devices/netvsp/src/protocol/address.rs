//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of all stations.
    pub const BROADCAST: Self = Self([0xFF; 6]);

    /// Returns true for a group address, the broadcast address included.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Returns true if one station can have the address: no group address, and not all zero.
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no Ethernet address; write six bytes in hexadecimal: 02:00:00:12:34:56")]
pub struct ParseMacAddressError(String);

impl FromStr for MacAddress {
    type Err = ParseMacAddressError;

    /// Reads six bytes of two hexadecimal digits, with colons between them.
    fn from_str(text: &str) -> Result<Self, ParseMacAddressError> {
        parse(text).map(Self).ok_or_else(|| ParseMacAddressError(text.to_owned()))
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AddressVisitor)
    }
}

struct AddressVisitor;

impl Visitor<'_> for AddressVisitor {
    type Value = MacAddress;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an Ethernet address such as \"02:00:00:12:34:56\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<MacAddress, E> {
        text.parse().map_err(E::custom)
    }
}

fn parse(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        let is_hexadecimal = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| is_hexadecimal)?;
    }
    parts.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_address_displayed_reads_back_as_itself() {
        let address = MacAddress([0x02, 0xAB, 0, 0xFF, 0x0C, 9]);
        assert_eq!(address.to_string(), "02:ab:00:ff:0c:09");
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!("02:AB:00:FF:0C:09".parse(), Ok(address));
    }

    #[test]
    fn test_address_malformed_is_refused_with_an_example() {
        let texts = ["", "02", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0"];
        for text in
            [&texts[..], &["02-00-00-00-00-00", "0g:00:00:00:00:00", "+2:00:00:00:00:00"]].concat()
        {
            let error = text.parse::<MacAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("02:00:"), "{error}");
        }
    }
}
