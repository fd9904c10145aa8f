//! GET LBA STATUS of a disk with a slow image. Nothing else waits for it.

mod guest;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange, HookedDisk};
use synthvm_block::conformance::Gate;
use synthvm_block::{IoError, RamDisk};
use synthvm_storvsp::{ControllerOptions, DiskOptions, DiskStats, ScsiController, WorkerOptions};

const SIZE: u64 = 1 << 20;

/// Maximum number of pending queries of one channel; further ones get TASK SET FULL.
const MOST: u64 = 16;

/// The failure of a query.
#[derive(Clone, Copy)]
enum Failure {
    Error,
    Panic,
}

struct Setup {
    guest: BareGuest,
    channel: BareChannel,
    controller: ScsiController,
    /// The gate at which the queries of block states of LUN 0 wait.
    gate: Arc<Gate>,
    /// The failure of each such query, if any.
    failure: Arc<Mutex<Option<Failure>>>,
}

/// Starts a controller with two disks. The image of LUN 0 is behind a gate.
fn start_with(options: ControllerOptions) -> Setup {
    let controller = ScsiController::with_options(0, options);
    let (gate, failure) = (Arc::new(Gate::closed()), Arc::<Mutex<_>>::default());
    let (at_gate, of_query) = (Arc::clone(&gate), Arc::clone(&failure));
    let gated = HookedDisk::new(SIZE, move || {
        at_gate.pass();
        let failure = *of_query.lock().unwrap();
        match failure {
            None => Ok(()),
            Some(Failure::Error) => Err(IoError::Os(5)),
            Some(Failure::Panic) => panic!("as tested"),
        }
    });
    controller.add_disk(0, gated, DiskOptions::default()).unwrap();
    controller.add_disk(1, Arc::new(RamDisk::new(SIZE).unwrap()), DiskOptions::default()).unwrap();
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    channel.initialise();
    Setup { guest, channel, controller, gate, failure }
}

fn start() -> Setup {
    start_with(ControllerOptions::default())
}

fn question(lun: u8) -> [u8; 64] {
    srb(lun, &rw(0x9E, 0x12, 0, 24), FROM_DISK, 24)
}

fn memory(index: u64) -> [GuestRange; 1] {
    [GuestRange::at(DATA + index, 24)]
}

impl Setup {
    /// Sends a query to LUN 0, and waits until it is at the gate.
    fn ask(&mut self, id: u64) {
        self.channel.send(id, &question(0), &memory(id));
        self.gate.wait_for(1);
    }

    fn completion(&mut self, id: u64) -> Outcome {
        Outcome::of(&self.channel.completion(id))
    }

    fn stats(&self, lun: u8) -> DiskStats {
        self.controller.disks().into_iter().find(|disk| disk.lun == lun).unwrap().stats
    }
}

#[test]
fn test_image_that_blocks_holds_up_neither_its_disk_nor_others() {
    let mut setup = start();
    setup.ask(1);
    assert_eq!(setup.stats(0).in_flight, 1);
    for lun in [0, 1] {
        assert_eq!(setup.channel.test_unit_ready(lun), Outcome::good(0));
        let sector = [GuestRange::at(DATA + 64, 512)];
        assert_eq!(setup.channel.execute(&write_srb(lun, 0, 1), &sector), Outcome::good(512));
        assert_eq!(setup.channel.execute(&read_srb(lun, 0, 1), &sector), Outcome::good(512));
    }
    assert_eq!(setup.channel.execute(&question(1), &memory(2)), Outcome::good(24));
    assert_eq!(setup.channel.try_receive(), None);
    setup.gate.open();
    assert_eq!(setup.completion(1), Outcome::good(24));
    let blocks = (SIZE / 512) as u32;
    let answer = setup.channel.peek(DATA + 1, 0, 24);
    assert_eq!((answer[3], &answer[16..20]), (20, &blocks.to_be_bytes()[..]));
    assert_eq!((setup.stats(0).in_flight, setup.stats(0).errors), (0, 0));
}

