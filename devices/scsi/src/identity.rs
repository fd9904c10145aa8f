//! The names by which a guest recognises a disk.

/// The permanent identity of one disk. Guests build device names from it, so it must be the same at
/// every boot and differ from that of any other disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    /// The 16 bytes from which both designators of VPD page 0x83 are made.
    pub guid: [u8; 16],
    /// ASCII serial number for VPD page 0x80, 1..=[`DiskIdentity::MAX_SERIAL`] bytes.
    pub serial: String,
}

impl DiskIdentity {
    /// The longest serial number: a UUID in text form fits, and Linux and Windows show at least
    /// that many bytes.
    pub const MAX_SERIAL: usize = 36;

    /// Returns an identity that depends on `parts` alone: equal parts give equal identities.
    pub fn derived(parts: &[&[u8]]) -> Self {
        let guid = derive_guid(parts);
        let serial = guid[8..].iter().map(|byte| format!("{byte:02X}")).collect();
        Self { guid, serial }
    }

    /// Returns this identity with the user's serial number, which then also determines the GUID:
    /// the same serial is the same disk, in every location of its image. `None` when the serial is
    /// empty, too long, or not printable ASCII.
    pub fn with_serial(serial: &str) -> Option<Self> {
        let printable = serial.bytes().all(|byte| (0x20..0x7F).contains(&byte));
        (printable && (1..=Self::MAX_SERIAL).contains(&serial.len())).then(|| Self {
            guid: derive_guid(&[b"serial", serial.as_bytes()]),
            serial: serial.to_owned(),
        })
    }
}

/// Returns a GUID (in wire order) that depends on `parts` alone: FNV-1a over 128 bits, marked as a
/// custom (version 8) UUID. Each part is preceded by its length, so that two different lists are
/// never hashed as the same bytes.
pub fn derive_guid(parts: &[&[u8]]) -> [u8; 16] {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash = OFFSET;
    let mut add = |byte: u8| hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    for part in parts {
        (part.len() as u64).to_le_bytes().into_iter().for_each(&mut add);
        part.iter().copied().for_each(&mut add);
    }
    let mut guid = hash.to_be_bytes();
    // Mixed-endian wire form: the version nibble is in byte 7, the variant in byte 8.
    guid[7] = guid[7] & 0x0F | 0x80;
    guid[8] = guid[8] & 0x3F | 0x80;
    guid
}
