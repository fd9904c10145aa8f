use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vmbus_protocol::Guid;

use super::*;
use crate::status::Status;

mod authenticated;
mod descriptor;
mod file;

const VENDOR: Guid = Guid::new(1, 2, 3, [4; 8]);
const BOOT: u32 = 3;
const KEPT: u32 = 7;
const APPEND: u32 = 0x40;

fn name(text: &str) -> Name {
    Name::ascii(text)
}

fn nvram() -> Nvram {
    Nvram::new(Variables::new(), Box::new(VolatileStore), None)
}

fn get(nvram: &Nvram, text: &str) -> Result<Vec<u8>, Status> {
    nvram.get(VENDOR, &name(text)).map(|variable| variable.data.clone())
}

fn set(nvram: &mut Nvram, text: &str, attributes: u32, data: &[u8]) -> Result<(), Status> {
    nvram.set(VENDOR, name(text), attributes, data)
}

#[test]
fn test_set_get_append_delete_follow_each_other() {
    let mut nvram = nvram();
    assert_eq!(get(&nvram, "a"), Err(Status::NotFound));
    assert_eq!(set(&mut nvram, "a", KEPT, b"one"), Ok(()));
    assert_eq!(set(&mut nvram, "a", KEPT | APPEND, b"two"), Ok(()));
    assert_eq!(set(&mut nvram, "a", KEPT | APPEND, b""), Ok(()));
    assert_eq!(get(&nvram, "a"), Ok(b"onetwo".to_vec()));
    assert_eq!(nvram.get(VENDOR, &name("a")).unwrap().attributes.bits(), KEPT);
    assert_eq!(set(&mut nvram, "a", KEPT, b""), Ok(()));
    assert_eq!(set(&mut nvram, "a", KEPT, b""), Err(Status::NotFound));
    assert_eq!(set(&mut nvram, "new", KEPT | APPEND, b"x"), Ok(()), "append creates");
    assert_eq!(set(&mut nvram, "new", 0, b"x"), Ok(()), "no access deletes");
    assert_eq!(get(&nvram, "new"), Err(Status::NotFound));
}

#[test]
fn test_set_with_other_attributes_changes_nothing() {
    let mut nvram = nvram();
    set(&mut nvram, "a", KEPT, b"one").unwrap();
    for attributes in [BOOT, 2, 6, BOOT | APPEND] {
        assert_eq!(set(&mut nvram, "a", attributes, b"x"), Err(Status::InvalidParameter));
        assert_eq!(set(&mut nvram, "a", attributes, b""), Err(Status::InvalidParameter));
    }
    assert_eq!(get(&nvram, "a"), Ok(b"one".to_vec()));
}

#[test]
fn test_set_invalid_attributes_are_refused() {
    let mut nvram = nvram();
    for (attributes, status) in [
        (4, Status::InvalidParameter),
        (5, Status::InvalidParameter),
        (8 | BOOT, Status::InvalidParameter),
        (0x100 | KEPT, Status::InvalidParameter),
        (1 << 31, Status::InvalidParameter),
        (0x10 | KEPT, Status::Unsupported),
        (0x20 | KEPT, Status::SecurityViolation),
        (0x80 | KEPT, Status::Unsupported),
    ] {
        assert_eq!(set(&mut nvram, "a", attributes, b"x"), Err(status), "{attributes:#x}");
    }
    assert_eq!(set(&mut nvram, "HwErrRec0001", 8 | KEPT, b"x"), Ok(()));
}

#[test]
fn test_presets_are_read_only_and_return_after_reset() {
    let mut nvram = nvram();
    let global = |nvram: &Nvram, text| {
        nvram.get(presets::GLOBAL, &name(text)).map(|variable| variable.data.clone())
    };
    assert_eq!(global(&nvram, "SecureBoot"), Ok(vec![0]));
    assert_eq!(global(&nvram, "SetupMode"), Ok(vec![1]));
    assert_eq!(global(&nvram, "PK"), Err(Status::NotFound));
    for (text, attributes) in [("SecureBoot", 6), ("SetupMode", 0), ("dbDefault", 6)] {
        let outcome = nvram.set(presets::GLOBAL, name(text), attributes, b"x");
        assert_eq!(outcome, Err(Status::WriteProtected), "{text}");
    }
    for key in ["PK", "KEK"] {
        let outcome = nvram.set(presets::GLOBAL, name(key), KEPT, b"x");
        assert_eq!(outcome, Err(Status::InvalidParameter));
    }
    nvram.set(presets::GLOBAL, name("BootOrder"), KEPT, &[1, 0]).unwrap();
    set(&mut nvram, "volatile", 6, b"x").unwrap();
    nvram.reset();
    assert_eq!(get(&nvram, "volatile"), Err(Status::NotFound));
    assert_eq!(global(&nvram, "BootOrder"), Ok(vec![1, 0]));
    assert_eq!(global(&nvram, "SecureBoot"), Ok(vec![0]));
}

