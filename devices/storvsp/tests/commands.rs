//! Commands beyond a single read or write, through whole channels: from the guest's ring to the
//! backend.

mod guest;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::{Backend, Fault, Faulty, IoError, Operation, RamDisk};
use synthvm_storvsp::{DiskOptions, DiskStats, ScsiController};

const MIB: u64 = 1 << 20;

/// Returns a RAM disk filled with a pattern.
fn ram_disk() -> Arc<RamDisk> {
    let disk = RamDisk::new(16 * MIB).unwrap();
    disk.write(0, &pattern(1, 16 << 20)).unwrap();
    Arc::new(disk)
}

fn start(backend: Arc<dyn Backend>) -> (BareGuest, BareChannel, ScsiController) {
    let controller = ScsiController::new(0, 0);
    controller.add_disk(0, backend, DiskOptions::default()).unwrap();
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 16);
    channel.initialise();
    (guest, channel, controller)
}

fn stats(controller: &ScsiController) -> DiskStats {
    controller.disks()[0].stats
}

fn bytes(disk: &RamDisk, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    disk.read(offset, &mut bytes).unwrap();
    bytes
}

/// Writes `data` to the guest memory that [`memory`] describes.
fn poke(channel: &BareChannel, data: &[u8]) {
    for (page, chunk) in data.chunks(4096).enumerate() {
        channel.poke(DATA + page as u64, 0, chunk);
    }
}

fn memory(length: usize) -> [GuestRange; 1] {
    [GuestRange::at(DATA, length as u32)]
}

