//! A disk whose medium does not answer for a minute: the guest waits, other disks and the program go on, nothing is lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use guest_images::StockKernel;
use guest_images::packages::sha256_file;
use guest_report::agent::{Action, PatternRange};
use integration_tests::image::{WorkDir, first_difference};
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::VmOptions;

use crate::common::{self, MIB, boot, end_program, image, start_program};

/// Twice the time after which Linux asks its SCSI driver what became of a command.
const STALL: Duration = Duration::from_secs(60);

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    // The driver's part in it is the same in both kernels, and a minute is long.
    if kernel == StockKernel::V6_12 {
        common::add(tests, kernel, "test_disk_that_stalls_a_minute_recovers_and_disturbs_no_other", stall);
    }
}

fn stall(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let frozen = FreezableFileSystem::mount(dir.path())?;
    let slow = frozen.mounted.join("slow.img");
    std::fs::write(&slow, vec![0; 8 << 20])?;
    let (near, far) = (dir.image("near.img", 4 * MIB, 2)?, dir.image("far.img", 5 * MIB, 3)?);
    let options = VmOptions::new(&image(kernel)?)
        .cpus(2)
        .disk_with(&slow, "controller=0,lun=0")
        .disk_with(&near, "controller=0,lun=1")
        .disk_with(&far, "controller=1,lun=0");
    let mut vm = boot(&options)?;
    let disks = vm.disks(3)?;
    let name =
        |size: u64| disks.iter().find(|disk| disk.size == size).map(|disk| format!("/dev/{}", disk.name));
    let slow_disk = name(8 * MIB).ok_or("no slow disk")?;
    let others = [(name(4 * MIB).ok_or("no near disk")?, &near), (name(5 * MIB).ok_or("no far disk")?, &far)];

    frozen.freeze()?;
    let write = format!("dd if=/dev/urandom of={slow_disk} bs=64k count=64 conv=fsync");
    start_program(&mut vm, "write", &write)?;
    vm.shell(&format!(
        "until [ $(awk '(\"/dev/\" $3) == \"{slow_disk}\" {{print $12}}' /proc/diskstats) -gt 0 ]; do :; done"
    ))?;
    for (device, image) in &others {
        assert_eq!(vm.sha256(device)?.sha256, sha256_file(image)?);
    }
    // Not to wait for something: this long the medium does not answer.
    thread::sleep(STALL);
    for (number, (device, image)) in others.iter().enumerate() {
        let seed = 40 + number as u64;
        let range = PatternRange { path: device.clone(), offset: MIB, length: 2 * MIB, seed, direct: true };
        vm.tell(Action::WritePattern(range.clone()))?;
        vm.tell(Action::VerifyPattern(range))?;
        assert_eq!(first_difference(image, MIB, 2 * MIB, seed)?, None);
    }
    vm.shell("test ! -e /tmp/write.status")?;
    assert!(vm.inspect()?.disks.iter().all(|disk| disk.errors == 0), "{:?}", vm.inspect()?.disks);

    frozen.thaw()?;
    let (status, said) = end_program(&mut vm, "write")?;
    assert_eq!(status, "0", "{said}");
    assert_eq!(vm.sha256(&slow_disk)?.sha256, sha256_file(&slow)?);
    assert!(vm.inspect()?.disks.iter().all(|disk| disk.errors == 0), "{:?}", vm.inspect()?.disks);
    assert!(vm.power_off()?.success());
    Ok(())
}

/// A file system in an image, whose writes can be made to wait. Thawed and unmounted when dropped.
struct FreezableFileSystem {
    mounted: PathBuf,
}

impl FreezableFileSystem {
    fn mount(dir: &Path) -> Result<FreezableFileSystem, String> {
        let (image, mounted) = (dir.join("file-system"), dir.join("mounted"));
        let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(64 * MIB).map_err(|e| e.to_string())?;
        std::fs::create_dir(&mounted).map_err(|e| e.to_string())?;
        run("mke2fs", &["-q".as_ref(), "-F".as_ref(), "-t".as_ref(), "ext4".as_ref(), &image])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mounted])?;
        Ok(FreezableFileSystem { mounted })
    }

    fn freeze(&self) -> Result<(), String> {
        run("fsfreeze", &["-f".as_ref(), &self.mounted])
    }

    fn thaw(&self) -> Result<(), String> {
        run("fsfreeze", &["-u".as_ref(), &self.mounted])
    }
}

impl Drop for FreezableFileSystem {
    fn drop(&mut self) {
        // Whatever still waits there must be able to end. It is no error that nothing is frozen.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.mounted).output();
        let _ = run("umount", &["-l".as_ref(), &self.mounted]);
    }
}

/// Runs one of the host's own tools (e2fsprogs, util-linux); most want root.
fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}
