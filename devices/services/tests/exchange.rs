//! Key-value pairs, backups and file copy. The numbers are those of
//! docs/spec/integration-services.md section 11.

mod rig;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rig::{Driver, Rig, devices, outcome, unique};
use synthvm_services::protocol::copy::Destination;
use synthvm_services::protocol::ip::IpInfo;
use synthvm_services::protocol::kvp::{Pair, Pool};
use synthvm_services::protocol::{ServiceKind, Status};
use synthvm_services::{Clock, CopyProgress, FreezeHold, ServiceError};
use vmbus_device::InlineWorkers;

const FAIL: u32 = 0x8000_4005;
const NO_MORE: u32 = 0x8007_0103;

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Returns the body of an enumerated pair.
fn pair(index: u32, key: &str, value: &str) -> Vec<u8> {
    let (key, value) = (utf16(key), utf16(value));
    let words = [index, 1, key.len() as u32, value.len() as u32].map(u32::to_le_bytes).concat();
    let mut body = [&[3, 2, 0, 0][..], &words].concat();
    body.extend(key);
    body.resize(532, 0);
    body.extend(value);
    body
}

#[test]
fn test_list_ends_with_the_last_item_and_leaves_out_invalid_ones() {
    // Numbers 12 and 14.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Kvp);
    let (done, result) = outcome();
    rig.services.list_values(Pool::Auto, done);
    let mut hostile = pair(2, "c", "3");
    hostile[12..16].copy_from_slice(&514_u32.to_le_bytes());
    let items = [pair(0, "a", "1"), pair(1, "b", "2"), hostile, pair(3, "d", "")];
    for (index, item) in items.iter().enumerate() {
        let request = driver.request();
        assert_eq!((request.kind, request.version, request.body.len()), (2, [4, 0], 2580));
        assert_eq!(request.body[..8], [3, 2, 0, 0, index as u8, 0, 0, 0]);
        driver.answer(&request, 0, item);
    }
    let request = driver.request();
    driver.answer(&request, NO_MORE, &[]);
    let pair = |key: &str, value: &str| Pair { key: key.to_owned(), value: value.to_owned() };
    assert_eq!(result.get(), Ok(vec![pair("a", "1"), pair("b", "2"), pair("d", "")]));

    // An empty pool; and a guest whose pool never ends.
    let (done, result) = outcome();
    rig.services.list_values(Pool::Guest, done);
    let request = driver.request();
    driver.answer(&request, NO_MORE, &[]);
    assert_eq!(result.get(), Ok(vec![]));
    let (done, result) = outcome();
    rig.services.list_values(Pool::Auto, done);
    for _ in 0..1024 {
        let request = driver.request();
        driver.answer(&request, 0, &items[0]);
    }
    driver.is_quiet();
    assert_eq!(result.get().map(|pairs| pairs.len()), Ok(1024));
}

#[test]
fn test_values_are_set_read_and_deleted_and_long_keys_refused() {
    // Number 13.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Kvp);
    let (done, result) = outcome();
    rig.services.set_value(Pool::External, &"k".repeat(255), &"v".repeat(1023), done);
    let request = driver.request();
    assert_eq!(request.body[..2], [1, 0]);
    driver.answer(&request, 0, &[]);
    assert_eq!(result.get(), Ok(()));
    let (done, result) = outcome();
    rig.services.set_value(Pool::External, &"k".repeat(256), "", done);
    driver.is_quiet();
    assert!(matches!(result.get(), Err(ServiceError::Argument(_))));

    // The host looks for a key in the list.
    for (key, expected) in [("b", Some("2".to_owned())), ("c", None)] {
        let (done, result) = outcome();
        rig.services.get_value(Pool::Guest, key, done);
        for item in [pair(0, "a", "1"), pair(1, "b", "2")] {
            let request = driver.request();
            assert_eq!(request.body[..2], [3, 1]);
            driver.answer(&request, 0, &item);
        }
        let request = driver.request();
        driver.answer(&request, NO_MORE, &[]);
        assert_eq!(result.get(), Ok(expected));
    }
    let (done, result) = outcome();
    rig.services.delete_value(Pool::External, "key", done);
    let request = driver.request();
    assert_eq!(request.body[..5], [2, 0, 0, 0, 8]);
    driver.answer(&request, FAIL, &[]);
    assert_eq!(result.get(), Err(ServiceError::Refused(Status::FAIL)));
}

