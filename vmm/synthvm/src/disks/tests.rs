use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use synthvm_block::conformance::Gate;
use synthvm_block::{BlockSize, IoError, IoMode, Operation, ThrottleStats};
use synthvm_images::{CreateOptions, Format, Parents};
use synthvm_machine::GuestMemory;
use synthvm_machine::testing::{begin, end};
use synthvm_storvsp::ControllerOptions;
use vm_memory::GuestAddress;
use vmbus_gpadl::GuestRam;
use vmm_sys_util::tempdir::TempDir;
use vmm_sys_util::tempfile::TempFile;

use super::testing::{Rig, TestHost};
use super::*;
use crate::config::{BufferMode, ByteSize, DiskConfig, DvdConfig, MAX_DISK_BUSY_POLL_MICROSECONDS};
use crate::storage_guest::BareGuest;

const MIB: u64 = 1 << 20;

fn image(size: u64) -> (TempFile, DiskConfig) {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    let disk = DiskConfig::new(file.as_path());
    (file, disk)
}

fn ids(disks: &DiskSet) -> Vec<String> {
    disks.reports().into_iter().map(|(_, id, _)| id).collect()
}

#[test]
fn test_disks_without_a_lun_take_the_lowest_free_one_again_after_removal() {
    let disks = DiskSet::new(1);
    let (files, configs): (Vec<_>, Vec<_>) = (0..4).map(|_| image(MIB)).unzip();
    for config in &configs[..3] {
        disks.add(config).unwrap();
    }
    assert_eq!(ids(&disks), ["0:0", "0:1", "0:2"]);
    disks.remove("0:1").unwrap();
    assert_eq!(disks.add(&configs[3]).unwrap().lun, 1);
    drop(files);
}

#[test]
fn test_disks_without_an_image_are_distinguished_and_reported_by_kind() {
    let disks = DiskSet::new(1);
    for text in ["ram:1M", "ram:1M", "null:1G,readonly"] {
        disks.add(&text.parse().unwrap()).unwrap();
    }
    let reports = disks.reports();
    let labels: Vec<_> = reports.iter().map(|(report, ..)| report.label.as_str()).collect();
    assert_eq!(labels, ["ram:1M", "ram:1M", "null:1G"]);
    assert_eq!(
        reports.iter().map(|(report, ..)| report.read_only).collect::<Vec<_>>(),
        [false, false, true]
    );
    // The serial numbers are derived from kind and place: equal in the next machine, and all
    // distinct.
    let serials = |disks: &DiskSet| -> Vec<String> {
        disks.reports().into_iter().map(|(report, ..)| report.serial).collect()
    };
    let first = serials(&disks);
    assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
    let again = DiskSet::new(1);
    again.add(&"ram:1M".parse().unwrap()).unwrap();
    assert_eq!(serials(&again)[0], first[0]);
}

#[test]
fn test_disks_without_an_image_grow_and_go() {
    let disks = DiskSet::new(1);
    for (id, text) in [("ram", "ram:1M,id=ram"), ("null", "null:1M,id=null,iops=1000")] {
        disks.add(&text.parse().unwrap()).unwrap();
        disks.resize(id, 2 * MIB).unwrap();
        let capacity = |id: &str| {
            disks
                .reports()
                .into_iter()
                .find(|(_, name, _)| name == id)
                .map(|(report, ..)| report.capacity)
        };
        assert_eq!(capacity(id), Some(2 * MIB));
        assert!(disks.resize(id, MIB).is_err(), "a disk never becomes smaller");
        if id == "ram" {
            let error = disks.resize(id, 1 << 50).unwrap_err().to_string();
            assert!(error.contains("`ram` cannot be made 1024T"), "{error}");
            assert_eq!(capacity(id), Some(2 * MIB));
        }
        disks.remove(id).unwrap();
    }
    assert!(ids(&disks).is_empty());
}

#[test]
fn test_disk_that_was_removed_leaves_its_image_to_others() {
    let (_file, config) = image(MIB);
    let (first, second) = (DiskSet::new(1), DiskSet::new(1));
    first.add(&config).unwrap();
    assert!(matches!(second.add(&config), Err(DiskError::Open(_))));
    first.remove("0:0").unwrap();
    second.add(&config).unwrap();
}

