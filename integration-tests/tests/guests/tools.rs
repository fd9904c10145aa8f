//! Tests of disks and a DVD drive with real programs: fio on two file systems, administrators' SCSI
//! tools, and mounted discs.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use guest_images::StockKernel;
use guest_images::packages::sha256_file;
use guest_report::agent::Action;
use integration_tests::image::{WorkDir, first_difference};
use integration_tests::iso;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, MIB, boot, storage_guest};

/// XFS needs 300 MiB. The image is sparse.
const FILE_SYSTEM_DISK: u64 = 320 * MIB;

const SCSI_DISK: u64 = 8 * MIB;

const SEED: u64 = 11;

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    let name =
        "test_disks_under_fio_on_ext4_and_xfs_under_sg3_utils_and_discs_do_what_programs_expect";
    common::add(tests, kernel, name, tools);
}

fn tools(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let big = dir.empty_image("fs.img", FILE_SYSTEM_DISK)?;
    let small = dir.image("scsi.img", SCSI_DISK, SEED)?;
    let options = VmOptions::new(&storage_guest(kernel).build()?)
        .cpus(2)
        .memory("1G")
        .disk_with(&big, "controller=0,lun=0")
        .disk_with(&small, "controller=0,lun=1,serial=TOOLS-1")
        .argument("--dvd", "controller=0,lun=9,id=dvd");
    let mut vm = boot(&options)?;
    let disks = vm.disks(2)?;
    let name = |size: u64| {
        disks.iter().find(|disk| disk.size == size).map(|disk| format!("/dev/{}", disk.name))
    };
    let big = name(FILE_SYSTEM_DISK).ok_or("the large disk is missing")?;
    let device = name(SCSI_DISK).ok_or("the small disk is missing")?;

    file_system(&mut vm, &big, "/sbin/mke2fs -q -F -t ext4", "ext4", "/sbin/e2fsck -f -n")?;
    file_system(&mut vm, &big, "/sbin/mkfs.xfs -q -f", "xfs", "/sbin/xfs_repair -n")?;

    identity(&mut vm, &device)?;
    reservations(&mut vm, &device)?;
    provisioning(&mut vm, &device, &small)?;
    discs(&mut vm, &dir)?;

    assert!(vm.inspect()?.disks.iter().all(|disk| disk.requests > 0));
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Makes a file system, writes and verifies in it with fio, trims and checks it. Programs have full
/// paths, because the shell has smaller ones with the same names.
fn file_system(vm: &mut Vm, device: &str, make: &str, kind: &str, check: &str) -> TestResult {
    let fio = "fio --name=verify --directory=/mnt/t --size=6m --numjobs=2 --rw=randwrite \
        --bsrange=4k-64k --ioengine=libaio --iodepth=16 --direct=1 --fsync=16 --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 --group_reporting --minimal";
    vm.shell(&format!("{make} {device} && mkdir -p /mnt/t && mount -t {kind} {device} /mnt/t"))?;
    vm.shell(&format!(
        "{fio} && rm /mnt/t/verify.0.0 && sync && fstrim /mnt/t && sha256sum /mnt/t/verify.1.0 > \
        /tmp/sum"
    ))?;
    // The trimmed space was free: the other file is intact when read from the disk again.
    vm.shell(&format!("umount /mnt/t && {check} {device} && mount -t {kind} {device} /mnt/t"))?;
    vm.shell("sha256sum -c /tmp/sum && umount /mnt/t")?;
    Ok(())
}

fn identity(vm: &mut Vm, device: &str) -> TestResult {
    let expected = [
        ("sg_inq", vec!["Peripheral device type: disk", "Unit serial number: TOOLS-1"]),
        ("sg_vpd -p sn", vec!["TOOLS-1"]),
        ("sg_vpd -p di", vec!["Addressed logical unit"]),
        ("sg_vpd -p bl", vec!["Maximum unmap LBA count"]),
        ("sg_vpd -p lbpv", vec!["Unmap command supported (LBPU): 1", "(LBPWS): 1"]),
        (
            "sg_readcap -l",
            vec!["Number of logical blocks=16384", "Logical block length=512 bytes", "lbpme=1"],
        ),
        ("sg_turs", vec![]),
        ("sg_luns", vec!["Lun list length = 24"]),
        ("sg_modes -p 8", vec!["Caching"]),
        ("sg_requests", vec![]),
        ("sg_sync", vec![]),
    ];
    for (program, words) in expected {
        let said = vm.shell(&format!("{program} {device}"))?;
        for word in words {
            assert!(said.contains(word), "{program} does not say {word:?}:\n{said}");
        }
    }
    Ok(())
}

fn reservations(vm: &mut Vm, device: &str) -> TestResult {
    let capabilities = vm.shell(&format!("sg_persist --in --report-capabilities {device}"))?;
    assert!(
        capabilities.contains("(PTPL_C): 0") && capabilities.contains("(PTPL_A): 0"),
        "{capabilities}"
    );
    let mut persist = |arguments: &str| vm.shell(&format!("sg_persist {arguments} {device}"));
    // With the commands of Linux's own interface (linux/pr.h).
    persist("--out --register --param-sark=abc123 --param-aptpl")?;
    assert!(persist("--in --read-keys")?.contains("0xabc123"));
    persist("--out --reserve --param-rk=abc123 --prout-type=1")?;
    let reservation = persist("--in --read-reservation")?;
    assert!(
        reservation.contains("Key=0xabc123") && reservation.contains("Write Exclusive"),
        "{reservation}"
    );
    persist("--out --release --param-rk=abc123 --prout-type=1")?;
    persist("--out --register --param-rk=abc123 --param-sark=0")?;
    assert!(!persist("--in --read-keys")?.contains("0xabc123"));
    Ok(())
}

/// Unmaps, zeroes and fills blocks with one block's content. The surrounding blocks must not
/// change.
fn provisioning(vm: &mut Vm, device: &str, image: &Path) -> TestResult {
    let allocated = fs::metadata(image)?.blocks();
    vm.shell(&format!("sg_unmap --lba=4096 --num=4096 {device}"))?;
    assert!(
        fs::metadata(image)?.blocks() <= allocated - 4096,
        "2 MiB of the image must have become a hole"
    );
    vm.shell(&format!("sg_write_same --16 --lba=10000 --num=1000 --xferlen=512 {device}"))?;
    vm.shell(&format!(
        "head -c 512 /bin/busybox > /tmp/block && sg_write_same --10 --in=/tmp/block --lba=12000 \
        --num=100 {device}"
    ))?;
    vm.shell(&format!("sg_sync {device}"))?;

    let blocks = |from: u64, count: u64| -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(count * 512).map_err(std::io::Error::other)?];
        fs::File::open(image)?.read_exact_at(&mut bytes, from * 512)?;
        Ok(bytes)
    };
    assert!(blocks(4096, 4096)?.iter().all(|byte| *byte == 0));
    assert!(blocks(10_000, 1000)?.iter().all(|byte| *byte == 0));
    let filled = blocks(12_000, 100)?;
    assert!(
        filled.starts_with(b"\x7fELF") && filled.chunks(512).all(|block| *block == filled[..512])
    );
    for (from, to) in [(0, 4096), (8192, 10_000), (11_000, 12_000), (12_100, SCSI_DISK / 512)] {
        assert_eq!(
            first_difference(image, from * 512, (to - from) * 512, SEED)?,
            None,
            "blocks {from} to {to}"
        );
    }
    Ok(())
}

