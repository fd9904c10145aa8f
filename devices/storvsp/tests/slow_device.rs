//! A block device with slow discards does not delay the rest of its channel.

mod guest;

use std::sync::Arc;
use std::time::Duration;

use guest::scsi::{NO_DATA, Outcome, StorageChannel, TO_DISK, read_srb, srb};
use guest::{DATA, GuestRange};
use synthvm_block::conformance::Gate;
use synthvm_block::{Backend, IoMode, RawFile, RawOptions};
use synthvm_storvsp::{ControllerOptions, DiskOptions, ScsiController, WorkerOptions};
use vmm_sys_util::tempfile::TempFile;

fn image() -> TempFile {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    file
}

/// A hung UNMAP occupies its own disk's queue depth, and nothing else.
#[test]
fn test_channel_serves_other_disks_pauses_and_closes_while_an_unmap_hangs() {
    for io in [IoMode::Auto, IoMode::Threads] {
        let options = RawOptions { io, ..RawOptions::default() };
        let (slow_file, other_file) = (image(), image());
        let gate = Arc::new(Gate::closed());
        let slow = RawFile::open_as_slow_device(slow_file.as_path(), &options, &gate).unwrap();
        let other = RawFile::open_with(other_file.as_path(), &options).unwrap();
        let pause_limit = Duration::from_millis(20);
        let workers = WorkerOptions::default().pause_timeout(pause_limit);
        let options = ControllerOptions { workers, ..ControllerOptions::default() };
        let controller = ScsiController::with_options(0, options);
        let disks: [Arc<dyn Backend>; 2] = [Arc::new(slow), Arc::new(other)];
        for (lun, disk) in (0..).zip(disks) {
            controller.add_disk(lun, disk, DiskOptions::default()).unwrap();
        }
        let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
        let mut channel = guest.open(guest.offers[0], 4);
        channel.initialise();
        // One descriptor: 8 blocks from block 0 on.
        let mut list = [0; 24];
        list[..4].copy_from_slice(&[0, 22, 0, 16]);
        list[19] = 8;
        channel.poke(DATA, 0, &list);
        let unmap = srb(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], TO_DISK, 24);
        channel.send(1, &unmap, &[GuestRange::at(DATA, 24)]);
        gate.wait_for(1);
        for lun in [1, 0, 1] {
            let read = read_srb(lun, 3, 1);
            assert_eq!(
                channel.execute(&read, &[GuestRange::at(DATA + 1, 512)]),
                Outcome::good(512),
                "{io:?}"
            );
        }
        // Pause and close both end by their time limits, with the call still in progress.
        guest.bus.pause();
        guest.bus.resume();
        assert_eq!(channel.execute(&srb(1, &[0; 6], NO_DATA, 0), &[]), Outcome::good(0));
        guest.close(channel);
        gate.open();
    }
}
