//! The hash of a frame's flow.

use super::super::frame_headers::{FrameHeaders, Protocol};
use super::super::rndis::IpVersion;
use super::toeplitz::ToeplitzKey;

/// Kinds of flows that the guest wants hashed: bits 8 to 31 of the hash information in RSS
/// parameters. Other frames have no hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashTypes(pub u32);

impl HashTypes {
    /// IPv4, by addresses.
    pub const IPV4: Self = Self(0x100);
    /// TCP over IPv4, by addresses and ports.
    pub const TCP_IPV4: Self = Self(0x200);
    /// IPv6, by addresses.
    pub const IPV6: Self = Self(0x400);
    /// IPv6 with extension headers, hashed as [`Self::IPV6`].
    pub const IPV6_EX: Self = Self(0x800);
    /// TCP over IPv6, by addresses and ports.
    pub const TCP_IPV6: Self = Self(0x1000);
    /// TCP over IPv6 with extension headers, hashed as [`Self::TCP_IPV6`].
    pub const TCP_IPV6_EX: Self = Self(0x2000);
    /// UDP over IPv4, by addresses and ports.
    pub const UDP_IPV4: Self = Self(0x4000);
    /// UDP over IPv6, by addresses and ports.
    pub const UDP_IPV6: Self = Self(0x8000);
    /// UDP over IPv6 with extension headers, hashed as [`Self::UDP_IPV6`].
    pub const UDP_IPV6_EX: Self = Self(0x1_0000);

    /// Returns true if one of the kinds of `other` is wanted.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The hash of a frame's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub u32);

impl FlowHash {
    /// Hashes the flow of a frame, of which the first bytes suffice: 74 of an untagged one. By
    /// ports if `types` has the protocol and the bytes hold the ports; otherwise by addresses, if
    /// `types` has the version of IP. `None`: the flow has no hash.
    #[inline]
    pub fn of_frame(key: &ToeplitzKey, types: HashTypes, frame: &[u8]) -> Option<Self> {
        let headers = FrameHeaders::parse(frame)?;
        let (address_offset, addresses) = match headers.ip_version {
            IpVersion::V4 => (12, 8),
            IpVersion::V6 => (8, 32),
        };
        let mut input = [0; 36];
        let start = usize::from(headers.ip_offset) + address_offset;
        input[..addresses].copy_from_slice(frame.get(start..start + addresses)?);
        let (by_ports, by_addresses) = hash_types(&headers);
        if types.intersects(by_ports) {
            let start = usize::from(headers.transport_offset);
            if let Some(ports) = frame.get(start..start + 4) {
                input[addresses..addresses + 4].copy_from_slice(ports);
                return Some(Self(key.hash(&input[..addresses + 4])));
            }
        }
        types.intersects(by_addresses).then(|| Self(key.hash(&input[..addresses])))
    }
}

/// Returns the types by which a frame may be hashed: with ports, and without.
fn hash_types(headers: &FrameHeaders) -> (HashTypes, HashTypes) {
    use HashTypes as T;
    let by_addresses = match headers.ip_version {
        IpVersion::V4 => T::IPV4,
        IpVersion::V6 => T::IPV6.or(T::IPV6_EX),
    };
    let by_ports = match (headers.protocol, headers.ip_version) {
        (Protocol::Tcp, IpVersion::V4) => T::TCP_IPV4,
        (Protocol::Tcp, IpVersion::V6) => T::TCP_IPV6.or(T::TCP_IPV6_EX),
        (Protocol::Udp, IpVersion::V4) => T::UDP_IPV4,
        (Protocol::Udp, IpVersion::V6) => T::UDP_IPV6.or(T::UDP_IPV6_EX),
        (Protocol::Other, _) => T::default(),
    };
    (by_ports, by_addresses)
}
