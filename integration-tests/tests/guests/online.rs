//! Tests of disks that are added, enlarged, removed or fail while the guest uses others.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guest_images::StockKernel;
use guest_images::packages::sha256_file;
use guest_report::agent::{Action, PatternRange};
use integration_tests::image::{WorkDir, first_difference};
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, MIB, boot, end_program, start_program, storage_guest};

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(
        tests,
        kernel,
        "test_disks_added_grown_removed_and_full_under_load_disturb_no_other",
        online,
    );
}

fn online(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let busy = dir.empty_image("busy.img", 24 * MIB)?;
    let guest = storage_guest(kernel).build()?;
    let mut vm = boot(
        &VmOptions::new(&guest)
            .cpus(2)
            .memory("1G")
            .argument("--disk-channels", "2")
            .disk_with(&busy, "id=busy"),
    )?;
    vm.disks(1)?;
    // Writes and verifies on the first disk during the whole test.
    let load = "fio --name=load --filename=/dev/sda --size=24m --rw=randwrite --bs=8k \
        --ioengine=libaio --iodepth=8 --direct=1 --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0 --loops=1000000 --minimal";
    start_program(&mut vm, "load", load)?;
    comes_grows_and_goes(&mut vm, &dir)?;
    has_no_image(&mut vm)?;
    is_full(&mut vm, &dir)?;

    // fio ends on a signal and prints its results.
    vm.shell("test ! -e /tmp/load.status && kill -TERM $(cat /tmp/load.pid)")?;
    let (_, said) = end_program(&mut vm, "load")?;
    assert!(!said.contains("verify") && !said.contains("error"), "{said}");

    loses_its_driver(&mut vm)?;
    assert!(vm.power_off()?.success());
    Ok(())
}

fn comes_grows_and_goes(vm: &mut Vm, dir: &WorkDir) -> TestResult {
    let image = dir.image("new.img", 8 * MIB, 21)?;
    vm.add_disk(&format!("{},id=new", image.display()))?;
    let new = vm.disks(2)?.pop().ok_or("no disk")?;
    assert_eq!(new.size, 8 * MIB, "{new:?}");
    let device = format!("/dev/{}", new.name);
    assert_eq!(vm.sha256(&device)?.sha256, sha256_file(&image)?);

    vm.resize_disk("new", "12M")?;
    // Distributions have a udev rule that does this when the disk reports a changed capacity.
    vm.shell(&format!("echo 1 > /sys/block/{}/device/rescan", new.name))?;
    vm.shell(&format!(
        "until [ $(cat /sys/block/{}/size) = {} ]; do sleep 0.1; done",
        new.name,
        12 * MIB / 512
    ))?;
    let grown =
        PatternRange { path: device, offset: 8 * MIB, length: 4 * MIB, seed: 22, direct: true };
    vm.tell(Action::WritePattern(grown))?;
    assert_eq!(first_difference(&image, 8 * MIB, 4 * MIB, 22)?, None);

    vm.remove_disk("new")?;
    vm.shell(&format!("while [ -e /sys/block/{} ]; do sleep 0.1; done", new.name))?;
    assert_eq!(first_difference(&image, 0, 8 * MIB, 21)?, None);
    Ok(())
}

/// Tests disks without an image: a `ram` disk keeps the guest's writes, also beyond its first size;
/// a `null` disk reads as zero.
fn has_no_image(vm: &mut Vm) -> TestResult {
    vm.add_disk("ram:8M,id=ram")?;
    let ram = vm.disks(2)?.pop().ok_or("no disk")?;
    assert_eq!(ram.size, 8 * MIB, "{ram:?}");
    vm.resize_disk("ram", "12M")?;
    vm.shell(&format!("echo 1 > /sys/block/{}/device/rescan", ram.name))?;
    let sectors = 12 * MIB / 512;
    vm.shell(&format!(
        "until [ $(cat /sys/block/{}/size) = {sectors} ]; do sleep 0.1; done",
        ram.name
    ))?;
    let path = format!("/dev/{}", ram.name);
    let range = PatternRange { path, offset: 7 * MIB, length: 5 * MIB, seed: 31, direct: true };
    vm.tell(Action::WritePattern(range.clone()))?;
    vm.tell(Action::VerifyPattern(range))?;
    vm.remove_disk("ram")?;
    vm.shell(&format!("while [ -e /sys/block/{} ]; do sleep 0.1; done", ram.name))?;

    vm.add_disk("null:1G,id=null")?;
    let null = vm.disks(2)?.pop().ok_or("no disk")?;
    assert_eq!(null.size, 1 << 30, "{null:?}");
    let path = format!("/dev/{}", null.name);
    let range =
        PatternRange { path: path.clone(), offset: MIB, length: MIB, seed: 32, direct: true };
    vm.tell(Action::WritePattern(range))?;
    vm.shell(&format!(
        "[ $(dd if={path} bs=1M skip=1 count=1 | busybox tr -d '\\0' | busybox wc -c) = 0 ]"
    ))?;
    vm.remove_disk("null")?;
    vm.shell(&format!("while [ -e /sys/block/{} ]; do sleep 0.1; done", null.name))?;
    Ok(())
}

