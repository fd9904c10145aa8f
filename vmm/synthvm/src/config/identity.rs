//! The identity of a machine: its UUID, its generation id, and the texts of its SMBIOS tables.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use synthvm_machine::SmbiosConfig;
use vmbus_protocol::Guid;

use super::node::Bare;
use super::{DiskSource, VmConfig};

/// `--smbios hyperv` is `--smbios hyperv=on`.
pub(super) const SMBIOS_BARE: Bare = Bare { words: &["hyperv"], ..Bare::key("manufacturer") };

/// A UUID in a configuration: 32 hexadecimal digits with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineUuid(pub Guid);

/// The generation id of a machine at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationId {
    /// A random one: the guest's state is a copy, or was taken back.
    New,
    /// This one.
    Fixed(MachineUuid),
}

impl VmConfig {
    /// Returns the machine's UUID. It is the same at every start as long as the machine's name is.
    pub(super) fn machine_uuid(&self) -> Guid {
        self.uuid.map_or_else(|| derived(b"SynthVM machine", &self.identity_name()), |uuid| uuid.0)
    }

    /// Returns the machine's generation id; `None` for a random one. The default is the same at every start as long as the
    /// machine's name is: a domain controller takes every change for a restored state.
    pub(super) fn machine_generation(&self) -> Option<[u8; 16]> {
        let id = match self.generation_id {
            Some(GenerationId::Fixed(id)) => id.0,
            Some(GenerationId::New) => return None,
            None => derived(b"SynthVM generation", &self.identity_name()),
        };
        Some(id.to_bytes())
    }

    /// Returns the name of the machine for its identity: the variables of its firmware are a part
    /// of it, where they exist.
    fn identity_name(&self) -> String {
        match self.firmware_vars.as_ref().and_then(|vars| vars.path.as_deref()) {
            Some(path) => absolute(path),
            None => machine_name(self),
        }
    }
}

/// Returns the name of the machine, by which its identity and its cards' addresses differ from
/// those of others: the path of its first image, else of its control socket, else of its kernel,
/// else of its firmware's variables or image.
pub(super) fn machine_name(config: &VmConfig) -> String {
    let image = config.disks.iter().find_map(|disk| match disk.source() {
        DiskSource::Image(path) => Some(path),
        DiskSource::Ram(_) | DiskSource::Null(_) => None,
    });
    let vars = config.firmware_vars.as_ref().and_then(|vars| vars.path.as_deref());
    let path = image
        .or(config.control.as_deref())
        .or(config.kernel.as_deref())
        .or(vars)
        .unwrap_or(Path::new("firmware"));
    absolute(path)
}

/// Checks the texts of the SMBIOS tables.
pub(super) fn check(config: &VmConfig) -> Result<(), String> {
    let is_good = |text: &str| {
        (1..=SmbiosConfig::MAX_LEN).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, 0x20..=0x7E))
    };
    match config.smbios.given().find(|(_, text)| !is_good(text)) {
        None => Ok(()),
        Some((key, _)) => {
            let max = SmbiosConfig::MAX_LEN;
            Err(format!("`{key}` has 1 to {max} printable ASCII characters"))
        }
    }
}

fn absolute(path: &Path) -> String {
    // Fails only without a current directory: the path is as good a name then.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().into_owned()
}

/// Returns the GUID of version 8 (RFC 9562 section 5.8) that follows from a name.
fn derived(purpose: &[u8], name: &str) -> Guid {
    let digest = Sha256::new().chain_update(purpose).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // The third field is little-endian on the wire: its last byte has the version.
    bytes[7] = (bytes[7] & 0x0F) | 0x80;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    Guid::from_bytes(bytes)
}

impl FromStr for MachineUuid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "is written 01234567-89ab-cdef-0123-456789abcdef";
        let uuid: Guid = text.parse().map_err(|_| format!("a UUID {form}, not `{text}`"))?;
        match uuid.to_bytes() == [0; 16] {
            true => Err("a UUID of zeros means that there is none; leave it out".into()),
            false => Ok(MachineUuid(uuid)),
        }
    }
}

impl FromStr for GenerationId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "new" {
            return Ok(GenerationId::New);
        }
        text.parse().map(GenerationId::Fixed).map_err(|error: String| format!("`new`, or {error}"))
    }
}

impl fmt::Display for MachineUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GenerationId::New => f.write_str("new"),
            GenerationId::Fixed(id) => id.fmt(f),
        }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(MachineUuid, GenerationId);

#[cfg(test)]
mod tests {
    use super::super::Flag;
    use super::*;

    fn load(pairs: &[(&'static str, &str)]) -> Result<VmConfig, String> {
        let flags: Vec<_> =
            pairs.iter().map(|(key, text)| Flag { key, text: (*text).to_owned() }).collect();
        VmConfig::from_toml("kernel = \"/k\"", &flags).map_err(|error| error.to_string())
    }

    // Guests are licensed and registered by the UUID: a change of the rule would lose that.
    #[test]
    fn test_uuid_is_the_same_in_every_version_and_differs_between_machines() {
        let machine = |disk| load(&[("disk", disk)]).unwrap().machine();
        let first = machine("/vm/a.img");
        let text = Guid::from_bytes(first.uuid).to_string();
        assert_eq!(text, UUID_OF_A);
        assert_eq!(machine("/vm/a.img"), first);
        let second = machine("/vm/b.img");
        assert_ne!(second.uuid, first.uuid);
        assert_ne!(second.generation_id, first.generation_id);
        assert_ne!(first.generation_id, Some(first.uuid));
    }

    #[test]
    fn test_uuid_and_generation_that_are_given_are_those_of_the_machine() {
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let config = load(&[("uuid", uuid), ("generation-id", uuid)]).unwrap();
        let machine = config.machine();
        assert_eq!(Guid::from_bytes(machine.uuid).to_string(), uuid);
        assert_eq!(machine.generation_id, Some(machine.uuid));
        let other = load(&[("generation-id", "new")]).unwrap();
        assert_eq!(other.machine().generation_id, None);
    }

    #[test]
    fn test_uuid_or_text_that_no_table_can_hold_is_refused() {
        for (key, text, part) in [
            ("uuid", "1234", "not `1234`"),
            ("uuid", "00000000-0000-0000-0000-000000000000", "leave it out"),
            ("generation-id", "old", "`new`, or"),
            ("smbios", "serial=", "printable"),
            ("smbios", "product=caf\u{e9}", "`product` has 1 to 64"),
        ] {
            let error = load(&[(key, text)]).unwrap_err();
            assert!(error.contains(part) && error.contains(&format!("--{key}")), "{error}");
        }
    }

    #[test]
    fn test_smbios_texts_have_defaults_of_this_program_or_of_hyperv() {
        let smbios = |text| load(&[("smbios", text)]).unwrap().machine().smbios;
        let own = smbios("serial=S-1,asset-tag=A");
        assert_eq!((own.manufacturer(), own.product()), ("SynthVM", "Virtual Machine"));
        assert_eq!(own.serial.as_deref(), Some("S-1"));
        let like = smbios("hyperv,product=Mine");
        assert_eq!((like.manufacturer(), like.product()), ("Microsoft Corporation", "Mine"));
    }

    const UUID_OF_A: &str = "77bb811f-d814-87d2-9c94-2be3b6e7821a";
}