/// Executes a command with data for the disk.
fn send(channel: &mut BareChannel, cdb: &[u8], data: &[u8]) -> Outcome {
    poke(channel, data);
    channel.execute(&srb(0, cdb, TO_DISK, data.len() as u32), &memory(data.len()))
}

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let descriptors = ranges.len() as u16 * 16;
    let mut list =
        [(descriptors + 6).to_be_bytes(), descriptors.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in ranges {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

fn unmap_cdb(list: &[u8]) -> [u8; 10] {
    let [high, low] = (list.len() as u16).to_be_bytes();
    [0x42, 0, 0, 0, 0, 0, 0, high, low, 0]
}

// Checklist 34: the backend makes data durable; the device must not complete a flush before.
#[test]
fn test_flush_is_done_before_it_is_answered_and_fua_reaches_the_backend() {
    let forced = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&forced);
    let stalled = Faulty::new(ram_disk(), move |request| match request.operation {
        Operation::Flush => Fault::Stall,
        Operation::Write { fua: true } => {
            counted.fetch_add(1, Ordering::Relaxed);
            Fault::None
        }
        _ => Fault::None,
    });
    let hold = stalled.hold();
    let (_guest, mut channel, controller) = start(Arc::new(stalled));
    assert_eq!(channel.execute(&write_srb(0, 0, 1), &memory(512)), Outcome::good(512));
    assert_eq!(forced.load(Ordering::Relaxed), 0);
    for cdb in [rw(0x8A, 0x08, 0, 1), rw(0x8E, 0, 0, 1)] {
        assert_eq!(channel.execute(&srb(0, &cdb, TO_DISK, 512), &memory(512)), Outcome::good(512));
    }
    assert_eq!(forced.load(Ordering::Relaxed), 2);
    // SYNCHRONIZE CACHE, with IMMED or without, and STOP.
    let flushes = [[0x35, 0, 0, 0, 0, 0], [0x35, 2, 0, 0, 0, 0], [0x1B, 0, 0, 0, 0, 0]];
    for (id, flush) in flushes.iter().enumerate() {
        let length = if flush[0] == 0x35 { 10 } else { 6 };
        channel.send(
            id as u64,
            &srb(0, &[&flush[..], &[0; 4]].concat()[..length], NO_DATA, 0),
            &[],
        );
    }
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    assert_eq!((channel.try_receive(), stats(&controller).flushes), (None, 0));
    hold.release();
    for _ in flushes {
        assert_eq!(Outcome::of(&channel.receive().payload), Outcome::good(0));
    }
    assert_eq!(stats(&controller).flushes, 3);
}

// Checklist 35.
#[test]
fn test_unmap_of_one_range_and_of_thousands_discards_exactly_those() {
    let disk = ram_disk();
    let (_guest, mut channel, controller) = start(disk.clone());
    let before = pattern(1, 16 << 20);
    let list = unmap_list(&[(8, 16)]);
    assert_eq!(send(&mut channel, &unmap_cdb(&list), &list), Outcome::good(24));
    assert_eq!(bytes(&disk, 8 * 512, 16 * 512), [0; 16 * 512]);
    assert_eq!(bytes(&disk, 24 * 512, 512), before[24 * 512..25 * 512]);
    // Every other sector from 100 on, in one command.
    let ranges: Vec<_> = (0..4095).map(|index| (100 + index * 2, 1)).collect();
    let list = unmap_list(&ranges);
    assert_eq!(send(&mut channel, &unmap_cdb(&list), &list), Outcome::good(list.len() as u32));
    let after = bytes(&disk, 0, 16 << 20);
    for sector in 100..100 + 4095 * 2 {
        let at = sector * 512..(sector + 1) * 512;
        let discarded = sector % 2 == 0;
        assert!(
            if discarded { after[at] == [0; 512] } else { after[at.clone()] == before[at] },
            "{sector}"
        );
    }
    let stats = stats(&controller);
    assert_eq!((stats.discards, stats.discarded_bytes), (2, (16 + 4095) * 512));
    assert_eq!((stats.requests, stats.copied_bytes, stats.errors), (2, 0, 0));
    // An invalid list discards nothing, not even its valid ranges.
    let list = unmap_list(&[(0, 1), (16 * MIB / 512, 1)]);
    assert_eq!(send(&mut channel, &unmap_cdb(&list), &list), Outcome::failed(0x84, [5, 0x21, 0]));
    assert_eq!(bytes(&disk, 0, 512), before[..512]);
}

#[test]
fn test_unmap_that_fails_in_between_ends_once_with_that_error() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let faulty = Faulty::new(ram_disk(), move |request| match request.operation {
        Operation::Discard if counted.fetch_add(1, Ordering::Relaxed) == 10 => {
            Fault::Fail(IoError::Os(5))
        }
        _ => Fault::None,
    });
    let (_guest, mut channel, controller) = start(Arc::new(faulty));
    let list = unmap_list(&(0..1000).map(|index| (index * 8, 4)).collect::<Vec<_>>());
    assert_eq!(send(&mut channel, &unmap_cdb(&list), &list), Outcome::failed(0x84, [3, 0x0C, 0]));
    assert!(begun.load(Ordering::Relaxed) < 20, "no more is begun once a part failed");
    assert_eq!((stats(&controller).errors, stats(&controller).discards), (1, 0));
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    assert_eq!(channel.try_receive(), None);
}

// Checklist 36.
#[test]
fn test_write_same_zeroes_and_patterns_reach_every_block_and_no_other() {
    let disk = ram_disk();
    let (_guest, mut channel, controller) = start(disk.clone());
    let before = pattern(1, 16 << 20);
    // Without data, then a block of zeroes, then a block of ones for more than one part.
    let ndob = srb(0, &rw(0x93, 0x01, 16, 2048), NO_DATA, 0);
    assert_eq!(channel.execute(&ndob, &[]), Outcome::good(0));
    assert_eq!(bytes(&disk, 16 * 512, 1 << 20), vec![0; 1 << 20]);
    assert_eq!(send(&mut channel, &rw(0x93, 0x08, 8192, 3), &[0; 512]), Outcome::good(512));
    assert_eq!(bytes(&disk, 8192 * 512, 3 * 512), [0; 3 * 512]);
    assert_eq!(stats(&controller).copied_bytes, 0);
    let block = pattern(5, 512);
    let cdb = [0x41, 0, 0, 0, 0x28, 0, 0, 0x0B, 0xB9, 0];
    assert_eq!(send(&mut channel, &cdb, &block), Outcome::good(512));
    let written = bytes(&disk, 0x2800 * 512, 3001 * 512);
    assert!(written.chunks(512).all(|sector| sector == block));
    for sector in [15, 16 + 2048, 8191, 8195, 0x27FF, 0x2800 + 3001] {
        assert_eq!(
            bytes(&disk, sector * 512, 512),
            before[sector as usize * 512..][..512],
            "{sector}"
        );
    }
    let stats = stats(&controller);
    assert_eq!((stats.zeroes, stats.zeroed_bytes), (2, 2051 * 512));
    assert_eq!(
        (stats.writes, stats.written_bytes, stats.copied_bytes),
        (1, 3001 * 512, 3001 * 512)
    );
}

