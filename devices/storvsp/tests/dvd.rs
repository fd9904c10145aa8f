//! DVD drives through whole channels: discs are inserted and ejected while a guest reads them (spec
//! storvsc sections 8 and 12).

mod guest;

use std::sync::{Arc, Weak};

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::BlockSize;
use synthvm_block::{Backend, Fault, Faulty, RamDisk};
use synthvm_storvsp::{DiskOptions, DvdError, ScsiController, UnitKind};

const MIB: u64 = 1 << 20;

fn image(seed: u64) -> Arc<dyn Backend> {
    let disk = RamDisk::new(MIB).unwrap();
    disk.write(0, &pattern(seed, MIB as usize)).unwrap();
    Arc::new(disk.with_geometry(|geometry| geometry.read_only = true))
}

fn start(disc: Option<Arc<dyn Backend>>) -> (BareGuest, BareChannel, ScsiController) {
    let controller = ScsiController::new(0, 0);
    let options = DiskOptions { label: "first.iso".into(), ..DiskOptions::default() };
    controller.add_dvd(1, disc, options).unwrap();
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 16);
    channel.initialise();
    (guest, channel, controller)
}

fn read_disc(block: u8, blocks: u8) -> [u8; 64] {
    srb(1, &[0x28, 0, 0, 0, 0, block, 0, 0, blocks, 0], FROM_DISK, u32::from(blocks) * 2048)
}

fn memory(length: u32) -> [GuestRange; 1] {
    [GuestRange::at(DATA, length)]
}

/// Returns (event, status) of GET EVENT STATUS.
fn poll(channel: &mut BareChannel) -> (u8, u8) {
    let get = srb(1, &[0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0], FROM_DISK, 8);
    assert_eq!(channel.execute(&get, &memory(8)), Outcome::good(8));
    let answer = channel.peek(DATA, 4, 2);
    (answer[0], answer[1])
}

fn plain(channel: &mut BareChannel, cdb: [u8; 6]) -> Outcome {
    channel.execute(&srb(1, &cdb, NO_DATA, 0), &[])
}

const EJECT: [u8; 6] = [0x1B, 0, 0, 0, 2, 0];
const LOCK: [u8; 6] = [0x1E, 0, 0, 0, 1, 0];
const NO_DISC: Outcome =
    Outcome { srb: 0x84, scsi: 2, length: 0, packet: 0xC000_0185, sense: [2, 0x3A, 2] };

#[test]
fn test_disc_is_read_in_its_own_blocks_without_a_copy() {
    let (_guest, mut channel, controller) = start(Some(image(1)));
    assert_eq!(channel.test_unit_ready(1), Outcome::good(0));
    assert_eq!(channel.execute(&read_disc(3, 4), &memory(8192)), Outcome::good(8192));
    assert_eq!(channel.peek(DATA, 0, 8192), pattern(1, MIB as usize)[3 * 2048..7 * 2048]);
    let [high, low] = ((MIB / 2048) as u16).to_be_bytes();
    let beyond = srb(1, &[0x28, 0, 0, 0, high, low, 0, 0, 1, 0], FROM_DISK, 2048);
    assert_eq!(channel.execute(&beyond, &memory(2048)), Outcome::failed(0x84, [5, 0x21, 0]));
    // Checklist 49.
    let write = srb(1, &rw(0x8A, 0, 0, 1), TO_DISK, 2048);
    assert_eq!(channel.execute(&write, &memory(2048)), Outcome::failed(0x86, [5, 0x20, 0]));
    let report = controller.disks().remove(0);
    assert_eq!(
        (report.kind, report.lun, report.capacity, report.block_size),
        (UnitKind::Dvd, 1, MIB, 2048)
    );
    assert_eq!(
        (report.has_medium, report.tray_open, report.locked, report.read_only),
        (true, false, false, true)
    );
    assert_eq!(
        (report.stats.reads, report.stats.read_bytes, report.stats.copied_bytes),
        (1, 8192, 0)
    );
    assert!(!controller.resize_disk(1, 2 * MIB));
}

