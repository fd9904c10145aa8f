//! The path with a polling guest thread and a worker thread. Depth 1 mostly measures waking the
//! worker. Depth 64 keeps the worker awake and measures the work of the slower of the two threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use synthvm_block::RamDisk;
use synthvm_storvsp::{ControllerOptions, DiskOptions, ScsiController, WorkerOptions};
use vmbus_ring::{GpaRange, OutPacket, PacketKind, gpa_direct_header};

use crate::clock::best_round;
use crate::guest::scsi::{StorageChannel, read_srb, write_srb};
use crate::guest::{BareChannel, DATA};
use crate::number::Number;

/// Requests of a round: enough for a worker to sleep and wake as usual, few enough to find an
/// undisturbed round.
const REQUESTS: u64 = 2_000;
const ROUNDS: usize = 20;

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    let default = ControllerOptions::default();
    measure_polling("threads", &default, numbers);
    measure_polling(
        "threads_without_polling",
        &ControllerOptions {
            workers: WorkerOptions::default().busy_poll(Duration::ZERO),
            ..default
        },
        numbers,
    );
}

fn measure_polling(what: &str, options: &ControllerOptions, numbers: &mut Vec<Number>) {
    let controller = ScsiController::with_options(0, options.clone());
    let disk = Arc::new(RamDisk::new(64 << 20).expect("memory for a disk"));
    controller.add_disk(0, disk, DiskOptions::default()).expect("an empty LUN");
    let (mut guest, _) = crate::guest::connect(&[controller]);
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 32);
    channel.initialise();
    for depth in [1, 4, 16, 64] {
        let value = best_round(REQUESTS, ROUNDS, |requests| {
            let start = Instant::now();
            run(&mut channel, true, depth, requests);
            start.elapsed()
        });
        let name = format!("storvsp_read_4k_qd{depth}_{what}_ns_per_io");
        numbers.push(Number::new(name, "ns", value, f64::NAN));
    }
}

/// Keeps `depth` requests in flight. Each batch of completions is replaced immediately by one batch
/// of requests.
fn run(channel: &mut BareChannel, is_read: bool, depth: u64, requests: u64) {
    let (mut sent, mut received) = (0, 0);
    let mut header = Vec::new();
    while received < requests {
        let mut batch = channel.outgoing.batch().expect("a sound ring");
        while sent < requests && sent - received < depth {
            let page = [DATA + sent % 512];
            gpa_direct_header(
                &[GpaRange { byte_count: 4096, byte_offset: 0, pages: &page }],
                &mut header,
            );
            let lba = sent.wrapping_mul(0x9E37_79B9) % (16 << 10) * 8;
            let srb = if is_read { read_srb(0, lba, 8) } else { write_srb(0, lba, 8) };
            let payload = [&srb[..]];
            let packet = OutPacket::request(sent % depth, &payload)
                .with_header(PacketKind::GpaDirect, &header);
            if batch.write(&packet).is_err() {
                break;
            }
            sent += 1;
        }
        if batch.commit() {
            channel.ring_doorbell();
        }
        let before = received;
        while received == before {
            let mut batch = channel.incoming.batch().expect("a sound ring");
            while let Some(packet) = batch.next().expect("a sound ring") {
                let mut reply = [0; 64];
                packet.read_payload(&mut reply);
                assert_eq!(reply[14], 1, "a request failed");
                received += 1;
            }
            if batch.commit() {
                channel.ring_doorbell();
            }
            std::hint::spin_loop();
        }
    }
}
