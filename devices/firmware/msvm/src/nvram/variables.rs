//! The variables, and their form in a file: {u32 attributes, 16 bytes of time, GUID, u32 name
//! bytes, u32 data bytes, name, data, 32 bytes of the signer's digest if [`HAS_SIGNER`]} each.

use std::collections::BTreeMap;

use bitflags::bitflags;
use vmbus_protocol::Guid;

use super::auth::{SignerDigest, Timestamp};
use super::{MAX_DATA_BYTES, Name};
use crate::fields::le32;

/// All variables, in the order in which they are listed.
pub type Variables = BTreeMap<(Guid, Name), Variable>;

/// Bytes of a variable in the file, besides name and data. They count against the limits, so that
/// the number of variables is limited too.
const OVERHEAD: usize = 44;
/// In the attributes of a file: the digest of the signer follows the data. A version of this
/// program that checks no signatures refuses the file, so that it cannot lose the digest.
const HAS_SIGNER: u32 = 1 << 31;

bitflags! {
    /// Attributes of a variable, with the numbers of the UEFI specification.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Attributes: u32 {
        /// Kept without power.
        const NON_VOLATILE = 1;
        /// Accessible before the system starts.
        const BOOT_SERVICE = 1 << 1;
        /// Accessible by the system too.
        const RUNTIME = 1 << 2;
        /// A hardware error record.
        const HARDWARE_ERROR = 1 << 3;
        /// Counter-authenticated; the specification has withdrawn it.
        const AUTHENTICATED = 1 << 4;
        /// Time-authenticated.
        const TIME_AUTHENTICATED = 1 << 5;
        /// Appends to the data. Never stored.
        const APPEND = 1 << 6;
        /// Authenticated with a certificate of its own.
        const ENHANCED_AUTHENTICATED = 1 << 7;
    }
}

impl Attributes {
    /// Of the presets that the system may read.
    pub(super) const READABLE: Attributes = Attributes::BOOT_SERVICE.union(Attributes::RUNTIME);
    /// Of kept presets.
    pub(super) const KEPT: Attributes = Attributes::READABLE.union(Attributes::NON_VOLATILE);
    /// Of key variables.
    pub(super) const KEY: Attributes = Attributes::KEPT.union(Attributes::TIME_AUTHENTICATED);
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Attributes, without [`Attributes::APPEND`].
    pub attributes: Attributes,
    /// The value.
    pub data: Vec<u8>,
    /// The time of the last authenticated write; zeros before the first.
    pub timestamp: Timestamp,
    /// SHA-256 of the signer to whom the variable belongs: the common name of the certificate, and
    /// the part of the top of its chain that is signed. `None`: key variables, and those that are
    /// not authenticated.
    pub signer: Option<[u8; 32]>,
}

impl Variable {
    /// Returns a variable that no authenticated write has made.
    #[must_use]
    pub fn new(attributes: Attributes, data: Vec<u8>) -> Variable {
        Variable { attributes, data, timestamp: Timestamp::default(), signer: None }
    }

    /// Returns the bytes that it counts against the limits.
    pub(super) fn cost(&self, name: &Name) -> usize {
        let signer = self.signer.map_or(0, |digest| digest.len());
        OVERHEAD + name.bytes().len() + self.data.len() + signer
    }

    /// Returns whether it is kept without power.
    pub(super) fn is_kept(&self) -> bool {
        self.attributes.contains(Attributes::NON_VOLATILE)
    }
}

/// Returns the form in a file of all variables that are kept.
pub(super) fn encode(variables: &Variables) -> Vec<u8> {
    let mut bytes = Vec::new();
    for ((vendor, name), variable) in variables.iter().filter(|(_, v)| v.is_kept()) {
        let flag = if variable.signer.is_some() { HAS_SIGNER } else { 0 };
        bytes.extend((variable.attributes.bits() | flag).to_le_bytes());
        bytes.extend(variable.timestamp.bytes());
        bytes.extend(vendor.to_bytes());
        bytes.extend((name.bytes().len() as u32).to_le_bytes());
        bytes.extend((variable.data.len() as u32).to_le_bytes());
        bytes.extend(name.bytes());
        bytes.extend(&variable.data);
        bytes.extend(variable.signer.iter().flatten());
    }
    bytes
}

/// Returns the variables of a file. `None`: it is damaged.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Variables> {
    let mut variables = Variables::new();
    while !bytes.is_empty() {
        let bits = le32(bytes, 0)?;
        let attributes = Attributes::from_bits(bits & !HAS_SIGNER)?;
        let timestamp = Timestamp::new(*bytes.get(4..)?.first_chunk()?);
        let vendor = Guid::from_bytes(*bytes.get(20..)?.first_chunk()?);
        let (name_len, data_len) = (le32(bytes, 36)? as usize, le32(bytes, 40)? as usize);
        let (name, rest) = bytes[OVERHEAD..].split_at_checked(name_len)?;
        let (data, rest) = rest.split_at_checked(data_len)?;
        let name = Name::from_guest(name).filter(|parsed| parsed.bytes().len() == name_len)?;
        if data_len > MAX_DATA_BYTES {
            return None;
        }
        let signer: Option<SignerDigest> = match bits & HAS_SIGNER {
            0 => None,
            _ => Some(*rest.first_chunk()?),
        };
        let variable = Variable { attributes, data: data.to_vec(), timestamp, signer };
        variables.insert((vendor, name), variable);
        bytes = &rest[signer.map_or(0, |digest| digest.len())..];
    }
    Some(variables)
}
