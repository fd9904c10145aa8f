//! Writes that sbvarsign and OpenSSL have signed; see vectors/README.md.

use super::*;
use crate::nvram::auth::{AuthenticatedWrite, SignedData};

macro_rules! write {
    ($name:literal) => {
        (include_bytes!(concat!("../vectors/", $name, ".bin")).as_slice(), $name)
    };
}

type Write = (&'static [u8], &'static str);

const PRIVATE: Guid =
    Guid::new(0x1111_1111, 0x2222, 0x3333, [0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55]);
const REFUSED: Result<(), Status> = Err(Status::SecurityViolation);

/// Returns the vendor and name of the variable that a file is for.
fn key(file: &str) -> (Guid, Name) {
    match file.split('-').next().unwrap_or_default() {
        "pk" => (presets::GLOBAL, name("PK")),
        "kek" => (presets::GLOBAL, name("KEK")),
        "private" => (PRIVATE, name("Mine")),
        database => (presets::SECURITY, name(database)),
    }
}

/// Returns the attributes and the data of a file.
fn parts(bytes: &[u8]) -> (u32, &[u8]) {
    let (attributes, data) = bytes.split_first_chunk().unwrap();
    (u32::from_le_bytes(*attributes), data)
}

fn value(bytes: &[u8]) -> &[u8] {
    AuthenticatedWrite::parse(parts(bytes).1).unwrap().value
}

fn perform(nvram: &mut Nvram, (bytes, file): Write) -> Result<(), Status> {
    let (vendor, name) = key(file);
    let (attributes, data) = parts(bytes);
    nvram.set(vendor, name, attributes, data)
}

fn data(nvram: &Nvram, file: &str) -> Option<Vec<u8>> {
    let (vendor, name) = key(file);
    nvram.get(vendor, &name).ok().map(|variable| variable.data.clone())
}

fn byte(nvram: &Nvram, text: &str) -> u8 {
    nvram.get(presets::GLOBAL, &name(text)).unwrap().data[0]
}

fn contents(nvram: &Nvram) -> Variables {
    nvram.variables().map(|(key, variable)| (key.clone(), variable.clone())).collect()
}

/// Returns variables with the keys of the files, enrolled in setup mode.
fn enrolled() -> Nvram {
    let mut nvram = nvram();
    for file in [write!("db"), write!("kek"), write!("pk")] {
        assert_eq!(perform(&mut nvram, file), Ok(()), "{}", file.1);
    }
    nvram
}

/// Every one of the writes is refused, and changes nothing.
fn check_refused(nvram: &mut Nvram, writes: &[Write], status: Status) {
    let before = contents(nvram);
    for write in writes {
        assert_eq!(perform(nvram, *write), Err(status), "{}", write.1);
        assert_eq!(contents(nvram), before, "{}", write.1);
    }
}

#[test]
fn test_setup_mode_enrols_keys_and_ends_with_the_platform_key() {
    let mut nvram = nvram();
    assert_eq!(perform(&mut nvram, write!("db-changed")), Ok(()), "no signature is needed");
    assert_eq!(perform(&mut nvram, write!("db-older")), Ok(()), "nor a later time");
    assert_eq!(byte(&nvram, "SetupMode"), 1);
    let mut nvram = enrolled();
    assert_eq!(byte(&nvram, "SetupMode"), 0);
    assert_eq!(data(&nvram, "pk").unwrap(), value(write!("pk").0));
    assert_eq!(data(&nvram, "db").unwrap(), value(write!("db").0));
    check_refused(&mut nvram, &[write!("db-changed")], Status::SecurityViolation);
}

