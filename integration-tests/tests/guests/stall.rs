//! Tests that the guest survives a stall of the host's storage of a minute, and that other disks
//! are not affected.

use std::path::Path;
use std::time::{Duration, Instant};

use guest_images::StockKernel;
use integration_tests::image::{WorkDir, first_difference};
use integration_tests::inspect::{Disk, Inspect};
use integration_tests::ram_disk::RamDisk;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, MIB, boot, end_program, start_program, storage_guest};

/// The sizes identify the disks in the guest.
const SLOW: u64 = 8 * MIB;
const LEAVING: u64 = 9 * MIB;
const BUSY: u64 = 24 * MIB;
const SOURCE: u64 = 4 * MIB;

const SEED: u64 = 41;

/// Number of programs that write to the stalled disk, each a share of the source.
const WRITERS: u64 = 4;

/// Bytes that the load moves before the stall begins.
const LOADED: u64 = 64 << 10;
/// Duration of the stall in seconds, by the guest's clock.
const STALL: u64 = 60;

/// Timeout of a command in the guest's driver, in seconds.
const GUEST_PATIENCE: u64 = 10;

/// Timeout for the program to report a past event.
const SHOWN: Duration = Duration::from_secs(60);

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    let name = "test_disk_that_stalls_for_a_minute_resumes_and_other_disks_never_stop";
    common::add(tests, kernel, name, stall);
    common::add(tests, kernel, "test_machine_stopped_while_its_disk_stalls_says_so_and_ends", stop);
}