#[test]
fn test_addresses_are_read_and_set() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Kvp);
    let (done, result) = outcome();
    rig.services.get_ip("00:15:5D:01:02:03", done);
    let request = driver.request();
    assert_eq!((request.body.len(), request.body[0]), (7428, 4));
    let mut body = request.body.clone();
    let list = utf16("10.0.0.7;fe80::1");
    body[260..260 + list.len()].copy_from_slice(&list);
    driver.answer(&request, 0, &body);
    assert_eq!(result.get().unwrap().addresses, ["10.0.0.7", "fe80::1"]);
    let (done, result) = outcome();
    rig.services.set_ip("{guid}", &IpInfo { dhcp: true, ..IpInfo::default() }, done);
    let request = driver.request();
    assert_eq!((request.body[0], request.body[259]), (5, 1));
    driver.answer(&request, 0x8004_1002, &[]);
    assert_eq!(result.get(), Err(ServiceError::Refused(Status::NO_ADAPTER)));
}

/// Answers the next request, which must be this operation of a backup.
fn answer_vss(driver: &mut Driver, operation: u8, status: u32) {
    let request = driver.request();
    assert_eq!((request.kind, request.body.len(), request.body[0]), (5, 12, operation));
    driver.answer(&request, status, &[operation, 0, 0, 0, 0, 0, 0, 0, 5]);
}

/// Freezes the guest for a minute.
fn freeze(rig: &Rig, driver: &mut Driver) -> FreezeHold {
    let (done, result) = outcome();
    rig.services.freeze(Duration::from_secs(60), done);
    answer_vss(driver, 2, 0);
    assert!(result.is_pending());
    answer_vss(driver, 5, 0);
    assert!(rig.services.is_frozen());
    result.get().unwrap()
}

#[test]
fn test_frozen_guest_is_thawed_on_request_after_its_time_and_when_its_client_is_gone() {
    // Number 16.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Vss);
    let hold = freeze(&rig, &mut driver);
    let (done, result) = outcome();
    rig.services.freeze(Duration::from_secs(60), done);
    driver.is_quiet();
    assert!(matches!(result.get(), Err(ServiceError::Argument(_))), "it is frozen already");
    let (done, result) = outcome();
    rig.services.thaw(done);
    answer_vss(&mut driver, 6, 0);
    assert_eq!((result.get(), rig.services.is_frozen()), (Ok(()), false));

    let second = freeze(&rig, &mut driver);
    drop(hold);
    driver.is_quiet();
    drop(second);
    answer_vss(&mut driver, 6, 0);
    assert!(!rig.services.is_frozen());

    freeze(&rig, &mut driver).keep();
    rig.pass(59);
    driver.is_quiet();
    rig.pass(1);
    answer_vss(&mut driver, 6, 0);
    assert!(!rig.services.is_frozen());
    driver.is_quiet();
}

#[test]
fn test_guest_that_refuses_or_does_not_answer_is_thawed_where_it_may_be_frozen() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Vss);
    let begin = |rig: &Rig| {
        let (done, result) = outcome::<FreezeHold>();
        rig.services.freeze(Duration::from_secs(60), done);
        result
    };
    let result = begin(&rig);
    answer_vss(&mut driver, 2, FAIL);
    assert!(matches!(result.get(), Err(ServiceError::Refused(_))));
    let result = begin(&rig);
    answer_vss(&mut driver, 2, 0);
    answer_vss(&mut driver, 5, FAIL);
    assert!(matches!(result.get(), Err(ServiceError::Refused(_))));
    driver.is_quiet();
    // No answer to the freeze: the guest may be frozen.
    let result = begin(&rig);
    answer_vss(&mut driver, 2, 0);
    driver.request();
    rig.pass(120);
    assert!(matches!(result.get(), Err(ServiceError::NoAnswer(_))));
    // A thaw that fails is tried again.
    answer_vss(&mut driver, 6, FAIL);
    assert!(rig.services.is_frozen());
    driver.is_quiet();
    rig.pass(10);
    answer_vss(&mut driver, 6, 0);
    assert!(!rig.services.is_frozen());
}

#[test]
fn test_guest_that_closes_its_channel_while_frozen_is_thawed_when_it_connects_again() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Vss);
    freeze(&rig, &mut driver).keep();
    rig.guest.close(driver.channel);
    rig.pass(600);
    assert!(rig.services.is_frozen());
    let mut driver = rig.connect(ServiceKind::Vss);
    answer_vss(&mut driver, 6, 0);
    assert!(!rig.services.is_frozen());
}

#[test]
fn test_machine_that_was_saved_while_frozen_is_thawed_after_the_restore() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Vss);
    freeze(&rig, &mut driver).keep();
    rig.guest.bus.pause();
    let saved = rig.guest.bus.save().unwrap();
    let (clock, inline) = (Clock::manual(), InlineWorkers::default());
    let (services, devices) = devices(&ServiceKind::ALL, &clock, &rig.host_clock, &inline);
    rig.guest.replace_bus(devices);
    rig.guest.bus.restore(&saved).unwrap();
    rig.guest.bus.resume();
    driver.channel.doorbell = rig.guest.doorbell(rig.offer(ServiceKind::Vss));
    driver.channel.serve = Some(Arc::new(move || inline.serve()));
    assert!(services.is_frozen());
    let offer = driver.request();
    driver.agree(&offer, [3, 0], [5, 0]);
    answer_vss(&mut driver, 6, 0);
    assert!(!services.is_frozen());
}

