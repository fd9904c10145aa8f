//! Faults around a worker: broken rings, stalled backends, channels and controllers that are
//! removed with requests in flight. No acknowledged write is lost, and nothing else stops.

mod guest;

use std::sync::Arc;

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::{Backend, Fault, Faulty, Operation, RamDisk};
use synthvm_storvsp::{DiskOptions, ScsiController};
use vmbus_protocol::message::MessageType;

fn ram_disk() -> Arc<RamDisk> {
    Arc::new(RamDisk::new(1 << 20).unwrap())
}

fn controller(number: u32, backend: Arc<dyn Backend>) -> ScsiController {
    let controller = ScsiController::new(number, 0);
    controller.add_disk(0, backend, DiskOptions::default()).unwrap();
    controller
}

fn open(guest: &mut BareGuest, offer: usize) -> BareChannel {
    let offer = guest.offers[offer];
    let mut channel = guest.open(offer, 16);
    channel.initialise();
    channel
}

/// Returns a backend that stalls the reads of `disk`.
fn stalling(disk: &Arc<RamDisk>) -> Faulty {
    Faulty::new(disk.clone(), |request| match request.operation {
        Operation::Read => Fault::Stall,
        _ => Fault::None,
    })
}

#[test]
fn test_ring_broken_with_requests_in_flight_loses_no_acknowledged_write_and_no_other_channel() {
    let disk = ram_disk();
    let controllers = [controller(0, Arc::new(stalling(&disk))), controller(1, ram_disk())];
    let (mut guest, _) = guest::connect(&controllers);
    let mut other = open(&mut guest, 1);
    for (round, garbage) in [0xFFFF_FFF8_u32, 3, 0x7FFF_FFFF].into_iter().enumerate() {
        let mut channel = open(&mut guest, 0);
        let sector = round as u64;
        channel.poke(DATA, 0, &pattern(sector, 512));
        let write = write_srb(0, sector, 1);
        assert_eq!(channel.execute(&write, &[GuestRange::at(DATA, 512)]), Outcome::good(512));
        for id in 0..20 {
            channel.send(id, &read_srb(0, id, 1), &[GuestRange::at(DATA + 1 + id, 512)]);
        }
        channel.poke(channel.first_page as u64, 0, &garbage.to_le_bytes());
        channel.ring_doorbell();
        assert_eq!(other.test_unit_ready(0), Outcome::good(0));
        // Returns after the worker has released the ring and its requests have ended.
        guest.close(channel);
        assert_eq!(controllers[0].disks()[0].stats.in_flight, 0);
        let mut there = [0; 512];
        disk.read(sector * 512, &mut there).unwrap();
        assert_eq!(there[..], pattern(sector, 512));
    }
    assert_eq!(other.execute(&read_srb(0, 0, 1), &[GuestRange::at(DATA, 512)]), Outcome::good(512));
}

#[test]
fn test_stalled_disk_with_many_requests_leaves_the_other_disks_of_its_channel_alone() {
    const STALLED: u64 = 300;
    let slow = stalling(&ram_disk());
    let hold = slow.hold();
    let controller = controller(0, Arc::new(slow));
    controller.add_disk(1, ram_disk(), DiskOptions::default()).unwrap();
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 33);
    channel.initialise();
    for id in 0..STALLED {
        while !channel.try_send(id, &read_srb(0, id, 1), &[GuestRange::at(DATA + id, 512)]) {
            std::thread::yield_now();
        }
    }
    for round in 0..500 {
        let memory = [GuestRange::at(DATA + 1000, 512)];
        assert_eq!(channel.execute(&write_srb(1, round, 1), &memory), Outcome::good(512));
    }
    let in_flight = |lun: usize| controller.disks()[lun].stats.in_flight;
    assert_eq!((in_flight(0), in_flight(1)), (STALLED, 0));
    hold.release();
    let mut seen = [false; STALLED as usize];
    for _ in 0..STALLED {
        let packet = channel.receive();
        assert_eq!(Outcome::of(&packet.payload), Outcome::good(512));
        assert!(!std::mem::replace(&mut seen[packet.transaction_id as usize], true));
    }
    assert_eq!(channel.try_receive(), None);
    assert_eq!((controller.disks()[0].stats.reads, in_flight(0)), (STALLED, 0));
}