#[test]
fn test_presets_with_keys_turn_secure_boot_on() {
    let keys = SecureBootKeys {
        pk: Signatures::new().certificate(VENDOR, b"pk"),
        db: Signatures::new().certificate(VENDOR, b"der").hashes(VENDOR, &[[1; 32], [2; 32]]),
        ..SecureBootKeys::default()
    };
    let nvram = Nvram::new(Variables::new(), Box::new(VolatileStore), Some(keys.clone()));
    let data = |vendor, text| nvram.get(vendor, &name(text)).unwrap().data.clone();
    assert_eq!(data(presets::GLOBAL, "SecureBoot"), [1]);
    assert_eq!(data(presets::GLOBAL, "SetupMode"), [0]);
    assert_eq!(data(presets::SECURITY, "db"), keys.db.bytes());
    assert_eq!(data(presets::GLOBAL, "dbDefault"), keys.db.bytes());
    let lengths = |at: usize| u32::from_le_bytes(keys.db.bytes()[at..at + 4].try_into().unwrap());
    assert_eq!([lengths(16), lengths(20), lengths(24)], [28 + 19, 0, 19]);
    assert_eq!([lengths(47 + 16), lengths(47 + 24)], [28 + 96, 48]);
    assert_eq!(keys.db.bytes().len(), 47 + 28 + 96);
}

#[test]
fn test_runtime_sees_and_changes_only_runtime_variables() {
    let mut nvram = nvram();
    set(&mut nvram, "boot", BOOT, b"x").unwrap();
    set(&mut nvram, "runtime", KEPT, b"x").unwrap();
    set(&mut nvram, "volatile", 6, b"x").unwrap();
    nvram.signal_runtime();
    assert_eq!(get(&nvram, "boot"), Err(Status::NotFound));
    assert_eq!(set(&mut nvram, "boot", KEPT, b"y"), Err(Status::InvalidParameter));
    assert_eq!(set(&mut nvram, "boot", 0, b""), Err(Status::NotFound));
    assert_eq!(set(&mut nvram, "new", BOOT, b"y"), Err(Status::InvalidParameter));
    assert_eq!(set(&mut nvram, "volatile", 6, b"y"), Err(Status::WriteProtected));
    assert_eq!(set(&mut nvram, "volatile", 0, b""), Err(Status::WriteProtected));
    assert_eq!(set(&mut nvram, "runtime", KEPT, b"y"), Ok(()));
    let mut previous: Option<(Guid, Name)> = None;
    while let Ok(key) = nvram.next(previous.as_ref()) {
        assert!(nvram.get(key.0, &key.1).unwrap().attributes.contains(Attributes::RUNTIME));
        previous = Some(key.clone());
    }
    nvram.reset();
    assert_eq!(get(&nvram, "boot"), Ok(b"x".to_vec()), "visible in the next boot");
}

#[test]
fn test_store_full_is_out_of_resources_and_says_what_is_free() {
    let mut nvram = nvram();
    let mut last = Ok(());
    for number in 0..16 {
        last = set(&mut nvram, &format!("v{number}"), KEPT, &vec![1; MAX_DATA_BYTES]);
        if last.is_err() {
            break;
        }
    }
    assert_eq!(last, Err(Status::OutOfResources));
    let [limit, free, largest] = nvram.query(KEPT).unwrap();
    assert_eq!(limit, MAX_STORED_BYTES as u64);
    assert!(free < MAX_DATA_BYTES as u64 && largest == free);
    let too_long = vec![0; MAX_DATA_BYTES + 1];
    assert_eq!(set(&mut nvram, "x", KEPT, &too_long), Err(Status::InvalidParameter));
    assert_eq!(set(&mut nvram, "v0", KEPT, b""), Ok(()));
    assert_eq!(set(&mut nvram, "small", KEPT, b"x"), Ok(()));
    assert_eq!(nvram.query(4), Err(Status::InvalidParameter));
    assert_eq!(nvram.query(1), Err(Status::InvalidParameter));
}

