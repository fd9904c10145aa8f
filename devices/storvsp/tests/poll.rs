//! Adaptive busy-polling: a worker polls before it sleeps while that pays, and an idle guest costs
//! no CPU time. A test program of its own, as it watches the threads of the process.

mod guest;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use guest::scsi::{StorageChannel, read_srb};
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::RamDisk;
use synthvm_storvsp::{ControllerOptions, DiskOptions, ScsiController, WorkerOptions};

use vmbus_ring::{GpaRange, OutPacket, PacketKind, gpa_direct_header};

fn start(number: u32, options: ControllerOptions) -> (BareGuest, BareChannel, ScsiController) {
    let controller = ScsiController::with_options(number, options);
    controller
        .add_disk(0, Arc::new(RamDisk::new(1 << 20).unwrap()), DiskOptions::default())
        .unwrap();
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 16);
    channel.initialise();
    (guest, channel, controller)
}

/// Returns the state of the worker's thread (`S`: sleeping), and how often it was scheduled.
fn thread(name: &str) -> (char, u64) {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let folder = task.unwrap().path();
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        let found = read("comm")?.trim() == name;
        let state = read("stat")?.rsplit_once(") ")?.1.chars().next()?;
        let times = read("schedstat")?.split_whitespace().nth(2)?.parse().ok()?;
        found.then_some((state, times))
    };
    tasks.filter_map(of_thread).next().expect("the worker's thread")
}

/// Returns the mask of the guest-to-host ring. The worker clears it just before it sleeps.
fn is_masked(channel: &BareChannel) -> bool {
    channel.peek(channel.first_page as u64, 8, 4) != [0; 4]
}

fn read(channel: &mut BareChannel, times: u64) {
    for id in 0..times {
        channel.send(id, &read_srb(0, 0, 8), &[GuestRange::at(DATA, 4096)]);
        assert_eq!(channel.completion(id)[14], 1);
    }
}

#[test]
fn test_worker_of_a_guest_that_went_idle_does_not_run() {
    let (_guest, mut channel, _) = start(7, ControllerOptions::default());
    read(&mut channel, 2000);
    // After the worker unmasks the ring it still has to fall asleep.
    while is_masked(&channel) || thread("scsi7-ch0").0 != 'S' {
        std::thread::yield_now();
    }
    let (_, before) = thread("scsi7-ch0");
    // The guest is idle for a thousand poll windows.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(thread("scsi7-ch0"), ('S', before), "an idle worker ran");
    // The worker still serves requests.
    read(&mut channel, 10);
}

#[test]
fn test_worker_that_may_not_look_on_serves_all_the_same() {
    let options = ControllerOptions {
        workers: WorkerOptions::default().busy_poll(Duration::ZERO),
        ..ControllerOptions::default()
    };
    let (mut guest, mut channel, _) = start(8, options);
    read(&mut channel, 100);
    guest.close(channel);
}

/// Sends `burst` reads together and receives their completions, each once; repeats this `times`
/// times.
fn read_in_bursts(channel: &mut BareChannel, burst: u64, times: u64) {
    let payload = [&read_srb(0, 0, 8)[..]];
    let mut header = Vec::new();
    let memory = GuestRange::at(DATA, 4096);
    let range =
        GpaRange { byte_count: memory.count, byte_offset: memory.offset, pages: &memory.pages };
    gpa_direct_header(&[range], &mut header);
    for _ in 0..times {
        let mut batch = channel.outgoing.batch().unwrap();
        for id in 0..burst {
            batch
                .write(
                    &OutPacket::request(id, &payload).with_header(PacketKind::GpaDirect, &header),
                )
                .unwrap();
        }
        if batch.commit() {
            channel.ring_doorbell();
        }
        let mut outstanding: BTreeSet<u64> = (0..burst).collect();
        while !outstanding.is_empty() {
            let reply = channel.receive();
            assert!(
                outstanding.remove(&reply.transaction_id),
                "{} completed twice",
                reply.transaction_id
            );
            assert_eq!(reply.payload[14], 1);
        }
    }
}

fn moderated(controller: &ScsiController) -> u64 {
    controller.disks()[0].held_back
}

#[test]
fn test_many_requests_in_flight_all_complete_while_interrupts_are_delayed() {
    let (_guest, mut channel, controller) = start(10, ControllerOptions::default());
    read_in_bursts(&mut channel, 32, 500);
    assert_ne!(moderated(&controller), 0, "it was not even tried");
}

#[test]
fn test_one_request_at_a_time_is_never_delayed() {
    let (_guest, mut channel, controller) = start(11, ControllerOptions::default());
    read(&mut channel, 3000);
    assert_eq!(moderated(&controller), 0);
}

#[test]
fn test_worker_without_moderation_never_delays() {
    let options = ControllerOptions {
        workers: WorkerOptions::default().moderation(false),
        ..ControllerOptions::default()
    };
    let (_guest, mut channel, controller) = start(12, options);
    read_in_bursts(&mut channel, 32, 200);
    assert_eq!(moderated(&controller), 0);
}

#[test]
fn test_worker_that_looks_on_notices_that_its_channel_closes() {
    let (mut guest, mut channel, _) = start(9, ControllerOptions::default());
    for _ in 0..50 {
        read(&mut channel, 20);
        // Close right after the last completion: the worker polls, or has just gone to sleep.
        guest.close(channel);
        let offer = guest.offers[0];
        channel = guest.open_at(offer, 512, 16);
        channel.initialise();
    }
}