/// A file that is removed at the end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(bytes: &[u8]) -> Self {
        let name = format!("synthvm-services-{}-{}", std::process::id(), unique());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn destination() -> Destination {
    Destination { folder: "/tmp/".to_owned(), name: "a".to_owned(), ..Destination::default() }
}

/// Returns the next request, which a thread of the host may still prepare.
fn await_request(driver: &mut Driver) -> rig::Request {
    loop {
        driver.serve();
        match driver.try_request() {
            Some(request) => return request,
            None => std::thread::yield_now(),
        }
    }
}

/// Writes what the host sends, as the guest's daemon does, up to `limit` bytes. Returns the bytes,
/// and the operation that ended the copy.
fn receive(driver: &mut Driver, limit: usize) -> (Vec<u8>, u8) {
    let mut file = Vec::new();
    loop {
        let request = await_request(driver);
        match request.body[0] {
            1 => {
                let body = &request.body;
                let offset = u64::from_le_bytes(body[40..48].try_into().unwrap());
                let size = u32::from_le_bytes(body[48..52].try_into().unwrap()) as usize;
                assert_eq!((offset, body.len()), (file.len() as u64, 6196));
                let is_full = file.len() + size > limit;
                file.extend(&body[52..52 + size]);
                driver.answer(&request, if is_full { 0x8007_0070 } else { 0 }, &[]);
            }
            end => {
                driver.answer(&request, if end == 2 { 0 } else { FAIL }, &[]);
                return (file, end);
            }
        }
    }
}

#[test]
fn test_file_is_copied_whole_and_its_progress_is_known() {
    // Numbers 6 and 17.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Copy);
    driver.bus_id = u64::MAX;
    for length in [0, 1, 6144, 6145, 100_000] {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let file = TempFile::new(&bytes);
        let (done, result) = outcome();
        rig.services.copy(file.0.clone(), destination(), done);
        let start = await_request(&mut driver);
        assert_eq!((start.kind, start.version, start.body.len()), (7, [1, 1], 1088));
        assert_eq!(start.body[1080..1088], (length as u64).to_le_bytes());
        driver.answer(&start, 0, &[]);
        let hold = result.get().unwrap();
        assert_eq!((hold.progress().size(), hold.progress().result()), (length as u64, None));
        assert_eq!(receive(&mut driver, usize::MAX), (bytes, 2));
        let progress = rig.services.copy_progress().unwrap();
        assert_eq!((progress.sent(), progress.result()), (length as u64, Some(Ok(()))));
    }
}

#[test]
fn test_copy_that_fails_or_loses_its_client_is_cancelled() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Copy);
    let file = TempFile::new(&vec![7; 40_000]);
    let mut begin = |status: u32| {
        let (done, result) = outcome();
        rig.services.copy(file.0.clone(), destination(), done);
        let start = await_request(&mut driver);
        driver.answer(&start, status, &[]);
        (result.get(), rig.services.copy_progress())
    };
    let (result, _) = begin(0x8007_0050);
    assert_eq!(result.map(drop), Err(ServiceError::Refused(Status::EXISTS)));
    let (hold, _) = begin(0);
    assert_eq!(receive(&mut driver, 10_000).1, 3, "the disk is full");
    let end = |progress: Option<CopyProgress>| progress.unwrap().result();
    let full = ServiceError::Refused(Status::DISK_FULL);
    assert_eq!(end(rig.services.copy_progress()), Some(Err(full)));
    drop(hold);
    driver.is_quiet();

    let mut begin = || {
        let (done, result) = outcome();
        rig.services.copy(file.0.clone(), destination(), done);
        let start = await_request(&mut driver);
        driver.answer(&start, 0, &[]);
        result.get().unwrap()
    };
    drop(begin());
    let (bytes, end_of_copy) = receive(&mut driver, usize::MAX);
    assert!(bytes.len() < 40_000 && end_of_copy == 3, "{} {end_of_copy}", bytes.len());
    assert!(matches!(end(rig.services.copy_progress()), Some(Err(ServiceError::Host(_)))));
}

#[test]
fn test_copy_of_what_is_no_file_is_refused_without_asking_the_guest() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Copy);
    let long = Destination { name: "n".repeat(260), ..destination() };
    let file = TempFile::new(b"x");
    for (path, to) in [
        (PathBuf::from("/no/such/file"), destination()),
        (std::env::temp_dir(), destination()),
        (file.0.clone(), long),
    ] {
        let (done, result) = outcome();
        rig.services.copy(path, to, done);
        let error = result.wait().map(drop);
        assert!(
            matches!(error, Err(ServiceError::Host(_) | ServiceError::Argument(_))),
            "{error:?}"
        );
        driver.is_quiet();
    }
}