#[test]
fn test_store_that_fails_leaves_the_variable_as_it_was() {
    struct Failing(Arc<Mutex<bool>>);
    impl VariableStore for Failing {
        fn save(&mut self, _: &Variables) -> io::Result<()> {
            if *self.0.lock().unwrap() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }
    let fails = Arc::new(Mutex::new(false));
    let mut nvram = Nvram::new(Variables::new(), Box::new(Failing(Arc::clone(&fails))), None);
    set(&mut nvram, "a", KEPT, b"old").unwrap();
    *fails.lock().unwrap() = true;
    assert_eq!(set(&mut nvram, "a", KEPT, b"new"), Err(Status::DeviceError));
    assert_eq!(set(&mut nvram, "a", KEPT, b""), Err(Status::DeviceError));
    assert_eq!(set(&mut nvram, "b", KEPT, b"new"), Err(Status::DeviceError));
    assert_eq!(nvram.take_save_error().unwrap().kind(), io::ErrorKind::StorageFull);
    assert!(nvram.take_save_error().is_none());
    assert_eq!(get(&nvram, "a"), Ok(b"old".to_vec()));
    assert_eq!(get(&nvram, "b"), Err(Status::NotFound));
    assert_eq!(set(&mut nvram, "v", 6, b"x"), Ok(()), "volatile ones need no store");
}

#[test]
fn test_next_lists_each_variable_once_and_refuses_unknown_names() {
    let mut nvram = nvram();
    for text in ["b", "a", "c"] {
        set(&mut nvram, text, KEPT, b"x").unwrap();
    }
    let mut seen = Vec::new();
    let mut previous: Option<(Guid, Name)> = None;
    while let Ok(key) = nvram.next(previous.as_ref()) {
        seen.push(key.clone());
        previous = Some(key.clone());
    }
    let all: Vec<_> = nvram.variables().map(|(key, _)| key.clone()).collect();
    assert_eq!(seen, all);
    assert_eq!(nvram.next(Some(&(VENDOR, name("absent")))), Err(Status::InvalidParameter));
}

#[test]
fn test_name_from_guest_needs_a_nul_and_characters() {
    assert_eq!(Name::from_guest(&[b'a', 0, 0, 0]), Some(name("a")));
    assert_eq!(Name::from_guest(&[b'a', 0, 0, 0, 9, 9, 9]), Some(name("a")));
    for bytes in [&[][..], &[0], &[0, 0], &[b'a', 0], &[b'a', 0, 0], &[b'a', 0, b'b', 0]] {
        assert_eq!(Name::from_guest(bytes), None, "{bytes:?}");
    }
    let mut long = [b'a', 0].repeat(1024);
    long.extend([0, 0]);
    assert_eq!(Name::from_guest(&long), None);
    assert_eq!(name("a\n").to_string(), "a\\n");
}

/// One call: the name, the attributes, the data.
fn step() -> impl Strategy<Value = (u8, u32, Vec<u8>)> {
    let attributes = prop_oneof![
        Just(BOOT),
        Just(KEPT),
        Just(KEPT | APPEND),
        Just(6),
        Just(0),
        any::<u32>().prop_map(|bits| bits & 0xFF)
    ];
    (0..4_u8, attributes, proptest::collection::vec(any::<u8>(), 0..4))
}

proptest! {
    // Compares with a naive reading of the specification.
    #[test]
    fn test_set_any_sequence_matches_a_model(
        steps in proptest::collection::vec(step(), 0..40)
    ) {
        let mut nvram = nvram();
        let mut model: BTreeMap<u8, (u32, Vec<u8>)> = BTreeMap::new();
        for (number, attributes, data) in steps {
            let outcome = set(&mut nvram, &number.to_string(), attributes, &data);
            let bits = attributes & !APPEND;
            let is_append = attributes & APPEND != 0;
            let expected = if attributes & 0x90 != 0 {
                Err(Status::Unsupported)
            } else if attributes & 6 == 4 || attributes & 8 != 0 && attributes & 7 != 7 {
                Err(Status::InvalidParameter)
            } else if attributes & 0x20 != 0 {
                // The variables of the model are not authenticated, and nothing here is signed.
                Err(if model.contains_key(&number) {
                    Status::InvalidParameter
                } else if bits & 6 == 0 {
                    Status::NotFound
                } else {
                    Status::SecurityViolation
                })
            } else if bits & 6 == 0 {
                model.remove(&number).map(|_| ()).ok_or(Status::NotFound)
            } else if model.get(&number).is_some_and(|(old, _)| *old != bits) {
                Err(Status::InvalidParameter)
            } else if is_append {
                if !data.is_empty() {
                    model.entry(number).or_insert((bits, Vec::new())).1.extend(&data);
                }
                Ok(())
            } else if data.is_empty() {
                model.remove(&number).map(|_| ()).ok_or(Status::NotFound)
            } else {
                model.insert(number, (bits, data));
                Ok(())
            };
            prop_assert_eq!(outcome, expected);
            for number in 0..4 {
                let value = get(&nvram, &number.to_string()).ok();
                prop_assert_eq!(value, model.get(&number).map(|(_, data)| data.clone()));
            }
        }
    }
}
