//! Tests that the VMBus disk keeps data, reports correctly, and refuses invalid requests.

use std::error::Error;
use std::path::PathBuf;

use guest_images::StockKernel;
use guest_images::packages::sha256_file;
use guest_report::agent::{Action, FsReport, PatternRange, RefusedWrite};
use integration_tests::image::{WorkDir, first_difference};
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, MIB, boot, image};

/// Sense of a refused write: DATA PROTECT, WRITE PROTECTED (SPC-4).
const WRITE_PROTECTED: (u8, u8, u8) = (0x07, 0x27, 0x00);

/// The error numbers of a write that a read-only disk refuses, or that fails on it: EROFS, EPERM,
/// EACCES.
const REFUSED: [i32; 3] = [30, 1, 13];

/// SCSI status CHECK CONDITION.
const CHECK_CONDITION: u8 = 2;

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(
        tests,
        kernel,
        "test_disk_read_whole_has_the_hosts_checksum_and_rings_no_bell_in_user_space",
        checksum,
    );
    common::add(
        tests,
        kernel,
        "test_disk_written_and_flushed_survives_a_reboot_and_is_in_the_image",
        pattern,
    );
    common::add(tests, kernel, "test_disk_carries_a_file_system", file_system);
    common::add(tests, kernel, "test_disk_read_only_refuses_writes_with_sense", read_only);
    common::add(tests, kernel, "test_disks_on_two_controllers_are_all_there", two_controllers);
}

fn checksum(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 48 * MIB, 2)?;
    let mut vm = boot(&VmOptions::new(&image(kernel)?).cpus(2).disk(&disk))?;
    vm.disks(1)?;
    let before = vm.inspect()?;
    let sum = vm.sha256("/dev/sda")?;
    let after = vm.inspect()?;
    assert_eq!(sum.bytes, 48 * MIB);
    assert_eq!(sum.sha256, sha256_file(&disk)?);
    assert_eq!(
        after.doorbell_exits(),
        before.doorbell_exits(),
        "doorbells must stay in the kernel"
    );
    assert_eq!(after.doorbell_exits(), 0);
    assert!(after.disks[0].bytes >= before.disks[0].bytes + 48 * MIB, "{:?}", after.disks);
    assert_eq!(
        after.disks[0].copied_bytes, before.disks[0].copied_bytes,
        "aligned reads must not be copied"
    );
    assert_eq!(after.disks[0].errors, before.disks[0].errors);
    assert!(vm.power_off()?.success());
    Ok(())
}

fn pattern(kernel: StockKernel) -> TestResult {
    let (_dir, disk, mut vm) = boot_with_empty_disk(kernel, 32 * MIB)?;
    // Through the page cache, and without it.
    let cached = PatternRange {
        path: "/dev/sda".into(),
        offset: 1536,
        length: 5 * MIB + 512,
        seed: 7,
        direct: false,
    };
    let direct = PatternRange {
        path: "/dev/sda".into(),
        offset: 16 * MIB,
        length: 3 * MIB,
        seed: 8,
        direct: true,
    };
    for range in [&cached, &direct] {
        vm.tell(Action::WritePattern(range.clone()))?;
        let place = first_difference(&disk, range.offset, range.length, range.seed)?;
        assert_eq!(place, None, "the image right after the flush, for {range:?}");
    }
    vm.tell(Action::Reboot)?;
    vm.wait_ready()?;
    vm.disks(1)?;
    for range in [&cached, &direct] {
        vm.tell(Action::VerifyPattern(range.clone()))?;
    }
    assert!(vm.power_off()?.success());
    for range in [&cached, &direct] {
        assert_eq!(first_difference(&disk, range.offset, range.length, range.seed)?, None);
    }
    Ok(())
}

fn file_system(kernel: StockKernel) -> TestResult {
    let (_dir, _, mut vm) = boot_with_empty_disk(kernel, 64 * MIB)?;
    let report: FsReport =
        vm.ask(Action::FsCheck { path: "/dev/sda".to_owned(), files: 40, file_size: 200_000 })?;
    assert_eq!(report, FsReport { files: 40, bytes: 8_000_000 });
    assert!(vm.power_off()?.success());
    Ok(())
}

fn read_only(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 4 * MIB, 3)?;
    let before = sha256_file(&disk)?;
    let mut vm = boot(&VmOptions::new(&image(kernel)?).disk_with(&disk, "readonly=on"))?;
    assert!(vm.disks(1)?[0].read_only);
    let refused: RefusedWrite = vm.ask(Action::RoWrite { path: "/dev/sda".to_owned() })?;
    assert!(REFUSED.contains(&refused.errno), "{refused:?}");
    assert_eq!(refused.scsi.status, CHECK_CONDITION, "{refused:?}");
    assert_eq!(refused.scsi.sense_code, Some(WRITE_PROTECTED), "{refused:?}");
    assert_eq!(vm.sha256("/dev/sda")?.sha256, before);
    assert!(vm.power_off()?.success());
    assert_eq!(sha256_file(&disk)?, before, "the image must be as it was");
    Ok(())
}

fn two_controllers(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let images = [
        dir.image("a.img", 4 * MIB, 1)?,
        dir.image("b.img", 5 * MIB, 2)?,
        dir.image("c.img", 6 * MIB, 3)?,
    ];
    let options = VmOptions::new(&image(kernel)?)
        .cpus(2)
        .disk_with(&images[0], "controller=0,lun=0")
        .disk_with(&images[1], "controller=0,lun=5")
        .disk_with(&images[2], "controller=1,lun=0");
    let mut vm = boot(&options)?;
    let disks = vm.disks(3)?;
    assert_eq!(disks.len(), 3, "{disks:?}");
    // The guest assigns names in the order of discovery, so disks are identified by size.
    for (image, size) in images.iter().zip([4, 5, 6]) {
        let disk = disks.iter().find(|disk| disk.size == size * MIB).ok_or("a disk is missing")?;
        assert_eq!(
            vm.sha256(&format!("/dev/{}", disk.name))?.sha256,
            sha256_file(image)?,
            "{disk:?}"
        );
    }
    let controllers: std::collections::BTreeSet<_> =
        disks.iter().filter_map(|d| d.vmbus_device.clone()).collect();
    assert_eq!(controllers.len(), 2, "{disks:?}");
    let lun5 = disks.iter().find(|disk| disk.size == 5 * MIB).ok_or("a disk is missing")?;
    assert!(lun5.address.ends_with(":5"), "{lun5:?}");
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Boots a guest with a disk of zeros. The image is removed with the folder.
fn boot_with_empty_disk(
    kernel: StockKernel,
    size: u64,
) -> Result<(WorkDir, PathBuf, Vm), Box<dyn Error>> {
    let dir = WorkDir::new()?;
    let disk = dir.empty_image("disk.img", size)?;
    let mut vm = boot(&VmOptions::new(&image(kernel)?).cpus(2).disk(&disk))?;
    vm.disks(1)?;
    Ok((dir, disk, vm))
}