// Checklist 45 and 47. No notification: the guest polls the drive.
#[test]
fn test_inserted_and_exchanged_discs_are_found_by_polling() {
    let (_guest, mut channel, controller) = start(None);
    assert_eq!(channel.test_unit_ready(1), Outcome::failed(0x84, [2, 0x3A, 1]));
    assert_eq!(
        channel.execute(&read_disc(0, 1), &memory(2048)),
        Outcome::failed(0x84, [2, 0x3A, 1])
    );
    for seed in 1..4 {
        controller.insert(1, image(seed), format!("{seed}.iso")).unwrap();
        if seed > 1 {
            assert_eq!(poll(&mut channel), (3, 0));
        }
        assert_eq!(poll(&mut channel), (2, 2));
        assert_eq!(channel.execute(&read_disc(0, 1), &memory(2048)), Outcome::good(2048));
        assert_eq!(channel.peek(DATA, 0, 2048), pattern(seed, 2048));
        assert_eq!(controller.disks()[0].label, format!("{seed}.iso"));
    }
    assert_eq!(channel.try_receive(), None);
    assert_eq!(controller.disks()[0].stats.reads, 3, "the drive counts, not the disc");
}

// Checklist 46.
#[test]
fn test_guest_that_ejects_lets_go_of_the_image_unless_it_is_locked() {
    let disc = image(1);
    let held: Weak<dyn Backend> = Arc::downgrade(&disc);
    let (_guest, mut channel, controller) = start(Some(disc));
    assert_eq!(plain(&mut channel, LOCK), Outcome::good(0));
    assert_eq!(plain(&mut channel, EJECT), Outcome::failed(0x84, [5, 0x53, 2]));
    assert!(matches!(controller.eject(1, false), Err(DvdError::Locked)));
    assert_eq!(poll(&mut channel), (1, 2));
    assert_eq!(plain(&mut channel, [0x1E, 0, 0, 0, 0, 0]), Outcome::good(0));
    assert!(held.upgrade().is_some());
    assert_eq!(plain(&mut channel, EJECT), Outcome::good(0));
    assert_eq!(channel.test_unit_ready(1), NO_DISC);
    let report = controller.disks().remove(0);
    assert_eq!(
        (report.has_medium, report.tray_open, report.capacity, report.label.as_str()),
        (false, true, 0, "")
    );
    // The worker drops its queue before it takes the next command.
    assert!(held.upgrade().is_none());
    assert_eq!(poll(&mut channel), (3, 1));
}

#[test]
fn test_forced_ejection_finishes_requests_in_flight_and_a_new_disc_continues() {
    let stalled = Faulty::new(image(1), |_| Fault::Stall);
    let hold = stalled.hold();
    let (_guest, mut channel, controller) = start(Some(Arc::new(stalled)));
    channel.send(1, &read_disc(0, 1), &memory(2048));
    assert_eq!(plain(&mut channel, LOCK), Outcome::good(0));
    controller.eject(1, true).unwrap();
    assert_eq!(channel.test_unit_ready(1), NO_DISC);
    controller.insert(1, image(2), String::new()).unwrap();
    assert_eq!(
        channel.execute(&read_disc(0, 1), &[GuestRange::at(DATA + 1, 2048)]),
        Outcome::good(2048)
    );
    assert_eq!(channel.peek(DATA + 1, 0, 2048), pattern(2, 2048));
    hold.release();
    assert_eq!(Outcome::of(&channel.completion(1)), Outcome::good(2048));
    assert_eq!(channel.peek(DATA, 0, 2048), pattern(1, 2048));
}

#[test]
fn test_tray_after_a_reboot_of_the_guest_is_unlocked() {
    let (mut guest, mut channel, controller) = start(Some(image(1)));
    assert_eq!(plain(&mut channel, LOCK), Outcome::good(0));
    assert!(controller.disks()[0].locked);
    guest.close(channel);
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    channel.initialise();
    assert!(!controller.disks()[0].locked);
    controller.eject(1, false).unwrap();
    assert_eq!(channel.test_unit_ready(1), NO_DISC);
}

#[test]
fn test_drive_added_at_run_time_is_announced_and_removed_again() {
    let (_guest, mut channel, controller) = start(None);
    controller.add_dvd(5, Some(image(1)), DiskOptions::default()).unwrap();
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    let (outcome, data) = channel.inquiry(5, DATA);
    assert_eq!((outcome, &data[..2]), (Outcome::good(36), &[5, 0x80][..]));
    assert!(controller.remove_disk(5));
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    assert_eq!(channel.test_unit_ready(5), Outcome::no_such_lun());
}

