//! Disks that are added, removed and exchanged while a worker is in the middle of a batch.
//!
//! The primary channel notifies the guest of a change, and the guest may then send commands on any
//! channel. A worker of another channel may have read the old set of disks already, but must answer
//! from the new set.

mod guest;

use std::sync::{Arc, Mutex};

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange, HookedDisk};
use synthvm_block::RamDisk;
use synthvm_storvsp::{
    ControllerOptions, DiskOptions, InlineWorkers, ScsiController, WorkerOptions,
};

const SIZE: u64 = 1 << 20;

/// LUN of the disk whose GET LBA STATUS changes the set of disks.
const TRIGGER: u8 = 0;
/// LUN of the logical unit that is changed.
const CHANGED: u8 = 5;

/// A change that runs once, in the first query of block states. Inline workers make the query on
/// the thread that serves the channel, so the hook runs between two packets of a batch.
#[derive(Default)]
struct Hook(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Hook {
    fn set(&self, hook: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(hook));
    }

    fn run(&self) {
        if let Some(hook) = self.0.lock().unwrap().take() {
            hook();
        }
    }
}

fn ram_disk(byte: u8) -> Arc<RamDisk> {
    let disk = RamDisk::new(SIZE).unwrap();
    disk.write(0, &[byte; 4096]).unwrap();
    Arc::new(disk)
}

struct Setup {
    _guest: BareGuest,
    channel: BareChannel,
    controller: ScsiController,
    hook: Arc<Hook>,
}

/// Starts a controller with one inline channel and the disk with the hook.
fn start(prepare: impl FnOnce(&ScsiController)) -> Setup {
    let inline = InlineWorkers::default();
    let options = ControllerOptions {
        workers: WorkerOptions::default().inline(inline.clone()),
        ..ControllerOptions::default()
    };
    let controller = ScsiController::with_options(0, options);
    let hook = Arc::new(Hook::default());
    let in_query = Arc::clone(&hook);
    let disk = HookedDisk::new(SIZE, move || {
        in_query.run();
        Ok(())
    });
    controller.add_disk(TRIGGER, disk, DiskOptions::default()).unwrap();
    prepare(&controller);
    let (mut guest, _) = guest::connect_inline(std::slice::from_ref(&controller), &inline);
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    channel.initialise();
    Setup { _guest: guest, channel, controller, hook }
}

impl Setup {
    /// Sends two requests in one batch and runs `change` during the first. Returns the outcome of
    /// the second.
    fn ask_after(
        &mut self,
        change: impl FnOnce(&ScsiController) + Send + 'static,
        request: &[u8],
        memory: &[GuestRange],
    ) -> Outcome {
        let controller = self.controller.clone();
        self.hook.set(move || change(&controller));
        let trigger = srb(TRIGGER, &rw(0x9E, 0x12, 0, 24), FROM_DISK, 24);
        self.channel.send(1, &trigger, &[GuestRange::at(DATA + 8, 24)]);
        self.channel.send(2, request, memory);
        let mut outcome = None;
        while outcome.is_none() {
            let packet = self.channel.receive();
            match packet.transaction_id {
                1 => assert_eq!(Outcome::of(&packet.payload), Outcome::good(24)),
                2 => outcome = Some(Outcome::of(&packet.payload)),
                // ENUMERATE_BUS.
                _ => assert_eq!(packet.payload[0], ENUMERATE_BUS),
            }
        }
        assert!(self.hook.0.lock().unwrap().is_none(), "the change has happened");
        outcome.unwrap()
    }

    /// Returns the common value of the first `length` bytes at [`DATA`].
    fn first_byte(&self, length: usize) -> u8 {
        let bytes = self.channel.peek(DATA, 0, length);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        bytes[0]
    }
}

#[test]
fn test_disk_added_within_a_batch_answers_the_next_packet_of_it() {
    let mut setup = start(|_| {});
    let read = read_srb(CHANGED, 0, 1);
    let add = |controller: &ScsiController| {
        controller.add_disk(CHANGED, ram_disk(7), DiskOptions::default()).unwrap();
    };
    assert_eq!(setup.ask_after(add, &read, &[GuestRange::at(DATA, 512)]), Outcome::good(512));
    assert_eq!(setup.first_byte(512), 7);
}