fn stall(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let storage = RamDisk::mount(&dir)?;
    let [slow, leaving] = [("slow.img", SLOW), ("leaving.img", LEAVING)].map(|(name, size)| {
        let image = storage.folder().join(name);
        std::fs::write(&image, vec![0; usize::try_from(size).unwrap_or(0)]).map(|()| image)
    });
    let (slow, leaving) = (slow?, leaving?);
    let busy = dir.empty_image("busy.img", BUSY)?;
    let source = dir.image("source.img", SOURCE, SEED)?;
    // All disks are on one controller, so that one thread serves them.
    let options = VmOptions::new(&storage_guest(kernel).build()?)
        .cpus(2)
        .memory("1G")
        .disk_with(&slow, "id=slow,cache=none")
        .disk_with(&leaving, "id=leaving")
        .disk_with(&busy, "id=busy")
        .disk_with(&source, "id=source,readonly=on");
    let mut vm = boot(&options)?;
    let names = Names::of(&mut vm)?;
    vm.shell(&format!("echo {GUEST_PATIENCE} > /sys/block/{}/device/timeout", names.slow))?;
    start_program(&mut vm, "load", &load(&names.busy))?;
    // In a slow host, fio takes long to start: the stall must find it at work.
    wait_for(&vm, "busy", |disk| disk.bytes > LOADED)
        .map_err(|error| format!("the load must begin: {error}"))?;

    // The guard thaws the file system before the machine is waited for: a process that is blocked
    // in the kernel cannot be killed.
    let frozen = storage.freeze()?;
    let since = uptime(&mut vm)?;
    start_writers(&mut vm, &names)?;
    let before = wait_in_flight(&vm, WRITERS)?;

    // The removal must fail in time, without closing the image by force.
    let told = vm.remove_disk("leaving").map_err(|error| error.to_string());
    assert!(told.as_ref().is_err_and(|told| told.contains("requests have not ended")), "{told:?}");
    // A request that waits for the image's file system must not block the reports.
    let mut resize = vm.begin_resize("slow", &(2 * SLOW).to_string())?;
    let disks = vm.inspect()?.disks;
    let removed: Vec<_> =
        disks.iter().filter(|disk| disk.removed).map(|disk| disk.in_flight).collect();
    assert!(removed == [1] && disks.iter().all(|disk| disk.id != "leaving"), "{disks:?}");

    vm.shell(&format!(
        "until [ $(cut -d. -f1 /proc/uptime) -ge {} ]; do sleep 1; done",
        since + STALL
    ))?;
    let after = vm.inspect()?;
    let (disk, other) = (find(&after, "slow")?, find(&after, "busy")?);
    assert_eq!(disk.in_flight, WRITERS, "{disk:?}");
    assert_eq!((disk.errors, disk.bytes), (0, find(&before, "slow")?.bytes), "{disk:?}");
    assert!(
        other.requests > find(&before, "busy")?.requests + 100,
        "the other disk stood still: {other:?}"
    );
    vm.shell("! ls /tmp/write-*.status /tmp/load.status")?;
    let timeouts = vm.shell(&format!("cat /sys/block/{}/device/iotmo_cnt", names.slow))?;
    assert_ne!(timeouts.trim(), "0x0", "the guest's timer must expire");

    assert!(resize.waits()?);

    drop(frozen);
    assert!(resize.succeeds()?);
    for writer in 0..WRITERS {
        let (status, said) = end_program(&mut vm, &format!("write-{writer}"))?;
        assert_eq!(status, "0", "{said}");
    }
    assert_eq!(first_difference(&slow, 0, SOURCE, SEED)?, None);
    wait_in_flight(&vm, 0)?;
    is_gone(&mut vm, &names.leaving, &leaving)?;
    vm.shell(&format!("! dmesg | grep -E 'I/O error|offline' | grep {}", names.slow))?;

    // fio ends on a signal and prints its results.
    vm.shell("kill -TERM $(cat /tmp/load.pid)")?;
    let (_, said) = end_program(&mut vm, "load")?;
    assert!(!said.contains("verify") && !said.contains("error"), "{said}");
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Tests a stop during a stall: the kernel keeps the process until storage releases its memory.
fn stop(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let storage = RamDisk::mount(&dir)?;
    let image = storage.folder().join("slow.img");
    std::fs::write(&image, vec![0; usize::try_from(SLOW)?])?;
    let options = VmOptions::new(&common::image(kernel)?).disk_with(&image, "id=slow,cache=none");
    let mut vm = boot(&options)?;
    let name = vm.disks(1)?.pop().ok_or("no disk")?.name;

    let frozen = storage.freeze()?;
    let write = format!("dd if=/dev/zero of=/dev/{name} bs=4k count=1 oflag=direct");
    start_program(&mut vm, "last", &write)?;
    wait_in_flight(&vm, 1)?;
    vm.control("stop")?;
    vm.wait_said("storage has finished no request for 30 seconds")?;
    assert!(vm.said().contains("`slow`"), "{}", vm.said());
    drop(frozen);
    assert_eq!(vm.wait()?.code(), Some(1), "{}", vm.said());
    Ok(())
}

/// The guest's names of the disks.
struct Names {
    slow: String,
    leaving: String,
    busy: String,
    source: String,
}

impl Names {
    fn of(vm: &mut Vm) -> Result<Names, Box<dyn std::error::Error>> {
        let disks = vm.disks(4)?;
        let name = |size: u64| {
            let disk = disks.iter().find(|disk| disk.size == size);
            disk.map(|disk| disk.name.clone()).ok_or(format!("no disk of {size} bytes: {disks:?}"))
        };
        Ok(Names {
            slow: name(SLOW)?,
            leaving: name(LEAVING)?,
            busy: name(BUSY)?,
            source: name(SOURCE)?,
        })
    }
}

/// Returns a command that writes and verifies until it is stopped.
fn load(name: &str) -> String {
    format!(
        "fio --name=load --filename=/dev/{name} --size=8m --rw=randwrite --bs=8k \
        --ioengine=libaio --iodepth=4 --direct=1 --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0 --loops=1000000 --minimal"
    )
}

/// Starts writers of the source's shares to the slow disk, each of which waits for its requests and
/// for a final flush, and a writer of one block to the leaving disk.
fn start_writers(vm: &mut Vm, Names { slow, leaving, source, .. }: &Names) -> TestResult {
    const BLOCK: u64 = 128 << 10;
    let count = SOURCE / BLOCK / WRITERS;
    for writer in 0..WRITERS {
        let at = writer * count;
        let copy = format!(
            "dd if=/dev/{source} of=/dev/{slow} bs={BLOCK} skip={at} seek={at} count={count} \
            iflag=direct oflag=direct conv=notrunc,fsync"
        );
        start_program(vm, &format!("write-{writer}"), &copy)?;
    }
    let one = format!(
        "dd if=/dev/{source} of=/dev/{leaving} bs={BLOCK} count=1 iflag=direct oflag=direct \
        conv=notrunc"
    );
    start_program(vm, "leave", &one)
}

/// Waits until `count` requests on the slow disk are in flight.
fn wait_in_flight(vm: &Vm, count: u64) -> Result<Inspect, Box<dyn std::error::Error>> {
    wait_for(vm, "slow", |disk| disk.in_flight == count)
        .map_err(|error| format!("{count} requests must be in flight: {error}").into())
}

/// Waits until the report of disk `id` is as wanted.
fn wait_for(
    vm: &Vm,
    id: &str,
    wanted: impl Fn(&Disk) -> bool,
) -> Result<Inspect, Box<dyn std::error::Error>> {
    let end = Instant::now() + SHOWN;
    loop {
        let report = vm.inspect()?;
        let disk = find(&report, id)?;
        if wanted(disk) {
            return Ok(report);
        }
        if Instant::now() > end {
            return Err(format!("{disk:?}\n{}", vm.said()).into());
        }
    }
}

fn find<'a>(report: &'a Inspect, id: &str) -> Result<&'a Disk, String> {
    report
        .disks
        .iter()
        .find(|disk| disk.id == id)
        .ok_or(format!("no disk {id}: {:?}", report.disks))
}

/// Checks that requests on a removed disk succeed; then the guest and the program release the disk.
fn is_gone(vm: &mut Vm, name: &str, image: &Path) -> TestResult {
    let (status, said) = end_program(vm, "leave")?;
    assert_eq!(status, "0", "{said}");
    vm.shell(&format!("while [ -e /sys/block/{name} ]; do sleep 0.1; done"))?;
    assert_eq!(first_difference(image, 0, 128 << 10, SEED)?, None);
    vm.add_disk(&format!("{},id=again", image.display()))?;
    vm.remove_disk("again")?;
    Ok(())
}

/// Returns the seconds since the guest's kernel started.
fn uptime(vm: &mut Vm) -> Result<u64, VmError> {
    let text = vm.shell("cut -d. -f1 /proc/uptime")?;
    Ok(text.trim().parse().unwrap_or(0))
}
