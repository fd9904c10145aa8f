//! IP addresses of a network adapter, in messages of key-value pairs up to version 4.0. Source:
//! docs/spec/integration-services.md, section 6.1.

use serde::{Deserialize, Serialize};

use super::fields::{field, put};
use super::{TextError, decode, encode_into};

/// Bytes of a body.
const BODY: usize = 7428;

const GET: u8 = 4;
const SET: u8 = 5;

/// The fields: offset and bytes.
const ADAPTER: (usize, usize) = (2, 256);
const FAMILY: usize = 258;
const DHCP: usize = 259;
const ADDRESSES: (usize, usize) = (260, 2048);
const SUBNETS: (usize, usize) = (2308, 2048);
const GATEWAYS: (usize, usize) = (4356, 1024);
const DNS: (usize, usize) = (5380, 2048);

/// The separator of texts in a field.
const SEPARATOR: char = ';';

/// The configuration of a network adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpInfo {
    /// Whether the guest gets its addresses by DHCP.
    pub dhcp: bool,
    /// IPv4 and IPv6 addresses.
    pub addresses: Vec<String>,
    /// The mask of each IPv4 address, and the prefix length of each IPv6 address.
    pub subnets: Vec<String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// DNS servers.
    pub dns: Vec<String>,
}

/// Returns the body that asks for the configuration of an adapter. `adapter`: for Linux, its MAC
/// address in capitals.
///
/// # Errors
/// The id does not fit.
pub fn get(adapter: &str) -> Result<Vec<u8>, TextError> {
    let mut body = vec![0; BODY];
    put(&mut body, 0, &[GET]);
    encode_into(adapter, field(&mut body, ADAPTER))?;
    Ok(body)
}

/// Returns the body that sets the configuration of an adapter. `adapter`: the GUID of its instance
/// in braces.
///
/// # Errors
/// A text does not fit.
pub fn set(adapter: &str, info: &IpInfo) -> Result<Vec<u8>, TextError> {
    let mut body = vec![0; BODY];
    put(&mut body, 0, &[SET]);
    encode_into(adapter, field(&mut body, ADAPTER))?;
    let is_ipv6 = |text: &&String| text.contains(':');
    let has_ipv6 = info.addresses.iter().any(|text| is_ipv6(&text));
    let has_ipv4 = info.dhcp || info.addresses.iter().any(|text| !is_ipv6(&text));
    put(&mut body, FAMILY, &[u8::from(has_ipv4) | u8::from(has_ipv6) << 1]);
    put(&mut body, DHCP, &[u8::from(info.dhcp)]);
    for (place, texts) in [
        (ADDRESSES, &info.addresses),
        (SUBNETS, &info.subnets),
        (GATEWAYS, &info.gateways),
        (DNS, &info.dns),
    ] {
        encode_into(&texts.join(&SEPARATOR.to_string()), field(&mut body, place))?;
    }
    Ok(body)
}

/// Reads the configuration in a response to [`get`]. `None`: it is too short.
pub fn read(body: &[u8]) -> Option<IpInfo> {
    let list = |(at, length): (usize, usize)| -> Option<Vec<String>> {
        let text = decode(body.get(at..at + length)?);
        let parts = text.split(SEPARATOR).map(str::trim).filter(|part| !part.is_empty());
        Some(parts.map(str::to_owned).collect())
    };
    Some(IpInfo {
        dhcp: *body.get(DHCP)? != 0,
        addresses: list(ADDRESSES)?,
        subnets: list(SUBNETS)?,
        gateways: list(GATEWAYS)?,
        dns: list(DNS)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_configuration_is_written_where_it_is_read() {
        let text = |text: &str| vec![text.to_owned()];
        let info = IpInfo {
            dhcp: false,
            addresses: vec!["10.0.0.7".to_owned(), "fd00::7".to_owned()],
            subnets: vec!["255.255.255.0".to_owned(), "64".to_owned()],
            gateways: text("10.0.0.1"),
            dns: text("10.0.0.2"),
        };
        let body = set("{07ab6ce4-0780-8f67-b195-1ac7aaece4d2}", &info).unwrap();
        assert_eq!((body.len(), body[0], body[258]), (7428, 5, 3));
        assert_eq!(read(&body), Some(info));
        assert_eq!(read(&body[..7427]), None);
        let dhcp = set("a", &IpInfo { dhcp: true, ..IpInfo::default() }).unwrap();
        assert_eq!(dhcp[258..260], [1, 1]);
        let long = IpInfo { gateways: text(&"1".repeat(512)), ..IpInfo::default() };
        assert!(set("a", &long).is_err());
        assert_eq!(get("00:15:5D:01:02:03").unwrap()[..4], [4, 0, b'0', 0]);
    }
}