#[test]
fn test_reset_waits_for_the_question() {
    let mut setup = start();
    setup.ask(1);
    setup.channel.send(2, &packet(RESET_BUS, 0), &[]);
    assert_eq!(setup.channel.test_unit_ready(0), Outcome::good(0));
    assert_eq!(setup.channel.try_receive(), None);
    setup.gate.open();
    assert_eq!(setup.completion(1), Outcome::good(24));
    assert_eq!(u32_at(&setup.channel.completion(2), 8), 0);
}

#[test]
fn test_disk_removed_while_its_image_is_asked_answers_and_then_is_gone() {
    let mut setup = start();
    setup.ask(1);
    assert!(setup.controller.remove_disk(0));
    // ENUMERATE_BUS.
    assert_eq!(setup.channel.receive().payload[0], ENUMERATE_BUS);
    assert_eq!(setup.channel.test_unit_ready(0), Outcome::no_such_lun());
    assert_eq!(setup.controller.removed_disks().len(), 1);
    setup.gate.open();
    assert_eq!(setup.completion(1), Outcome::good(24));
    assert!(setup.controller.removed_disks().is_empty());
}

#[test]
fn test_channel_closes_during_a_query_of_the_image_and_the_next_channel_gets_no_answer() {
    let mut setup = start();
    setup.ask(1);
    let offer = setup.guest.offers[0];
    let Setup { mut guest, channel, controller, gate, .. } = setup;
    guest.close(channel);
    // The query is still in progress at the image, and counts as in flight.
    assert_eq!(controller.disks()[0].stats.in_flight, 1);
    let mut channel = guest.open(offer, 8);
    channel.initialise();
    channel.send(1, &question(0), &memory(1));
    gate.open();
    assert_eq!(Outcome::of(&channel.completion(1)), Outcome::good(24));
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    assert_eq!(channel.try_receive(), None);
    assert_eq!(controller.disks()[0].stats.in_flight, 0);
}

#[test]
fn test_pause_ends_at_its_limit_and_the_question_is_answered_after_the_resume() {
    let limit = Duration::from_millis(1);
    let mut setup = start_with(ControllerOptions {
        workers: WorkerOptions::default().pause_timeout(limit),
        ..ControllerOptions::default()
    });
    setup.ask(1);
    setup.guest.bus.pause();
    assert_eq!(setup.stats(0).in_flight, 1);
    setup.gate.open();
    setup.guest.bus.resume();
    assert_eq!(setup.completion(1), Outcome::good(24));
    assert_eq!(setup.channel.test_unit_ready(0), Outcome::good(0));
}

#[test]
fn test_questions_one_past_the_limit_are_to_come_again() {
    let mut setup = start();
    setup.ask(0);
    for id in 1..=MOST {
        setup.channel.send(id, &question(0), &memory(id));
    }
    assert_eq!(setup.completion(MOST), Outcome::queue_full());
    // The limit includes the queries of other disks.
    assert_eq!(setup.channel.execute(&question(1), &memory(MOST)), Outcome::queue_full());
    setup.gate.open();
    for id in 0..MOST {
        assert_eq!(setup.completion(id), Outcome::good(24));
    }
    assert_eq!(setup.channel.execute(&question(0), &memory(0)), Outcome::good(24));
    assert_eq!(setup.channel.execute(&question(1), &memory(0)), Outcome::good(24));
}

#[test]
fn test_image_that_fails_or_panics_fails_the_question_and_nothing_else() {
    for failure in [Failure::Error, Failure::Panic] {
        let mut setup = start();
        *setup.failure.lock().unwrap() = Some(failure);
        setup.gate.open();
        for _ in 0..3 {
            let failed = Outcome::failed(0x84, [3, 0x11, 0]);
            assert_eq!(setup.channel.execute(&question(0), &memory(0)), failed);
        }
        assert_eq!((setup.stats(0).errors, setup.stats(0).in_flight), (3, 0));
        *setup.failure.lock().unwrap() = None;
        assert_eq!(setup.channel.execute(&question(0), &memory(0)), Outcome::good(24));
    }
}
