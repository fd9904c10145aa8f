//! The session against the real storvsp in the loopback VM.

mod display;
mod failures;

use std::sync::Arc;
use std::time::Duration;

use synthvm_block::{Backend, BlockSize, RamDisk};
use synthvm_storvsp::{DiskOptions, ScsiController};
use vmbus_client::{Client, Mdl, Platform};
use vmbus_host::core::ChannelKey;
use vmbus_loopback::{LoopbackPlatform, LoopbackVm, Mode};

use crate::{Address, Controller, Data, HostAdapter, Memory, Outcome, Request, StorageError};

const DISK: Address = Address { target: 0, lun: 0 };
const MIB: u64 = 1 << 20;

impl Memory for LoopbackPlatform {
    fn read_page(&self, page: u64, to: &mut [u8]) {
        let mdl = Mdl::new(to.len() as u32, 0, vec![page]).unwrap();
        to.copy_from_slice(&self.vm().pages().read_mdl(&mdl));
    }
}

/// A guest with one controller.
struct Guest {
    client: Client<LoopbackPlatform>,
    storage: ScsiController,
    key: ChannelKey,
    controller: Controller,
}

impl Guest {
    fn new(prepare: impl FnOnce(&ScsiController)) -> Self {
        let vm = LoopbackVm::new(Mode::Threaded);
        let storage = ScsiController::new(0, 0);
        prepare(&storage);
        let key = vm.offer(storage.clone()).unwrap();
        let mut client = Client::connect(vm.platform()).unwrap();
        let controller = Controller::open(&mut client, storage.instance()).unwrap();
        Self { client, storage, key, controller }
    }

    fn with_disk(backend: Arc<dyn Backend>) -> Self {
        Self::new(|storage| storage.add_disk(0, backend, DiskOptions::default()).unwrap())
    }

    fn vm(&self) -> LoopbackVm {
        self.client.platform().vm().clone()
    }

    fn memory(&self, bytes: u32, offset: u32) -> Mdl {
        let pages = (offset + bytes).div_ceil(4096) as usize;
        Mdl::new(bytes, offset, self.client.platform().allocate_pages(pages).unwrap()).unwrap()
    }

    fn execute(&mut self, cdb: &[u8], data: Data<'_>) -> Result<Outcome, StorageError> {
        let timeout = Some(Duration::from_secs(30));
        let request = Request { address: DISK, cdb, data, timeout };
        self.controller.execute(&mut self.client, &request)
    }
}

fn ram_disk(bytes: u64) -> Arc<RamDisk> {
    Arc::new(RamDisk::new(bytes).unwrap())
}

/// READ(16) or WRITE(16).
fn transfer(opcode: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

const READ: u8 = 0x88;
const WRITE: u8 = 0x8A;
const TEST_UNIT_READY: [u8; 6] = [0; 6];

#[test]
fn test_scan_finds_disks_and_dvd_drives_in_order() {
    let mut guest = Guest::new(|storage| {
        storage.add_disk(9, ram_disk(MIB), DiskOptions::default()).unwrap();
        storage.add_dvd(3, None, DiskOptions::default()).unwrap();
        storage.add_disk(63, ram_disk(MIB), DiskOptions::default()).unwrap();
    });
    let found = guest.controller.scan(&mut guest.client).unwrap();
    assert_eq!(found, [3, 9, 63].map(|lun| Address { target: 0, lun }));
}

#[test]
fn test_scan_of_an_empty_controller_finds_nothing() {
    let mut guest = Guest::new(|_| ());
    assert_eq!(guest.controller.scan(&mut guest.client).unwrap(), []);
}

#[test]
fn test_write_and_read_of_any_alignment_reach_the_disk() {
    let mut guest = Guest::with_disk(ram_disk(MIB));
    for (offset, blocks) in [(0, 8), (512, 8), (4092, 1), (4, 33)] {
        let bytes: Vec<u8> = (0..blocks * 512).map(|at| (at * 7 + offset) as u8).collect();
        let (from, to) =
            (guest.memory(blocks * 512, offset), guest.memory(blocks * 512, 4092 - offset));
        guest.vm().pages().write_mdl(&from, &bytes);
        let written = guest.execute(&transfer(WRITE, 5, blocks), Data::ToDevice(&from)).unwrap();
        assert!(written.is_good());
        assert_eq!(written.transferred, blocks * 512);
        let read = guest.execute(&transfer(READ, 5, blocks), Data::FromDevice(&to)).unwrap();
        assert_eq!((read.host_adapter(), read.target_status()), (HostAdapter::Ok, 0));
        assert_eq!(guest.vm().pages().read_mdl(&to), bytes);
    }
}

#[test]
fn test_disk_of_4_kib_blocks_is_read_in_its_own_blocks() {
    let disk = RamDisk::new(MIB).unwrap();
    disk.write(8192, &[7; 4096]).unwrap();
    let disk = disk.with_geometry(|geometry| geometry.block_size = BlockSize::B4096);
    let mut guest = Guest::with_disk(Arc::new(disk));
    let memory = guest.memory(4096, 0);
    assert!(guest.execute(&transfer(READ, 2, 1), Data::FromDevice(&memory)).unwrap().is_good());
    assert_eq!(guest.vm().pages().read_mdl(&memory), [7; 4096]);
}

#[test]
fn test_transfer_of_the_limit_succeeds_and_one_beyond_names_the_limit() {
    let mut guest = Guest::with_disk(ram_disk(16 * MIB));
    let limit = guest.controller.max_transfer();
    let memory = guest.memory(limit, 512);
    let read = transfer(READ, 0, limit / 512);
    assert!(guest.execute(&read, Data::FromDevice(&memory)).unwrap().is_good());
    let bytes = limit + 512;
    let memory = guest.memory(bytes, 0);
    let read = guest.execute(&transfer(READ, 0, bytes / 512), Data::FromDevice(&memory));
    assert_eq!(read, Err(StorageError::TooLong { bytes, limit }));
}

#[test]
fn test_drive_without_a_disc_gives_its_sense_data() {
    let mut guest = Guest::new(|storage| storage.add_dvd(0, None, DiskOptions::default()).unwrap());
    let outcome = guest.execute(&TEST_UNIT_READY, Data::None).unwrap();
    assert_eq!((outcome.host_adapter(), outcome.target_status()), (HostAdapter::Ok, 2));
    assert!(matches!(outcome.sense_code(), Some((2, 0x3A, _))), "{outcome:?}");
}

#[test]
fn test_unload_leaves_the_bus_fresh_for_the_next_driver() {
    let guest = Guest::with_disk(ram_disk(MIB));
    let vm = guest.vm();
    let platform = guest.client.unload().unwrap();
    let mut client = Client::connect(platform).unwrap();
    let mut controller = Controller::open(&mut client, guest.storage.instance()).unwrap();
    assert_eq!(controller.scan(&mut client).unwrap(), [DISK]);
    drop(client.unload().unwrap());
    drop(vm);
}