#[test]
fn test_verify_tells_equal_from_different_to_the_last_byte() {
    const LENGTH: usize = 600 << 10;
    let disk = ram_disk();
    let (_guest, mut channel, controller) = start(disk.clone());
    let mut expected = pattern(1, 16 << 20)[8 * 512..8 * 512 + LENGTH].to_vec();
    let cdb = rw(0x8F, 0x02, 8, (LENGTH / 512) as u32);
    assert_eq!(send(&mut channel, &cdb, &expected), Outcome::good(LENGTH as u32));
    assert_eq!(stats(&controller).copied_bytes, LENGTH as u64);
    *expected.last_mut().unwrap() ^= 1;
    assert_eq!(send(&mut channel, &cdb, &expected), Outcome::failed(0x84, [0xE, 0x1D, 0]));
    // One block, repeated.
    assert_eq!(send(&mut channel, &rw(0x93, 0, 100, 1000), &[9; 512]), Outcome::good(512));
    assert_eq!(send(&mut channel, &rw(0x8F, 0x06, 100, 1000), &[9; 512]), Outcome::good(512));
    assert_eq!(
        send(&mut channel, &rw(0x8F, 0x06, 100, 1001), &[9; 512]),
        Outcome::failed(0x84, [0xE, 0x1D, 0])
    );
    // WRITE AND VERIFY succeeds if the disk returns the written data.
    let data = pattern(7, LENGTH);
    assert_eq!(
        send(&mut channel, &rw(0x8E, 0x02, 64, (LENGTH / 512) as u32), &data),
        Outcome::good(LENGTH as u32)
    );
    assert!(bytes(&disk, 64 * 512, LENGTH) == data);
    assert_eq!(stats(&controller).errors, 0);
}

#[test]
fn test_write_and_verify_of_a_disk_that_loses_writes_is_a_miscompare() {
    /// A queue that completes writes without executing them.
    #[derive(Debug)]
    struct Loses(Arc<RamDisk>);
    impl Backend for Loses {
        fn geometry(&self) -> synthvm_block::Geometry {
            self.0.geometry()
        }
        fn identity(&self) -> &[u8] {
            b"loses"
        }
        fn queue(&self) -> std::io::Result<Box<dyn synthvm_block::Queue>> {
            Ok(Box::new(LosesQueue(self.0.queue()?)))
        }
    }
    struct LosesQueue(Box<dyn synthvm_block::Queue>);
    impl synthvm_block::Queue for LosesQueue {
        fn submit(&mut self, requests: &mut Vec<Box<synthvm_block::Request>>) {
            for request in requests.iter_mut() {
                if let Operation::Write { fua } = request.operation {
                    assert!(fua, "verified means on the medium");
                    request.buffer.deselect();
                }
            }
            self.0.submit(requests);
        }
        fn poll(&mut self, done: &mut Vec<synthvm_block::Completion>) {
            self.0.poll(done);
        }
        fn event(&self) -> Option<std::os::fd::RawFd> {
            self.0.event()
        }
    }
    let (_guest, mut channel, _) = start(Arc::new(Loses(ram_disk())));
    let outcome = send(&mut channel, &rw(0x8E, 0x02, 0, 8), &pattern(3, 4096));
    assert_eq!(outcome, Outcome::failed(0x84, [0xE, 0x1D, 0]));
}

