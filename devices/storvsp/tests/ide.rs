//! A disk behind an IDE controller, with its own channel (spec storvsc section 9, checklist 50).

mod guest;

use std::sync::Arc;

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::RamDisk;
use synthvm_storvsp::{ControllerOptions, DiskOptions, IDE_DISK, IdeDisk, IdePlace};

fn disk(place: IdePlace) -> IdeDisk {
    // The device must ignore this option and offer no subchannels.
    let options = ControllerOptions { max_subchannels: 3, ..ControllerOptions::default() };
    let backend = Arc::new(RamDisk::new(1 << 20).unwrap());
    IdeDisk::new(place, backend, DiskOptions::default(), options).unwrap()
}

fn start(disk: &IdeDisk) -> (BareGuest, BareChannel, Vec<u8>) {
    let (mut guest, _) = BareGuest::new(vec![Box::new(disk.clone())]);
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    let properties = channel.initialise();
    (guest, channel, properties)
}

fn at(mut srb: [u8; 64], path: u8, target: u8) -> [u8; 64] {
    srb[17..19].copy_from_slice(&[path, target]);
    srb
}

#[test]
fn test_ide_offer_tells_controller_and_device() {
    let places = [
        IdePlace::PrimaryMaster,
        IdePlace::PrimarySlave,
        IdePlace::SecondaryMaster,
        IdePlace::SecondarySlave,
    ];
    let (guest, _) = BareGuest::new(places.map(|place| Box::new(disk(place)) as _).into());
    for (index, offer) in guest.offers.iter().enumerate() {
        let (controller, device) = (index as u8 / 2, index as u8 % 2);
        assert_eq!((offer.class, offer.flags, offer.subchannel), (IDE_DISK, 1, 0));
        let instance = [controller, 0, 0, 0, device, 0, 0x99, 0x88, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(offer.instance.to_bytes(), instance);
        assert_eq!(offer.user_defined, [0, 0, controller, device, 0, 0, 0, 0, 2, 0, 0, 0]);
    }
    assert_eq!(guest.offers.len(), 4);
}

#[test]
fn test_ide_disk_is_its_target_on_any_path_and_lun_0_only() {
    let (_guest, mut channel, _) = start(&disk(IdePlace::SecondarySlave));
    let memory = [GuestRange::at(DATA, 512)];
    for path in [0, 1, 7, 255] {
        assert_eq!(channel.execute(&at(write_srb(0, 1, 1), path, 1), &memory), Outcome::good(512));
    }
    for target in [0, 2, 255] {
        assert_eq!(
            channel.execute(&at(read_srb(0, 1, 1), 0, target), &memory),
            Outcome::no_such_lun()
        );
    }
    assert_eq!(channel.execute(&at(read_srb(1, 1, 1), 0, 1), &memory), Outcome::no_such_lun());
    // INQUIRY reports an absent LUN as such.
    let inquiry = srb(0, &[0x12, 0, 0, 0, 36, 0], FROM_DISK, 36);
    assert_eq!(channel.execute(&at(inquiry, 0, 0), &[GuestRange::at(DATA, 36)]), Outcome::good(36));
    assert_eq!(channel.peek(DATA, 0, 1), [0x7F]);
    let mut cdb = [0; 12];
    cdb[0] = 0xA0;
    cdb[9] = 64;
    let report = at(srb(0, &cdb, FROM_DISK, 64), 0, 1);
    assert_eq!(channel.execute(&report, &[GuestRange::at(DATA, 64)]), Outcome::good(16));
    assert_eq!(channel.peek(DATA, 0, 16), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn test_ide_disk_has_no_subchannels() {
    let (_guest, mut channel, properties) = start(&disk(IdePlace::PrimaryMaster));
    assert_eq!((u32_at(&properties, 16), u32_at(&properties, 20)), (0, 0));
    assert_eq!(u32_at(&channel.ask(&packet(CREATE_SUB_CHANNELS, 1), &[]), 8), 0xC000_000D);
}

#[test]
fn test_ide_disk_is_reported_resized_and_flushed() {
    let disk = disk(IdePlace::PrimarySlave);
    let (_guest, mut channel, _) = start(&disk);
    let report = disk.report().unwrap();
    assert_eq!((report.controller, report.lun, report.capacity), (1, 0, 1 << 20));
    disk.resize(1 << 19);
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    let ready = at(srb(0, &[0; 6], NO_DATA, 0), 0, 1);
    assert_eq!(channel.execute(&ready, &[]), Outcome::failed(0x84, [6, 0x2A, 9]));
    assert_eq!(channel.execute(&ready, &[]), Outcome::good(0));
    disk.flush().unwrap();
}