#[test]
fn test_discs_and_drives_that_cannot_be_are_refused_by_name() {
    let (_guest, mut channel, controller) = start(Some(image(1)));
    controller.add_disk(0, image(2), DiskOptions::default()).unwrap();
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    let insert =
        |lun, backend| controller.insert(lun, backend, String::new()).unwrap_err().to_string();
    assert!(insert(0, image(3)).contains("LUN 0"));
    assert!(insert(64, image(3)).contains("LUN 64"));
    assert!(controller.eject(7, true).unwrap_err().to_string().contains("LUN 7"));
    let tiny = RamDisk::new(1536).unwrap();
    assert!(insert(1, Arc::new(tiny)).contains("2048"));
    let native =
        RamDisk::new(MIB).unwrap().with_geometry(|geometry| geometry.block_size = BlockSize::B4096);
    assert!(insert(1, Arc::new(native)).contains("4096"));
    let add = |lun, options| controller.add_dvd(lun, None, options).unwrap_err().to_string();
    assert!(add(1, DiskOptions::default()).contains("LUN 1"));
    assert!(add(64, DiskOptions::default()).contains("LUN 64"));
    assert!(
        add(2, DiskOptions { serial: Some("\n".into()), ..DiskOptions::default() })
            .contains("serial")
    );
    // The old disc is still in the drive.
    assert_eq!(channel.execute(&read_disc(0, 1), &memory(2048)), Outcome::good(2048));
    assert_eq!(channel.peek(DATA, 0, 2048), pattern(1, 2048));
}

// Checklist 19 and 20 for all addresses, as Linux probes them, on a full controller and on one with
// gaps.
#[test]
fn test_controller_with_64_units_shows_each_and_no_phantom() {
    let controller = ScsiController::new(0, 0);
    for lun in 0..64 {
        if lun % 3 == 0 {
            controller.add_dvd(lun, None, DiskOptions::default()).unwrap();
        } else {
            controller.add_disk(lun, image(1), DiskOptions::default()).unwrap();
        }
    }
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 16);
    channel.initialise();
    let mut cdb = [0; 12];
    cdb[0] = 0xA0;
    cdb[6..10].copy_from_slice(&4096_u32.to_be_bytes());
    let luns = |channel: &mut BareChannel| {
        let outcome = channel.execute(&srb(0, &cdb, FROM_DISK, 4096), &memory(4096));
        let list = channel.peek(DATA, 0, outcome.length as usize);
        list[8..].chunks(8).map(|entry| entry[1]).collect::<Vec<_>>()
    };
    assert!(luns(&mut channel).into_iter().eq(0..64));
    let mut names = Vec::new();
    for lun in 0..64 {
        let (outcome, data) = channel.inquiry(lun, DATA);
        assert_eq!((outcome, data[0]), (Outcome::good(36), if lun % 3 == 0 { 5 } else { 0 }));
        let page = srb(lun, &[0x12, 1, 0x83, 0, 255, 0], FROM_DISK, 255);
        let outcome = channel.execute(&page, &memory(255));
        names.push(channel.peek(DATA, 16, outcome.length as usize - 16));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 64, "each has a name of its own");
    // LUNs above the last one, other targets and other buses are absent.
    for (path, target, lun) in [(0, 0, 64), (0, 0, 255), (0, 1, 0), (7, 1, 0), (1, 0, 5)] {
        let mut inquiry = srb(lun, &[0x12, 0, 0, 0, 36, 0], FROM_DISK, 36);
        (inquiry[17], inquiry[18]) = (path, target);
        assert_eq!(channel.execute(&inquiry, &memory(36)), Outcome::good(36));
        assert_eq!(channel.peek(DATA, 0, 1), [0x7F], "{path}:{target}:{lun}");
        let mut ready = srb(lun, &[0; 6], NO_DATA, 0);
        (ready[17], ready[18]) = (path, target);
        assert_eq!(channel.execute(&ready, &[]), Outcome::no_such_lun());
    }
    // A removed LUN in between is absent too.
    assert!(controller.remove_disk(1));
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    assert_eq!(channel.inquiry(1, DATA).1[0], 0x7F);
    assert_eq!(luns(&mut channel).len(), 63);
}
