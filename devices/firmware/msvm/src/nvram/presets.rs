//! The variables that the host sets before each boot (spec firmware-windows section A5.1, item 4).

use vmbus_protocol::Guid;

use super::{Attributes, Name, Variable, Variables};

/// UEFI's own variables.
pub(super) const GLOBAL: Guid =
    Guid::new(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
/// The signature databases.
pub(super) const SECURITY: Guid =
    Guid::new(0xd719_b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);
const SECURE_BOOT_ENABLE: Guid =
    Guid::new(0xf0a3_0bc7, 0xaf08, 0x4556, [0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44]);
const POLICY: Guid =
    Guid::new(0x77fa_9abd, 0x0359, 0x4d32, [0xbd, 0x60, 0x28, 0xf4, 0xe7, 0x8f, 0x78, 0x4b]);
const OS_LOADER: Guid =
    Guid::new(0x610b_9e98, 0xc6f6, 0x47f8, [0x8b, 0x47, 0x2d, 0x2d, 0xa0, 0xd5, 0x2a, 0x91]);

/// Variables that no guest may change.
const READ_ONLY: [(Guid, &str); 6] = [
    (GLOBAL, "SecureBoot"),
    (GLOBAL, "SetupMode"),
    (GLOBAL, "dbDefault"),
    (SECURE_BOOT_ENABLE, "SecureBootEnable"),
    (POLICY, "CurrentPolicy"),
    (OS_LOADER, "OsLoaderIndicationsSupported"),
];

/// A variable of the Secure Boot keys, which only an authenticated write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyVariable {
    /// The platform key.
    Pk,
    /// The key exchange keys.
    Kek,
    /// A signature database.
    Database,
}

const KEYS: [(Guid, &str, KeyVariable); 6] = [
    (GLOBAL, "PK", KeyVariable::Pk),
    (GLOBAL, "KEK", KeyVariable::Kek),
    (SECURITY, "db", KeyVariable::Database),
    (SECURITY, "dbx", KeyVariable::Database),
    (SECURITY, "dbt", KeyVariable::Database),
    (SECURITY, "dbr", KeyVariable::Database),
];

/// Type of a list of certificates.
pub(super) const X509: Guid =
    Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]);
/// Type of a list of hashes.
pub(super) const SHA256: Guid =
    Guid::new(0xc1c4_1626, 0x504c, 0x4092, [0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]);
/// Of a list: type, three lengths.
pub(super) const LIST_HEADER: u32 = 28;

/// Signature lists: the value of a key variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures(pub(super) Vec<u8>);

impl Signatures {
    /// Returns no signatures.
    #[must_use]
    pub fn new() -> Signatures {
        Signatures::default()
    }

    /// Adds a certificate in DER form. Each has a list of its own, as their lengths differ.
    #[must_use]
    pub fn certificate(self, owner: Guid, der: &[u8]) -> Signatures {
        self.list(X509, owner, der.len(), &[der])
    }

    /// Adds SHA-256 hashes of programs.
    #[must_use]
    pub fn hashes(self, owner: Guid, hashes: &[[u8; 32]]) -> Signatures {
        let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
        self.list(SHA256, owner, 32, &hashes)
    }

    /// Returns the lists as they are in a variable.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn list(mut self, kind: Guid, owner: Guid, len: usize, signatures: &[&[u8]]) -> Signatures {
        let signature = 16 + len as u32;
        let list = LIST_HEADER + signature * signatures.len() as u32;
        self.0.extend(kind.to_bytes());
        self.0.extend([list, 0, signature].iter().flat_map(|number| number.to_le_bytes()));
        for bytes in signatures {
            self.0.extend(owner.to_bytes());
            self.0.extend(*bytes);
        }
        self
    }
}

/// The keys with which Secure Boot is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecureBootKeys {
    /// Platform key.
    pub pk: Signatures,
    /// Keys that may change the databases.
    pub kek: Signatures,
    /// What may be started.
    pub db: Signatures,
    /// What may not be started.
    pub dbx: Signatures,
}

/// Returns whether no guest may change the variable.
pub(super) fn is_read_only(vendor: Guid, name: &Name) -> bool {
    READ_ONLY.iter().any(|(guid, text)| *guid == vendor && Name::ascii(text) == *name)
}

/// Returns which key variable it is, if it is one.
pub(super) fn key_variable(vendor: Guid, name: &Name) -> Option<KeyVariable> {
    let found = KEYS.iter().find(|(guid, text, _)| *guid == vendor && Name::ascii(text) == *name);
    found.map(|(_, _, key)| *key)
}

/// Returns the vendor and name of the platform key.
pub(super) fn platform_key() -> (Guid, Name) {
    (GLOBAL, Name::ascii("PK"))
}

/// Returns the vendor and name of the key exchange keys.
pub(super) fn exchange_keys() -> (Guid, Name) {
    (GLOBAL, Name::ascii("KEK"))
}

/// Sets the presets. Keys that are given are stored when Secure Boot is turned on; afterwards they
/// belong to the guest, which may change them by authenticated writes.
pub(super) fn apply(variables: &mut Variables, keys: Option<&SecureBootKeys>) {
    let enable = (SECURE_BOOT_ENABLE, Name::ascii("SecureBootEnable"));
    let was_enabled = variables.get(&enable).is_some_and(|variable| variable.data == [1]);
    let mut set = |vendor, name, attributes, data: &[u8]| {
        let variable = Variable::new(attributes, data.to_vec());
        variables.insert((vendor, Name::ascii(name)), variable);
    };
    if let Some(SecureBootKeys { pk, kek, db, dbx }) = keys {
        let values = [(GLOBAL, "KEK", kek), (SECURITY, "db", db), (SECURITY, "dbx", dbx)];
        let values = values.into_iter().chain([(GLOBAL, "PK", pk)]);
        for (vendor, name, value) in values.filter(|_| !was_enabled) {
            set(vendor, name, Attributes::KEY, value.bytes());
        }
        set(GLOBAL, "dbDefault", Attributes::READABLE, db.bytes());
    }
    let enabled = [u8::from(keys.is_some())];
    set(GLOBAL, "SecureBoot", Attributes::READABLE, &enabled);
    set(SECURE_BOOT_ENABLE, "SecureBootEnable", Attributes::KEPT, &enabled);
    set(POLICY, "CurrentPolicy", Attributes::KEY, &[2]);
    set(OS_LOADER, "OsLoaderIndications", Attributes::BOOT_SERVICE, &0_u32.to_le_bytes());
    set(OS_LOADER, "OsLoaderIndicationsSupported", Attributes::BOOT_SERVICE, &1_u32.to_le_bytes());
    follow_platform_key(variables);
}

/// Sets SetupMode, and turns SecureBoot off without a platform key. A new platform key turns it on
/// at the next boot (UEFI 2.10 section 32.3).
pub(super) fn follow_platform_key(variables: &mut Variables) {
    let is_setup = !variables.contains_key(&platform_key());
    let mut set = |name, byte| {
        let variable = Variable::new(Attributes::READABLE, vec![byte]);
        variables.insert((GLOBAL, Name::ascii(name)), variable);
    };
    set("SetupMode", u8::from(is_setup));
    if is_setup {
        set("SecureBoot", 0);
    }
}