#[test]
fn test_keys_change_by_the_platform_key_and_databases_by_exchange_keys_too() {
    let mut nvram = enrolled();
    let refused = [write!("pk-by-kek"), write!("kek-by-kek"), write!("kek-by-pk-2")];
    check_refused(&mut nvram, &refused, Status::SecurityViolation);
    check_refused(&mut nvram, &[write!("db-by-other")], Status::SecurityViolation);
    assert_eq!(perform(&mut nvram, write!("db-by-pk")), Ok(()));
    assert_eq!(data(&nvram, "db").unwrap(), value(write!("db-by-pk").0));
    assert_eq!(perform(&mut nvram, write!("pk-next")), Ok(()));
    assert_eq!(perform(&mut nvram, write!("kek-by-pk-2")), Ok(()));
    check_refused(&mut nvram, &[write!("pk-delete")], Status::SecurityViolation);
}

#[test]
fn test_platform_key_deleted_returns_to_setup_mode() {
    let keys = SecureBootKeys::default();
    let pk = Signatures(value(write!("pk").0).to_vec());
    let keys = SecureBootKeys { pk, ..keys };
    let mut nvram = Nvram::new(Variables::new(), Box::new(VolatileStore), Some(keys));
    assert_eq!([byte(&nvram, "SetupMode"), byte(&nvram, "SecureBoot")], [0, 1]);
    assert_eq!(perform(&mut nvram, write!("pk-delete")), Ok(()));
    assert_eq!([byte(&nvram, "SetupMode"), byte(&nvram, "SecureBoot")], [1, 0]);
    nvram.reset();
    assert_eq!([byte(&nvram, "SetupMode"), byte(&nvram, "SecureBoot")], [1, 0], "it is not back");
    assert_eq!(perform(&mut nvram, write!("pk")), Ok(()));
    assert_eq!([byte(&nvram, "SetupMode"), byte(&nvram, "SecureBoot")], [0, 0]);
    nvram.reset();
    assert_eq!([byte(&nvram, "SetupMode"), byte(&nvram, "SecureBoot")], [0, 1]);
}

#[test]
fn test_platform_key_must_be_one_certificate() {
    let refused = [write!("pk-two"), write!("pk-append")];
    check_refused(&mut enrolled(), &refused, Status::InvalidParameter);
    check_refused(&mut nvram(), &[write!("pk-two")], Status::InvalidParameter);
}

#[test]
fn test_signature_of_other_content_or_form_is_refused() {
    let refused = [
        write!("db-changed"),
        write!("db-other-time"),
        write!("db-sha512"),
        write!("db-attributes-changed"),
        write!("db-content"),
        write!("db-no-certificate"),
    ];
    check_refused(&mut enrolled(), &refused, Status::SecurityViolation);
    check_refused(&mut enrolled(), &[write!("db-no-list")], Status::InvalidParameter);
    let mut nvram = enrolled();
    let (attributes, data) = parts(write!("db-by-pk").0);
    // A write for another name, another vendor, with other attributes.
    let before = contents(&nvram);
    for (vendor, text) in [(presets::SECURITY, "dbx"), (PRIVATE, "db")] {
        assert_eq!(nvram.set(vendor, name(text), attributes, data), REFUSED, "{text}");
    }
    let outcome = nvram.set(presets::SECURITY, name("db"), attributes | APPEND, data);
    assert_eq!(outcome, REFUSED);
    assert_eq!(contents(&nvram), before);
    assert_eq!(perform(&mut nvram, write!("db-attributes")), Ok(()), "signed attributes");
}

#[test]
fn test_chain_needs_each_link_and_authorities_only() {
    let mut nvram = enrolled();
    let refused = [
        write!("dbx-no-middle"),
        write!("dbx-rogue"),
        write!("dbx-too-long"),
        write!("dbx-usage"),
        write!("dbx-critical"),
    ];
    check_refused(&mut nvram, &refused, Status::SecurityViolation);
    assert_eq!(perform(&mut nvram, write!("dbx-chain")), Ok(()));
    assert_eq!(data(&nvram, "dbx").unwrap(), value(write!("dbx-chain").0));
    assert_eq!(perform(&mut nvram, write!("dbx-short")), Ok(()), "the permitted length");
}