#[test]
fn test_disk_added_within_a_batch_is_in_the_report_of_luns() {
    let mut setup = start(|_| {});
    let luns = srb(0, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], FROM_DISK, 64);
    let add = |controller: &ScsiController| {
        controller.add_disk(CHANGED, ram_disk(7), DiskOptions::default()).unwrap();
    };
    assert_eq!(setup.ask_after(add, &luns, &[GuestRange::at(DATA, 64)]), Outcome::good(24));
    assert_eq!(setup.channel.peek(DATA, 17, 1), [CHANGED]);
}

#[test]
fn test_disk_removed_within_a_batch_is_absent_to_the_next_packet_of_it() {
    let mut setup = start(|controller| {
        controller.add_disk(CHANGED, ram_disk(7), DiskOptions::default()).unwrap();
    });
    let ready = srb(CHANGED, &[0; 6], NO_DATA, 0);
    let remove = |controller: &ScsiController| assert!(controller.remove_disk(CHANGED));
    assert_eq!(setup.ask_after(remove, &ready, &[]), Outcome::no_such_lun());
}

#[test]
fn test_disk_replaced_within_a_batch_is_read_as_the_new_one() {
    let mut setup = start(|controller| {
        controller.add_disk(CHANGED, ram_disk(7), DiskOptions::default()).unwrap();
    });
    let replace = |controller: &ScsiController| {
        assert!(controller.remove_disk(CHANGED));
        controller.add_disk(CHANGED, ram_disk(9), DiskOptions::default()).unwrap();
    };
    let read = read_srb(CHANGED, 0, 1);
    assert_eq!(setup.ask_after(replace, &read, &[GuestRange::at(DATA, 512)]), Outcome::good(512));
    assert_eq!(setup.first_byte(512), 9);
}

#[test]
fn test_disc_exchanged_within_a_batch_is_read_as_the_new_one() {
    let mut setup = start(|controller| {
        controller.add_dvd(CHANGED, Some(ram_disk(7)), DiskOptions::default()).unwrap();
    });
    let insert = |controller: &ScsiController| {
        controller.insert(CHANGED, ram_disk(9), String::new()).unwrap();
    };
    let read = srb(CHANGED, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], FROM_DISK, 2048);
    assert_eq!(setup.ask_after(insert, &read, &[GuestRange::at(DATA, 2048)]), Outcome::good(2048));
    assert_eq!(setup.first_byte(2048), 9);
}

/// A request taken before a change ends on the old disk, even if the worker refreshes its view of
/// the set before it submits the request.
#[test]
fn test_requests_taken_before_a_change_in_the_same_batch_are_still_submitted() {
    let mut setup = start(|controller| {
        for lun in [1, 2, 3] {
            controller.add_disk(lun, ram_disk(lun), DiskOptions::default()).unwrap();
        }
    });
    let controller = setup.controller.clone();
    setup.hook.set(move || {
        assert!(controller.remove_disk(1));
        assert!(controller.remove_disk(2));
        controller.add_disk(CHANGED, ram_disk(7), DiskOptions::default()).unwrap();
    });
    for lun in [1, 2, 3] {
        let page = DATA + u64::from(lun);
        setup.channel.send(lun.into(), &read_srb(lun, 0, 1), &[GuestRange::at(page, 512)]);
    }
    let trigger = srb(TRIGGER, &rw(0x9E, 0x12, 0, 24), FROM_DISK, 24);
    setup.channel.send(8, &trigger, &[GuestRange::at(DATA, 24)]);
    setup.channel.send(9, &srb(2, &[0; 6], NO_DATA, 0), &[]);
    let mut ended = Vec::new();
    while ended.len() < 5 {
        let packet = setup.channel.receive();
        if packet.transaction_id != 0 {
            ended.push((packet.transaction_id, Outcome::of(&packet.payload)));
        }
    }
    ended.sort_by_key(|(id, _)| *id);
    let good = |id| (id, Outcome::good(512));
    let rest = [(8, Outcome::good(24)), (9, Outcome::no_such_lun())];
    assert_eq!(ended, [&[good(1), good(2), good(3)][..], &rest].concat());
    for lun in [1, 2, 3] {
        assert_eq!(setup.channel.peek(DATA + u64::from(lun), 0, 512), [lun; 512]);
    }
}