#[test]
fn test_jobs_beyond_the_limit_are_sent_again_and_resets_wait_for_whole_jobs() {
    const JOBS: u64 = 20;
    let stalled = Faulty::new(ram_disk(), |request| match request.operation {
        Operation::Discard => Fault::Stall,
        _ => Fault::None,
    });
    let hold = stalled.hold();
    let (_guest, mut channel, controller) = start(Arc::new(stalled));
    let list = unmap_list(&(0..40).map(|index| (index * 8, 4)).collect::<Vec<_>>());
    poke(&channel, &list);
    let request = srb(0, &unmap_cdb(&list), TO_DISK, list.len() as u32);
    for id in 0..JOBS {
        channel.send(id, &request, &memory(list.len()));
    }
    for id in 16..JOBS {
        assert_eq!(Outcome::of(&channel.completion(id)), Outcome::queue_full());
    }
    channel.send(100, &packet(RESET_BUS, 0), &[]);
    // Simple requests still run, and a removed disk finishes its requests.
    assert_eq!(channel.execute(&read_srb(0, 0, 1), &memory(512)), Outcome::good(512));
    assert!(controller.remove_disk(0));
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    hold.release();
    let mut ended = [false; 16];
    for _ in 0..16 {
        let packet = channel.receive();
        assert_eq!(Outcome::of(&packet.payload), Outcome::good(list.len() as u32));
        assert!(!std::mem::replace(&mut ended[packet.transaction_id as usize], true));
    }
    assert_eq!(u32_at(&channel.completion(100), 8), 0);
    assert_eq!(channel.try_receive(), None);
}

#[test]
fn test_channel_closed_during_a_compound_command_ends_and_opens_again() {
    let stalled = Faulty::new(ram_disk(), |request| match request.operation {
        Operation::Read => Fault::Stall,
        _ => Fault::None,
    });
    let (mut guest, mut channel, _) = start(Arc::new(stalled));
    poke(&channel, &[0; 4096]);
    channel.send(1, &srb(0, &rw(0x8F, 0x02, 0, 8), TO_DISK, 4096), &memory(4096));
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    guest.close(channel);
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    channel.initialise();
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
}

#[test]
fn test_lba_status_of_a_disk_that_cannot_tell_is_mapped() {
    let (_guest, mut channel, _) = start(ram_disk());
    let mut cdb = rw(0x9E, 0x12, 16, 64);
    cdb[14] = 0;
    assert_eq!(channel.execute(&srb(0, &cdb, FROM_DISK, 64), &memory(64)), Outcome::good(24));
    let answer = channel.peek(DATA, 0, 24);
    let blocks = (16 * MIB / 512 - 16) as u32;
    assert_eq!(
        (answer[3], answer[15], &answer[16..20], answer[20]),
        (20, 16, &blocks.to_be_bytes()[..], 0)
    );
}

// Checklist 37.
#[test]
fn test_reservation_conflict_has_a_status_and_no_sense_and_resets_keep_keys() {
    let (_guest, mut channel, _) = start(ram_disk());
    let reserve = |channel: &mut BareChannel, action, kind, key, new_key| {
        let mut list = [0; 24];
        (list[7], list[15]) = (key, new_key);
        send(channel, &[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], &list)
    };
    let keys = |channel: &mut BareChannel| {
        let read = srb(0, &[0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0], FROM_DISK, 64);
        let outcome = channel.execute(&read, &memory(64));
        channel.peek(DATA, 0, outcome.length as usize)
    };
    assert_eq!(reserve(&mut channel, 1, 1, 0, 0), Outcome::conflict());
    assert_eq!(reserve(&mut channel, 0, 0, 0, 0xA), Outcome::good(24));
    assert_eq!(reserve(&mut channel, 1, 1, 0xA, 0), Outcome::good(24));
    assert_eq!(reserve(&mut channel, 2, 3, 0xA, 0), Outcome::failed(0x86, [5, 0x26, 4]));
    assert_eq!(u32_at(&channel.ask(&packet(RESET_BUS, 0), &[]), 8), 0);
    assert_eq!(keys(&mut channel), [0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0xA]);
    assert_eq!(channel.execute(&write_srb(0, 0, 1), &memory(512)), Outcome::good(512));
    assert_eq!(reserve(&mut channel, 3, 0, 0xA, 0), Outcome::good(24));
    assert_eq!(keys(&mut channel), [0, 0, 0, 2, 0, 0, 0, 0]);
}