#[test]
fn test_older_or_repeated_writes_are_refused_but_may_append() {
    let mut nvram = enrolled();
    check_refused(&mut nvram, &[write!("db"), write!("db-older")], Status::SecurityViolation);
    assert_eq!(perform(&mut nvram, write!("db-append-older")), Ok(()));
    // The file has the hashes 2, 5 and 5: one is there already, one is there twice.
    let added = Signatures::new().hashes(PRIVATE, &[[5; 32]]);
    let expected = [value(write!("db").0), added.bytes()].concat();
    assert_eq!(data(&nvram, "db").unwrap(), expected);
    assert_eq!(perform(&mut nvram, write!("db-append-older")), Ok(()));
    assert_eq!(data(&nvram, "db").unwrap(), expected);
    check_refused(&mut nvram, &[write!("db")], Status::SecurityViolation);
    assert_eq!(perform(&mut nvram, write!("db-delete")), Ok(()));
    assert_eq!(data(&nvram, "db"), None);
    check_refused(&mut nvram, &[write!("db-delete")], Status::NotFound);
}

#[test]
fn test_private_variable_belongs_to_the_signer_of_its_first_write() {
    let mut nvram = nvram();
    let steps: [(Write, &[u8]); 4] = [
        (write!("private"), b"one"),
        (write!("private-append"), b"one+"),
        (write!("private-next"), b"two"),
        (write!("private-append-later"), b"two+"),
    ];
    for (write, expected) in steps {
        assert_eq!(perform(&mut nvram, write), Ok(()), "{}", write.1);
        assert_eq!(data(&nvram, "private").unwrap(), expected, "{}", write.1);
        let refused = [write!("private-forged"), write!("private")];
        check_refused(&mut nvram, &refused, Status::SecurityViolation);
    }
    check_refused(&mut nvram, &[write!("private-next")], Status::SecurityViolation);
    check_refused(&mut nvram, &[write!("private-volatile")], Status::InvalidParameter);
    // Without authentication it is neither changed nor deleted.
    for (attributes, status) in [
        (KEPT, Status::InvalidParameter),
        (0, Status::WriteProtected),
        (0x27, REFUSED.unwrap_err()),
    ] {
        let outcome = nvram.set(PRIVATE, name("Mine"), attributes, b"");
        assert_eq!(outcome, Err(status), "{attributes:#x}");
    }
    assert_eq!(perform(&mut nvram, write!("private-delete")), Ok(()));
    assert_eq!(data(&nvram, "private"), None);
    assert_eq!(perform(&mut nvram, write!("private-volatile")), Ok(()), "a new variable");
}

#[test]
fn test_file_keeps_times_and_signers() {
    let folder = file::Folder::new();
    let (mut nvram, _) = file::open(&folder);
    for write in [write!("pk"), write!("private-next")] {
        assert_eq!(perform(&mut nvram, write), Ok(()), "{}", write.1);
    }
    let before = contents(&nvram);
    drop(nvram);
    let (mut nvram, _) = file::open(&folder);
    assert_eq!(contents(&nvram), before);
    let refused = [write!("private"), write!("private-forged"), write!("pk-by-kek")];
    check_refused(&mut nvram, &refused, Status::SecurityViolation);
    assert_eq!(perform(&mut nvram, write!("private-append-later")), Ok(()));
    assert_eq!(perform(&mut nvram, write!("pk-delete")), Ok(()));
}

#[test]
fn test_stored_keys_survive_the_presets_of_the_next_boot() {
    let pk = Signatures(value(write!("pk").0).to_vec());
    let kek = Signatures(value(write!("kek").0).to_vec());
    let keys = SecureBootKeys { pk, kek, ..SecureBootKeys::default() };
    let mut nvram = Nvram::new(Variables::new(), Box::new(VolatileStore), Some(keys));
    assert_eq!(perform(&mut nvram, write!("dbx-chain")), Ok(()));
    nvram.reset();
    assert_eq!(data(&nvram, "dbx").unwrap(), value(write!("dbx-chain").0));
}