/// Tests an image on a full file system: the guest's write fails, and succeeds once there is space.
fn is_full(vm: &mut Vm, dir: &WorkDir) -> TestResult {
    let small = SmallFileSystem::mount(&dir.path().join("small"), "4m")?;
    let image = small.path.join("full.img");
    std::fs::File::create(&image)?.set_len(16 * MIB)?;
    vm.add_disk(&format!("{},id=full", image.display()))?;
    let full = vm.disks(2)?.pop().ok_or("no disk")?;
    assert_eq!(full.size, 16 * MIB, "{full:?}");
    let range = PatternRange {
        path: format!("/dev/{}", full.name),
        offset: 0,
        length: 8 * MIB,
        seed: 5,
        direct: true,
    };
    let why = vm.refused(Action::WritePattern(range.clone()))?;
    assert!(why.contains("writing /dev/"), "{why}");
    small.grow("32m")?;
    vm.tell(Action::WritePattern(range.clone()))?;
    vm.tell(Action::VerifyPattern(range))?;
    assert_eq!(first_difference(&image, 0, 8 * MIB, 5)?, None);
    vm.remove_disk("full")?;
    vm.shell(&format!("while [ -e /sys/block/{} ]; do sleep 0.1; done", full.name))?;
    Ok(())
}

/// Unbinds the driver from the controller with requests in flight, and binds it again. The data
/// must be unchanged.
fn loses_its_driver(vm: &mut Vm) -> TestResult {
    let range = PatternRange {
        path: "/dev/sda".into(),
        offset: 16 * MIB,
        length: 4 * MIB,
        seed: 6,
        direct: true,
    };
    vm.tell(Action::WritePattern(range.clone()))?;
    let controller =
        vm.disks(1)?.pop().and_then(|disk| disk.vmbus_device).ok_or("a disk without controller")?;
    let doomed = "fio --name=doomed --filename=/dev/sda --size=8m --rw=randrw --bs=4k \
        --ioengine=libaio --iodepth=32 --direct=1 --time_based --runtime=600 --minimal";
    start_program(vm, "doomed", doomed)?;
    vm.shell("until [ $(awk '$3 == \"sda\" {print $12}' /proc/diskstats) -gt 0 ]; do :; done")?;
    vm.shell(&format!("echo {controller} > /sys/bus/vmbus/drivers/hv_storvsc/unbind"))?;
    let left = vm.inspect()?.gpadls;
    assert!(left.is_empty(), "left behind: {left:?}");
    let (status, said) = end_program(vm, "doomed")?;
    assert_ne!(status, "0", "its disk went away: {said}");
    vm.shell(&format!("echo {controller} > /sys/bus/vmbus/drivers/hv_storvsc/bind"))?;
    let name = vm.disks(1)?.pop().ok_or("no disk")?.name;
    vm.tell(Action::VerifyPattern(PatternRange { path: format!("/dev/{name}"), ..range }))?;
    Ok(())
}

/// A small file system in memory. Unmounted on drop.
struct SmallFileSystem {
    path: PathBuf,
}

impl SmallFileSystem {
    fn mount(path: &Path, size: &str) -> Result<SmallFileSystem, String> {
        std::fs::create_dir_all(path).map_err(|e| e.to_string())?;
        mount(path, 0, size)?;
        Ok(SmallFileSystem { path: path.to_owned() })
    }

    fn grow(&self, size: &str) -> Result<(), String> {
        mount(&self.path, libc::MS_REMOUNT, size)
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.path.as_os_str().as_bytes()) {
            // SAFETY: the string lives until the call returns. The unmount is lazy, because a
            // machine may still hold a file after a failure.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn mount(path: &Path, flags: libc::c_ulong, size: &str) -> Result<(), String> {
    let target = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    let options = CString::new(format!("size={size}")).map_err(|e| e.to_string())?;
    // SAFETY: all pointers are to strings that live until the call returns.
    let result = unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!("mounting a file system of {size} on {} (root may): {error}", path.display()))
}
