//! A request allocates no memory once the worker is warm. A separate program, as it has an allocator
//! of its own.

mod guest;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use guest::scsi::{StorageChannel, read_srb, write_srb};
use guest::{BareChannel, DATA, GuestRange};
use synthvm_block::{Backend, Fault, Faulty, RamDisk, RawFile};
use synthvm_storvsp::{DiskOptions, ScsiController};
use vmbus_heap::{CountingAllocator, allocations};
use vmbus_ring::{OutPacket, PacketKind, gpa_direct_header};
use vmm_sys_util::tempfile::TempFile;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations of the worker's thread before the request that it took last.
static OF_WORKER: AtomicU64 = AtomicU64::new(0);

/// Reads and writes of 8 scattered pages, 32 at a time.
fn run(channel: &mut BareChannel, rounds: u64) {
    for round in 0..rounds {
        for id in 0..32 {
            let memory = GuestRange {
                offset: 0x200,
                count: 32768,
                pages: (0..9).map(|page| DATA + id * 20 + 2 * page).collect(),
            };
            let lba = (round * 32 + id) % 100 * 64;
            let srb = if id % 2 == 0 { read_srb(0, lba, 64) } else { write_srb(0, lba, 64) };
            channel.send(id, &srb, &[memory]);
        }
        for _ in 0..32 {
            assert_eq!(channel.receive().payload[14], 1);
        }
    }
}

#[test]
fn test_io_once_warm_allocates_nothing() {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(16 << 20).unwrap();
    let raw: Arc<dyn Backend> = Arc::new(RawFile::open(file.as_path(), false).unwrap());
    let ram: Arc<dyn Backend> = Arc::new(RamDisk::new(16 << 20).unwrap());
    for backend in [raw, ram] {
        let controller = ScsiController::new(0, 0);
        // Runs on the worker's thread.
        let reporting = Faulty::new(backend, |_| {
            OF_WORKER.store(allocations(), Ordering::Relaxed);
            Fault::None
        });
        controller.add_disk(0, Arc::new(reporting), DiskOptions::default()).unwrap();
        let (mut guest, _) = guest::connect(&[controller]);
        let offer = guest.offers[0];
        let mut channel = guest.open(offer, 16);
        channel.initialise();
        // Warm up at the full depth in one batch, so that every entry and buffer exists.
        fill_ring_in_one_batch(&mut channel);
        run(&mut channel, 20);
        let before = OF_WORKER.load(Ordering::Relaxed);
        assert!(before > 0, "warming up allocates: it is being counted");
        run(&mut channel, 100);
        assert_eq!(OF_WORKER.load(Ordering::Relaxed), before, "allocations in 3,200 requests");
    }
}

/// Sends 32 requests that become visible together, so that the worker takes them as one batch.
fn fill_ring_in_one_batch(channel: &mut BareChannel) {
    let pages: Vec<u64> = (0..9).map(|page| DATA + 2 * page).collect();
    let mut header = Vec::new();
    let range = vmbus_ring::GpaRange { byte_count: 32768, byte_offset: 0x200, pages: &pages };
    gpa_direct_header(&[range], &mut header);
    let srb = read_srb(0, 0, 64);
    let mut batch = channel.outgoing.batch().unwrap();
    for id in 0..64 {
        let payload = [&srb[..]];
        let packet = OutPacket::request(id, &payload).with_header(PacketKind::GpaDirect, &header);
        batch.write(&packet).unwrap();
    }
    if batch.commit() {
        channel.ring_doorbell();
    }
    for _ in 0..64 {
        channel.receive();
    }
}