#[test]
fn test_disk_that_cannot_be_added_leaves_everything_as_it_was() {
    let disks = DiskSet::new(1);
    let (_file, mut config) = image(MIB);
    config.id = Some("data".into());
    disks.add(&config).unwrap();
    let (_other, mut other) = image(MIB);
    for (change, why) in [
        ((|disk| disk.id = Some("data".into())) as fn(&mut DiskConfig), "the id `data`"),
        (|disk| disk.lun = Some(0), "LUN 0 on controller 0"),
        (|disk| disk.controller = 16, "0 to 15"),
        (|disk| disk.path = PathBuf::from("/nowhere/x.img"), "/nowhere/x.img"),
        (|disk| disk.serial = Some(String::new()), "serial"),
    ] {
        let mut wrong = other.clone();
        change(&mut wrong);
        let error = disks.add(&wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(ids(&disks), ["data"]);
    other.id = Some("0:0".into());
    assert!(disks.add(&other).is_err(), "a place is a name too");
}

/// Creates an image of `format` with sectors of `sector` bytes.
fn formatted(dir: &TempDir, format: Format, sector: u32) -> DiskConfig {
    let path = dir.as_path().join(format!("{sector}.{format}"));
    let mut make = CreateOptions::new(format, 8 * MIB);
    make.sector_size = Some(sector);
    synthvm_images::create(&path, &make).unwrap();
    DiskConfig::new(path)
}

#[test]
fn test_disk_with_a_size_creates_its_image_once_and_opens_it_as_it_is() {
    let dir = TempDir::new().unwrap();
    for format in Format::ALL {
        let path = dir.as_path().join(format!("new.{format}"));
        let new = |mib: u64| DiskConfig {
            size: Some(ByteSize::from_bytes(mib * MIB)),
            format: Some(format),
            ..DiskConfig::new(&path)
        };
        for size in [8, 64] {
            let disks = DiskSet::new(1);
            disks.add(&new(size)).unwrap();
            assert_eq!(disks.reports()[0].0.capacity, 8 * MIB, "{format}");
        }
        let info = synthvm_images::info(&path, None, Parents::Refuse).unwrap();
        assert_eq!(info.format, format);
    }
    let nowhere = DiskConfig {
        size: Some(ByteSize::from_bytes(MIB)),
        ..DiskConfig::new(dir.as_path().join("none/a.img"))
    };
    assert!(DiskSet::new(1).add(&nowhere).unwrap_err().to_string().contains("none/a.img"));
}

#[test]
fn test_disk_with_smaller_blocks_than_its_image_is_refused_by_the_option() {
    let dir = TempDir::new().unwrap();
    let disks = DiskSet::new(1);
    let image = formatted(&dir, Format::Vhdx, 4096);
    let small = DiskConfig { block_size: Some(BlockSize::B512), ..image.clone() };
    let error = disks.add(&small).unwrap_err().to_string();
    assert!(error.contains("block-size=512") && error.contains("4096"), "{error}");
    assert_eq!(ids(&disks), [""; 0]);
    // The image's own block size may be given explicitly.
    disks.add(&DiskConfig { block_size: Some(BlockSize::B4096), ..image.clone() }).unwrap();
    disks.remove("0:0").unwrap();
    disks.add(&image).unwrap();
    assert_eq!(disks.reports()[0].0.block_size, 4096);
}

#[test]
fn test_disk_with_larger_blocks_than_its_image_has_them_in_every_format() {
    let dir = TempDir::new().unwrap();
    for format in Format::ALL {
        let disks = DiskSet::new(1);
        let image = formatted(&dir, format, 512);
        for (size, bytes) in [(BlockSize::B512, 512), (BlockSize::B4096, 4096)] {
            disks.add(&DiskConfig { block_size: Some(size), ..image.clone() }).unwrap();
            assert_eq!(disks.reports()[0].0.block_size, bytes, "{format}");
            disks.remove("0:0").unwrap();
        }
    }
    let disks = DiskSet::new(1);
    let (_file, odd) = image(MIB + 512);
    let error = disks
        .add(&DiskConfig { block_size: Some(BlockSize::B4096), ..odd })
        .unwrap_err()
        .to_string();
    assert!(error.contains("block-size=4096") && error.contains("1049088"), "{error}");
}

#[test]
fn test_disk_resized_has_the_new_size_and_never_loses_data() {
    let disks = DiskSet::new(1);
    let (file, mut config) = image(MIB);
    config.id = Some("data".into());
    disks.add(&config).unwrap();
    let capacity = || disks.reports()[0].0.capacity;
    disks.resize("0:0", 3 * MIB).unwrap();
    assert_eq!((capacity(), file.as_file().metadata().unwrap().len()), (3 * MIB, 3 * MIB));
    let error = disks.resize("data", MIB).unwrap_err().to_string();
    assert!(error.contains("smaller") && error.contains("3M"), "{error}");
    assert!(disks.resize("data", 3 * MIB + 1).unwrap_err().to_string().contains("blocks of 512"));
    assert_eq!((capacity(), file.as_file().metadata().unwrap().len()), (3 * MIB, 3 * MIB));
    let unknown = disks.resize("else", MIB).unwrap_err().to_string();
    assert_eq!(unknown, "there is no disk `else`; there are data");
}

#[test]
fn test_dvd_drive_takes_and_gives_discs_while_it_is_there() {
    let disks = DiskSet::new(1);
    let (file, first) = image(MIB);
    let (_other, second) = image(2 * MIB);
    let drive =
        DvdConfig { path: Some(first.path.clone()), id: Some("dvd".into()), ..Default::default() };
    assert_eq!(disks.add_dvd(&drive).unwrap().id, "dvd");
    let path = || disks.reports()[0].0.label.clone();
    assert_eq!(path(), first.path.display().to_string());
    disks.insert("dvd", &second.path).unwrap();
    assert_eq!(path(), second.path.display().to_string());
    disks.add(&first).expect("the first disc was let go of");
    disks.eject("0:0", false).unwrap();
    assert_eq!(path(), "");
    let missing = disks.insert("dvd", Path::new("/nowhere.iso")).unwrap_err().to_string();
    assert!(missing.contains("/nowhere.iso"), "{missing}");
    assert!(disks.insert("0:1", &second.path).is_err(), "a disk takes no disc");
    assert!(disks.resize("dvd", MIB).unwrap_err().to_string().contains("DVD"));
    disks.remove("dvd").unwrap();
    assert_eq!(ids(&disks), ["0:1"]);
    drop(file);
}

#[test]
fn test_drive_that_cannot_be_added_leaves_everything_as_it_was() {
    let disks = DiskSet::new(1);
    let (_file, config) = image(MIB);
    disks.add(&config).unwrap();
    let drive = DvdConfig::default();
    for (wrong, why) in [
        (DvdConfig { id: Some("a\n".into()), ..drive.clone() }, "an id has"),
        (DvdConfig { lun: Some(0), ..drive.clone() }, "LUN 0 on controller 0"),
        (DvdConfig { controller: 16, ..drive.clone() }, "0 to 15"),
        (DvdConfig { path: Some("/nowhere.iso".into()), ..drive.clone() }, "/nowhere.iso"),
    ] {
        let error = disks.add_dvd(&wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(ids(&disks), ["0:0"]);
    assert_eq!(disks.add_dvd(&drive).unwrap().id, "0:1");
}

#[test]
fn test_channels_are_one_for_every_four_vcpus_or_as_many_as_are_asked_for() {
    let subchannels = |cpus| DiskSet::new(cpus).subchannels();
    assert_eq!([1, 2, 4, 5, 8, 9, 64].map(subchannels), [0, 0, 0, 1, 1, 2, 15]);
    assert_eq!(DiskSet::new(2).with_channels(64).subchannels(), 63);
    assert_eq!(DiskSet::new(9).with_channels(1).subchannels(), 0);
}

#[test]
fn test_longest_time_to_look_for_more_is_what_controllers_take() {
    let longest = Duration::from_micros(MAX_DISK_BUSY_POLL_MICROSECONDS.into());
    assert_eq!(ControllerOptions::default().workers.busy_poll, longest);
}

#[test]
fn test_disk_with_limits_takes_other_ones_and_one_without_says_why_not() {
    let disks = DiskSet::new(1);
    let ((_a, limited), (_b, free)) = (image(MIB), image(MIB));
    disks.add(&DiskConfig { iops: NonZeroU64::new(10), ..limited }).unwrap();
    disks.add(&free).unwrap();
    let limits = "read-iops=5,write-bps=1M".parse().unwrap();
    disks.throttle("0:0", &limits).unwrap();
    disks.throttle("0:0", &"none".parse().unwrap()).unwrap();
    let counters: Vec<_> = disks.reports().into_iter().map(|(_, _, throttle)| throttle).collect();
    assert_eq!(counters, [Some(ThrottleStats::default()), None]);
    assert!(disks.throttle("0:1", &limits).unwrap_err().to_string().contains("without limits"));
    disks.resize("0:0", 2 * MIB).unwrap();
    disks.remove("0:0").unwrap();
}

/// Returns guest memory. `None` if the system does not allow to lock it, or has no io_uring.
fn lockable_memory() -> Option<GuestRam> {
    let ram =
        GuestRam::new(GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()).unwrap();
    match synthvm_block::FixedMemory::new(&ram) {
        Ok(_) => Some(ram),
        Err(error) => {
            eprintln!("left out: {error}");
            None
        }
    }
}

#[test]
fn test_disks_with_fixed_buffers_share_the_guest_memory_from_before_and_after_it_was_there() {
    let Some(ram) = lockable_memory() else { return };
    let disks = DiskSet::new(1);
    let (files, configs): (Vec<_>, Vec<_>) = (0..3).map(|_| image(MIB)).unzip();
    let fixed = |config: &DiskConfig| DiskConfig { buffers: BufferMode::Fixed, ..config.clone() };
    disks.add(&DiskConfig { iops: NonZeroU64::new(10), ..fixed(&configs[0]) }).unwrap();
    disks.add(&configs[1]).unwrap();
    let counted = || disks.reports().iter().map(|(disk, ..)| disk.fixed_calls).collect::<Vec<_>>();
    assert_eq!(counted(), [None, None], "there is no memory yet");
    disks.use_memory(&ram).unwrap();
    disks.add(&fixed(&configs[2])).unwrap();
    assert_eq!(counted(), [Some(0), None, Some(0)]);
    disks.remove("0:0").unwrap();
    disks.remove("0:2").unwrap();
    disks.add(&fixed(&configs[0])).unwrap();
    assert_eq!(counted(), [Some(0), None]);
    drop(files);
}

#[test]
fn test_images_of_all_formats_have_fixed_buffers_and_those_without_a_ring_are_refused() {
    let Some(ram) = lockable_memory() else { return };
    let folder = TempDir::new().unwrap();
    let make = |name: &str, format| {
        let path = folder.as_path().join(name);
        synthvm_images::create(&path, &CreateOptions::new(format, 8 * MIB)).unwrap();
        DiskConfig { buffers: BufferMode::Fixed, ..DiskConfig::new(path) }
    };
    let (vhdx, qcow2) = (make("a.vhdx", Format::Vhdx), make("a.qcow2", Format::Qcow2));
    let disks = DiskSet::new(1);
    disks.add(&vhdx).unwrap();
    disks.use_memory(&ram).unwrap();
    disks.add(&qcow2).unwrap();
    let counted: Vec<_> = disks.reports().iter().map(|(disk, ..)| disk.fixed_calls).collect();
    assert_eq!(counted, [Some(0), Some(0)]);
    let threads = DiskConfig { io: IoMode::Threads, ..make("b.qcow2", Format::Qcow2) };
    let error = disks.add(&threads).unwrap_err().to_string();
    assert!(error.contains("buffers=fixed"), "{error}");
}

const WRITE: Operation = Operation::Write { fua: false };

/// A timeout longer than any test runs.
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn test_disk_whose_removal_times_out_is_flushed_when_its_last_request_ends() {
    let mut rig = Rig::new(Duration::ZERO);
    rig.hold_a_write();
    let error = rig.disks.remove("0:0").unwrap_err();
    assert!(matches!(error, DiskError::Busy(..)), "{error}");
    assert_eq!(rig.host.probe.done(), []);
    rig.host.probe.request_gate().open();
    // The flush at the end of the machine waits for removals in the background.
    rig.disks.flush().unwrap();
    assert_eq!(rig.host.probe.done(), [WRITE, Operation::Flush]);
    let Rig { host: TestHost { probe, .. }, .. } = &rig;
    assert_eq!(Arc::strong_count(probe), 2, "closed: only this test and its host have the image");
}

/// A wrong order shows in some rounds only, as the removal's thread may run after the write.
#[test]
fn test_removed_disk_is_not_flushed_before_its_last_request_has_ended() {
    for _ in 0..20 {
        let mut rig = Rig::new(Duration::ZERO);
        rig.hold_a_write();
        rig.disks.remove("0:0").unwrap_err();
        std::thread::yield_now();
        rig.host.probe.request_gate().open();
        rig.disks.flush().unwrap();
        assert_eq!(rig.host.probe.early_flushes(), 0);
    }
}

#[test]
fn test_disk_whose_removal_is_under_way_when_the_machine_ends_is_flushed_before_it_has_ended() {
    let mut rig = Rig::new(NEVER);
    rig.hold_a_write();
    let disks = Arc::clone(&rig.disks);
    let removed = begin(move || disks.remove("0:0").map_err(|error| error.to_string()));
    while !rig.disks.reports().iter().all(|(disk, ..)| disk.removed) {
        std::thread::yield_now();
    }
    // The calls at the end of `synthvm run`.
    let (bus, disks) = (rig.guest.bus.clone(), Arc::clone(&rig.disks));
    let ended = begin(move || {
        bus.reset();
        disks.flush().map_err(|error| error.to_string())
    });
    rig.host.probe.request_gate().open();
    end(&ended).unwrap();
    assert_eq!(rig.host.probe.done(), [WRITE, Operation::Flush]);
    end(&removed).unwrap();
}

#[test]
fn test_removal_that_fails_after_its_timeout_is_reported_at_the_end_of_the_machine() {
    let mut rig = Rig::new(Duration::ZERO);
    rig.host.probe.fail_flushes(IoError::NoSpace);
    rig.hold_a_write();
    rig.disks.remove("0:0").unwrap_err();
    rig.host.probe.request_gate().open();
    let error = rig.disks.flush().unwrap_err();
    assert!(
        matches!(error, DiskError::Flush { .. }) && error.to_string().contains("`0:0`"),
        "{error}"
    );
    // The failure is reported only once.
    rig.disks.flush().unwrap();
}

#[test]
fn test_removal_that_fails_in_time_is_reported_to_its_caller_once() {
    let rig = Rig::new(NEVER);
    rig.host.probe.fail_flushes(IoError::NoSpace);
    let error = rig.disks.remove("0:0").unwrap_err();
    assert!(matches!(error, DiskError::Flush { .. }), "{error}");
    rig.disks.flush().unwrap();
}

#[test]
fn test_drive_that_is_removed_keeps_its_disc_open_until_the_last_read_has_ended() {
    let host = TestHost::new();
    let disks = DiskSet::new(1).with_host(host.clone()).with_removal_timeout(Duration::ZERO);
    disks.add_dvd(&DvdConfig { path: Some("/disc.iso".into()), ..DvdConfig::default() }).unwrap();
    let mut rig = Rig::with_disks(disks, host);
    rig.hold_a_disc_read();
    // The held read ends on the ejected disc.
    rig.disks.eject("0:0", true).unwrap();
    let error = rig.disks.remove("0:0").unwrap_err();
    assert!(matches!(error, DiskError::Busy(..)), "{error}");
    rig.host.probe.request_gate().open();
    rig.disks.flush().unwrap();
    assert_eq!(rig.host.probe.done(), [Operation::Read]);
    let Rig { host: TestHost { probe, .. }, .. } = &rig;
    assert_eq!(Arc::strong_count(probe), 2, "closed: only this test and its host have the image");
}

/// Runs `change` while `gate` holds one of its host calls, and expects reports in the meantime.
fn expect_reports(
    disks: &Arc<DiskSet>,
    gate: &Gate,
    change: impl FnOnce(&DiskSet) -> Result<(), DiskError> + Send + 'static,
) {
    gate.close();
    let set = Arc::clone(disks);
    let changed = begin(move || change(&set).map_err(|error| error.to_string()));
    gate.wait_for(1);
    let set = Arc::clone(disks);
    assert_eq!(end(&begin(move || set.reports().len())), 1, "the disk that was there");
    let set = Arc::clone(disks);
    end(&begin(move || set.flush().map_err(|error| error.to_string()))).unwrap();
    gate.open();
    end(&changed).unwrap();
}

/// Returns a set with one disk, on a bus.
fn busy_set() -> (Arc<DiskSet>, TestHost, BareGuest) {
    let (guest, _) = BareGuest::new(Vec::new());
    // The present disk has its own backend, so that the gates hold only the new disk.
    let host = TestHost::new();
    let (_file, config) = image(MIB);
    let disks = DiskSet::new(1);
    disks.add(&config).unwrap();
    let disks = disks.with_host(host.clone());
    disks.offer(&guest.bus).unwrap();
    (Arc::new(disks), host, guest)
}

#[test]
fn test_reports_and_the_last_flush_never_wait_for_an_image_that_is_being_opened() {
    let (disks, host, _guest) = busy_set();
    let new = DiskConfig { controller: 1, ..DiskConfig::new("/new.img") };
    expect_reports(&disks, &host.open_gate, move |disks| disks.add(&new).map(drop));
    assert_eq!(ids(&disks), ["0:0", "1:0"]);
}

#[test]
fn test_reports_and_the_last_flush_never_wait_for_a_queue_that_is_being_opened() {
    let (disks, host, _guest) = busy_set();
    let new = DiskConfig { id: Some("new".into()), ..DiskConfig::new("/new.img") };
    expect_reports(&disks, host.probe.queue_gate(), move |disks| disks.add(&new).map(drop));
    assert_eq!(ids(&disks), ["0:0", "new"]);
}

#[test]
fn test_reports_and_the_last_flush_never_wait_for_a_disc_that_is_being_put_in() {
    let host = TestHost::new();
    let disks = DiskSet::new(1).with_host(host.clone());
    disks.add_dvd(&DvdConfig::default()).unwrap();
    let disks = Arc::new(disks);
    let insert = |disks: &DiskSet| disks.insert("0:0", Path::new("/disc.iso"));
    expect_reports(&disks, host.probe.queue_gate(), insert);
    expect_reports(&disks, &host.open_gate, insert);
}

#[test]
fn test_reports_and_the_last_flush_never_wait_for_memory_that_is_being_pinned() {
    let Some(ram) = lockable_memory() else { return };
    let (disks, host, _guest) = busy_set();
    disks.use_memory(&ram).unwrap();
    let new = DiskConfig { buffers: BufferMode::Fixed, ..DiskConfig::new("/new.img") };
    expect_reports(&disks, &host.pin_gate, move |disks| disks.add(&new).map(drop));
}

#[test]
fn test_reports_and_the_last_flush_never_wait_for_an_image_that_grows() {
    let host = TestHost::new();
    let disks = DiskSet::new(1).with_host(host.clone());
    disks.add(&DiskConfig::new("/probe.img")).unwrap();
    let disks = Arc::new(disks);
    expect_reports(&disks, host.probe.resize_gate(), |disks| disks.resize("0:0", 2 * MIB));
    assert_eq!(disks.reports()[0].0.capacity, 2 * MIB);
}

#[test]
fn test_disk_that_fails_late_leaves_neither_its_name_nor_its_controller_behind() {
    let disks = DiskSet::new(1).with_host(TestHost::new());
    let config = DiskConfig { id: Some("a".into()), controller: 3, ..DiskConfig::new("/a.img") };
    let wrong = DiskConfig { serial: Some("x".repeat(33)), ..config.clone() };
    disks.add(&wrong).unwrap_err();
    assert_eq!(ids(&disks), [""; 0]);
    assert!(disks.resize("a", MIB).unwrap_err().to_string().contains("the machine has none"));
    disks.add(&config).unwrap();
    assert_eq!(ids(&disks), ["a"]);
}