/// Inserts two discs into an empty drive, one after another. The guest mounts each, reads its file,
/// and locks the tray in the meantime.
fn discs(vm: &mut Vm, dir: &WorkDir) -> TestResult {
    let mount = "mkdir -p /mnt/dvd && mount -t iso9660 -o ro /dev/sr0 /mnt/dvd";
    for name in ["sr_mod", "isofs"] {
        vm.tell(Action::LoadModule { name: name.to_owned(), parameters: String::new() })?;
    }
    vm.shell("until [ -b /dev/sr0 ]; do sleep 0.1; done")?;
    vm.shell(&format!("! ({mount})"))?;
    for seed in [31, 32] {
        let content = dir.image("content", 3 * MIB / 2, seed)?;
        let disc = dir.path().join(format!("{seed}.iso"));
        iso::write(&disc, &fs::read(&content)?)?;
        vm.insert_disc("dvd", &disc)?;
        vm.shell(mount)?;
        let sum = vm.shell(&format!("sha256sum < /mnt/dvd/{}", iso::FILE))?;
        assert!(sum.starts_with(&sha256_file(&content)?), "{sum}");
        let held = vm.eject_disc("dvd").map_err(|error| error.to_string());
        assert!(held.as_ref().is_err_and(|error| error.contains("locked the tray")), "{held:?}");
        vm.shell("umount /mnt/dvd")?;
        vm.eject_disc("dvd")?;
    }
    vm.shell(&format!("! ({mount})"))?;
    drive_comes_and_goes(
        vm,
        &dir.path().join("31.iso"),
        &sha256_file(&dir.image("content", 3 * MIB / 2, 31)?)?,
    )
}

/// Adds and removes another drive with a disc while the guest runs.
fn drive_comes_and_goes(vm: &mut Vm, disc: &Path, sum: &str) -> TestResult {
    vm.add_dvd(&format!("{},id=second", disc.display()))?;
    vm.shell("until [ -b /dev/sr1 ]; do sleep 0.1; done")?;
    vm.shell("mount -t iso9660 -o ro /dev/sr1 /mnt/dvd")?;
    let found = vm.shell(&format!("sha256sum < /mnt/dvd/{} && umount /mnt/dvd", iso::FILE))?;
    assert!(found.starts_with(sum), "{found}");
    vm.remove_disk("second")?;
    vm.shell("while [ -e /sys/block/sr1 ]; do sleep 0.1; done")?;
    vm.shell("[ -b /dev/sr0 ]")?;
    Ok(())
}