#[test]
fn test_key_variables_need_their_attributes() {
    let mut nvram = nvram();
    let (_, data) = parts(write!("db").0);
    for attributes in [0x26, 0x23, KEPT, BOOT, KEPT | APPEND] {
        let outcome = nvram.set(presets::SECURITY, name("db"), attributes, data);
        assert_eq!(outcome, Err(Status::InvalidParameter), "{attributes:#x}");
    }
}

#[test]
fn test_descriptor_with_wrong_lengths_types_or_times_is_refused() {
    let (_, good) = parts(write!("db-by-pk").0);
    assert!(AuthenticatedWrite::parse(good).is_some());
    for len in 0..40 {
        assert_eq!(AuthenticatedWrite::parse(&good[..len]), None, "{len} bytes");
    }
    // Padding, nanosecond, zone, daylight, padding; length; type; GUID.
    for at in [7, 8, 11, 12, 14, 15, 18, 19, 22, 24, 39] {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x80;
        assert_eq!(AuthenticatedWrite::parse(&bytes), None, "byte {at}");
    }
    for len in [0, 1, 23, good.len() as u32 - 15, u32::MAX] {
        let mut bytes = good.to_vec();
        bytes[16..20].copy_from_slice(&len.to_le_bytes());
        assert_eq!(AuthenticatedWrite::parse(&bytes), None, "length {len}");
    }
}

#[test]
fn test_any_changed_byte_or_length_is_refused_or_changes_no_value() {
    let (attributes, good) = parts(write!("dbx-chain").0);
    let fresh = enrolled();
    let set = |bytes: &[u8]| {
        let mut nvram = Nvram::new(contents(&fresh), Box::new(VolatileStore), None);
        nvram
            .set(presets::SECURITY, name("dbx"), attributes, bytes)
            .map(|()| data(&nvram, "dbx").unwrap())
    };
    let expected = value(write!("dbx-chain").0);
    let mut refused = 0;
    for at in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << (at % 8);
        // A few bytes mean nothing, as the revision and the version do.
        match set(&bytes) {
            Ok(value) => assert_eq!(value, expected, "byte {at}"),
            Err(_) => refused += 1,
        }
        assert!(set(&good[..at]).is_err(), "{at} bytes");
    }
    assert!(refused > good.len() - 32, "{refused} of {}", good.len());
}

#[test]
fn test_signature_that_is_large_or_deeply_nested_is_refused() {
    // Constructed elements within each other, with lengths of four bytes.
    let mut deep = Vec::new();
    for level in (0..8000_u32).rev() {
        deep.extend([0x30, 0x84]);
        deep.extend((level * 6).to_be_bytes());
    }
    let large = [&[0x30, 0x83, 1, 0, 0][..], &vec![0x30; 64 << 10]].concat();
    for bytes in [&deep[..], &large, &[0x30, 0x80, 0, 0], &[0x30; 3], &[0xFF; 64], &[]] {
        assert!(SignedData::parse(bytes).is_none());
    }
    let (attributes, good) = parts(write!("db-by-pk").0);
    let too_long = [good, &vec![0; MAX_DATA_BYTES]].concat();
    let outcome = enrolled().set(presets::SECURITY, name("db"), attributes, &too_long);
    assert_eq!(outcome, Err(Status::InvalidParameter));
}

proptest! {
    // Neither panics nor changes anything, whatever the signature is.
    #[test]
    fn test_any_bytes_as_signature_change_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..2000_usize,
    ) {
        let (attributes, good) = parts(write!("dbx-chain").0);
        let at = at.min(good.len());
        let end = (at + bytes.len()).min(good.len());
        let mixed = [&good[..at], &bytes, &good[end..]].concat();
        let mut nvram = enrolled();
        let before = contents(&nvram);
        if nvram.set(presets::SECURITY, name("dbx"), attributes, &mixed).is_err() {
            prop_assert_eq!(contents(&nvram), before);
        } else {
            prop_assert_eq!(data(&nvram, "dbx").unwrap(), value(write!("dbx-chain").0));
        }
    }
}
