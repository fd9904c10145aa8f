//! Port forwards as text: `tcp:2222:22`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Forward, Protocol};

/// Text that is no port forward.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no port forward; write PROTOCOL:[ADDRESS:]PORT:GUEST-PORT, for example tcp:2222:22 \
     or tcp:127.0.0.1:2222:22 (ports are 1 to 65535, protocols tcp and udp)"
)]
pub struct ParseForwardError(String);

impl FromStr for Forward {
    type Err = ParseForwardError;

    /// Reads `tcp:2222:22`, `udp:127.0.0.1:53:53` or `tcp:[::1]:2222:22`.
    fn from_str(text: &str) -> Result<Self, ParseForwardError> {
        parse(text).ok_or_else(|| ParseForwardError(text.to_owned()))
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protocol {
            Protocol::Tcp => "tcp:",
            Protocol::Udp => "udp:",
        })?;
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}:{}", self.host, self.guest)
    }
}

impl Serialize for Forward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Forward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ForwardVisitor)
    }
}

struct ForwardVisitor;

impl Visitor<'_> for ForwardVisitor {
    type Value = Forward;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port forward such as \"tcp:2222:22\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Forward, E> {
        text.parse().map_err(E::custom)
    }
}

fn parse(text: &str) -> Option<Forward> {
    let (protocol, rest) = text.split_once(':')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let (rest, guest) = rest.rsplit_once(':')?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(parse_address(address)?), host),
        None => (None, rest),
    };
    Some(Forward { protocol, address, host: parse_port(host)?, guest: parse_port(guest)? })
}

/// Reads an address; that of IPv6 is in brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_forward_displayed_reads_back_as_itself() {
        let texts = ["tcp:2222:22", "udp:127.0.0.1:53:5353", "tcp:[::1]:1:65535"];
        for text in texts {
            let forward: Forward = text.parse().unwrap();
            assert_eq!(forward.to_string(), text);
        }
        let forward: Forward = texts[1].parse().unwrap();
        let address = Some("127.0.0.1".parse().unwrap());
        assert_eq!(forward, Forward { protocol: Protocol::Udp, address, host: 53, guest: 5353 });
    }

    #[test]
    fn test_forward_malformed_is_refused_with_an_example() {
        let texts = [
            "",
            "tcp",
            "tcp:",
            "tcp:22",
            "2222:22",
            "sctp:1:2",
            "tcp:0:22",
            "tcp:1:65536",
            "tcp:+1:2",
            "tcp: 1:2",
            "tcp:host:1:2",
            "tcp:::1:1:2",
            "tcp:[1.2.3.4]:1:2",
            "tcp:1:2:3:4",
        ];
        for text in texts {
            let error = text.parse::<Forward>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("tcp:2222:22"),
                "{error}"
            );
        }
    }
}
