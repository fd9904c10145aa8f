//! Requests that fail, and controllers that go away.

use synthvm_block::{Fault, Faulty, IoError};
use vmbus_client::Error;

use super::*;

const EIO: i32 = 5;

#[test]
fn test_cdb_of_0_or_17_bytes_is_refused() {
    let mut guest = Guest::with_disk(ram_disk(MIB));
    assert_eq!(guest.execute(&[], Data::None), Err(StorageError::Cdb(0)));
    assert_eq!(guest.execute(&[0; 17], Data::None), Err(StorageError::Cdb(17)));
    assert!(guest.execute(&TEST_UNIT_READY, Data::None).unwrap().is_good());
}

#[test]
fn test_failed_read_gives_sense_data_and_the_next_one_succeeds() {
    let disk = Faulty::new(ram_disk(MIB), |request| {
        if request.offset == 0 { Fault::Fail(IoError::Os(EIO)) } else { Fault::None }
    });
    let mut guest = Guest::with_disk(Arc::new(disk));
    let memory = guest.memory(512, 0);
    let failed = guest.execute(&transfer(READ, 0, 1), Data::FromDevice(&memory)).unwrap();
    assert_eq!((failed.host_adapter(), failed.target_status()), (HostAdapter::Ok, 2));
    assert_eq!(failed.sense_code().map(|(key, _, _)| key), Some(3));
    assert!(guest.execute(&transfer(READ, 1, 1), Data::FromDevice(&memory)).unwrap().is_good());
}

#[test]
fn test_absent_unit_is_a_selection_timeout() {
    let mut guest = Guest::with_disk(ram_disk(MIB));
    let address = Address { target: 0, lun: 5 };
    let timeout = Some(Duration::from_secs(30));
    let request = Request { address, cdb: &TEST_UNIT_READY, data: Data::None, timeout };
    let outcome = guest.controller.execute(&mut guest.client, &request).unwrap();
    assert_eq!(outcome.host_adapter(), HostAdapter::SelectionTimeout);
}

#[test]
fn test_disk_added_later_is_announced_once_and_found() {
    let mut guest = Guest::with_disk(ram_disk(MIB));
    assert_eq!(guest.controller.scan(&mut guest.client).unwrap(), [DISK]);
    assert!(!guest.controller.take_changed());
    guest.storage.add_disk(1, ram_disk(MIB), DiskOptions::default()).unwrap();
    while !guest.controller.take_changed() {
        assert!(guest.client.wait(), "no announcement");
    }
    assert!(!guest.controller.take_changed());
    let found = guest.controller.scan(&mut guest.client).unwrap();
    assert_eq!(found, [DISK, Address { target: 0, lun: 1 }]);
}

#[test]
fn test_rescinded_controller_fails_requests_and_the_client_lives() {
    let mut guest = Guest::with_disk(ram_disk(MIB));
    let instance = guest.storage.instance();
    guest.vm().bus().rescind(guest.key);
    while guest.client.offers().any(|offer| offer.instance == instance) {
        assert!(guest.client.wait(), "no rescind");
    }
    let error = guest.execute(&TEST_UNIT_READY, Data::None).unwrap_err();
    assert!(matches!(error, StorageError::Channel(_)), "{error}");
    guest.client.unload().unwrap();
}

#[test]
fn test_reset_controller_is_initialised_again() {
    let mut guest = Guest::with_disk(ram_disk(MIB));
    guest.controller.reset(&mut guest.client).unwrap();
    assert!(guest.execute(&TEST_UNIT_READY, Data::None).unwrap().is_good());
}

#[test]
fn test_controller_that_is_not_offered_leaves_no_channel() {
    let vm =
        LoopbackVm::with_config(vmbus_loopback::Config::new(Mode::Stepped).timeout(Duration::ZERO))
            .unwrap();
    let mut client = Client::connect(vm.platform()).unwrap();
    let absent = ScsiController::new(3, 0).instance();
    let error = Controller::open(&mut client, absent).unwrap_err();
    assert_eq!(error, StorageError::Channel(Error::Stalled));
    client.unload().unwrap();
}