#[test]
fn test_stalled_disk_that_is_taken_away_is_reported_until_its_requests_have_ended() {
    let slow = stalling(&ram_disk());
    let hold = slow.hold();
    let controller = controller(0, Arc::new(slow));
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let mut channel = open(&mut guest, 0);
    channel.send(1, &read_srb(0, 0, 1), &[GuestRange::at(DATA, 512)]);
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    assert_eq!(controller.removed_disks(), []);
    assert!(controller.remove_disk(0));
    let removed = controller.removed_disks();
    assert!(controller.disks().is_empty() && removed[0].removed, "{removed:?}");
    assert_eq!((removed.len(), removed[0].stats.in_flight), (1, 1));
    hold.release();
    while !controller.removed_disks().is_empty() {
        std::thread::yield_now();
    }
    guest.close(channel);
}

// Checklist 43, for all three resets.
#[test]
fn test_resets_of_every_kind_are_answered_after_what_came_before() {
    for reset in [RESET_LUN, RESET_ADAPTER, RESET_BUS] {
        let slow = stalling(&ram_disk());
        let hold = slow.hold();
        let (mut guest, _) = guest::connect(&[controller(0, Arc::new(slow))]);
        let mut channel = open(&mut guest, 0);
        for id in 0..10 {
            channel.send(id, &read_srb(0, id, 1), &[GuestRange::at(DATA + id, 512)]);
        }
        channel.send(10, &packet(reset, 0), &[]);
        assert_eq!(channel.test_unit_ready(0), Outcome::good(0), "later requests go on");
        assert_eq!(channel.try_receive(), None);
        hold.release();
        let order: Vec<_> = (0..11).map(|_| channel.receive().transaction_id).collect();
        assert!(order.iter().copied().eq(0..11), "{order:?}");
        // Without requests in flight a reset completes immediately.
        assert_eq!(u32_at(&channel.ask(&packet(reset, 0), &[]), 8), 0);
    }
}

// Checklist 44.
#[test]
fn test_controller_that_is_taken_away_completes_what_ends_in_time() {
    let slow = stalling(&ram_disk());
    let hold = slow.hold();
    let (mut guest, keys) = guest::connect(&[controller(0, Arc::new(slow))]);
    let mut channel = open(&mut guest, 0);
    channel.send(1, &read_srb(0, 0, 1), &[GuestRange::at(DATA, 512)]);
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    guest.bus.rescind(keys[0]);
    hold.release();
    assert_eq!(Outcome::of(&channel.completion(1)), Outcome::good(512));
    guest.expect(MessageType::RescindChannelOffer);
    guest.teardown(channel.relid, channel.gpadl);
}

#[test]
fn test_closed_channel_with_writes_in_flight_loses_none_that_was_acknowledged() {
    let disk = ram_disk();
    let controller = controller(0, disk.clone());
    let (mut guest, _) = guest::connect(&[controller]);
    for round in 0..20 {
        let mut channel = open_again(&mut guest);
        for id in 0..32_u64 {
            channel.poke(DATA + id, 0, &pattern(round * 32 + id, 512));
            channel.send(id, &write_srb(0, round * 32 + id, 1), &[GuestRange::at(DATA + id, 512)]);
        }
        // The guest closes the channel with some requests completed and some in flight.
        let answered: Vec<_> = (0..round).map(|_| channel.receive()).collect();
        guest.close(channel);
        for packet in answered {
            assert_eq!(Outcome::of(&packet.payload), Outcome::good(512));
            let sector = round * 32 + packet.transaction_id;
            let mut there = [0; 512];
            disk.read(sector * 512, &mut there).unwrap();
            assert_eq!(there[..], pattern(sector, 512));
        }
    }
}

fn open_again(guest: &mut BareGuest) -> BareChannel {
    let offer = guest.offers[0];
    let mut channel = guest.open_at(offer, 512, 16);
    channel.initialise();
    channel
}
