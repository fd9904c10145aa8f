//! Tests that the program maps guest RAM of hugepages where it reports, and nowhere else.

use std::fs;

use guest_images::StockKernel;
use guest_images::packages::sha256_file;
use integration_tests::host::is_emulated;
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::VmOptions;

use crate::common::{self, MIB, boot, image};

/// Number of hugepages of 2 MiB for the guest's RAM.
const HUGEPAGES: u64 = 256;

/// The name of guest RAM's file in the kernel's list of mappings.
const RAM_FILE: &str = "synthvm-ram";

/// The pool of hugepages of the default size.
const POOL: &str = "/proc/sys/vm/nr_hugepages";

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    let name = "test_hugepages_rings_go_by_page_table_and_no_memory_is_mapped_over";
    common::add(tests, kernel, name, rings_by_page_table);
}

/// A ring's pages are smaller than a hugepage. A mirror of them would replace other mappings behind
/// it with pieces of guest RAM.
fn rings_by_page_table(kernel: StockKernel) -> TestResult {
    let _pool = Pool::reserve()?;
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 8 * MIB, 23)?;
    let options = VmOptions::new(&image(kernel)?).cpus(2).memory("512M,hugepages=on").disk(&disk);
    let mut vm = boot(&options)?;
    vm.disks(1)?;
    assert_eq!(vm.sha256("/dev/sda")?.sha256, sha256_file(&disk)?);

    let inspect = vm.inspect()?;
    assert!(inspect.gpadls.iter().any(|gpadl| gpadl.mapping == "paged"), "{:?}", inspect.gpadls);
    assert!(inspect.gpadls.iter().all(|gpadl| gpadl.mapping != "mirrored"), "{:?}", inspect.gpadls);
    let maps = fs::read_to_string(format!("/proc/{}/maps", inspect.machine.pid))?;
    let ram: Vec<&str> = maps.lines().filter(|line| line.contains(RAM_FILE)).collect();
    let bytes: u64 = ram.iter().filter_map(|line| bytes_of(line)).sum();
    assert_eq!(
        bytes,
        HUGEPAGES * 2 * MIB,
        "guest RAM is mapped once and nothing else shows it: {ram:#?}"
    );
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Returns the length of the mapping in a line of /proc/PID/maps.
fn bytes_of(line: &str) -> Option<u64> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
}

/// Hugepages for the guest, if this program may reserve them. Dropping it restores the pool's
/// former size.
pub(crate) struct Pool {
    before: Option<String>,
}

impl Pool {
    /// Reserves hugepages. In the emulated host, which exists only for the tests, the pool may be
    /// changed. On other machines the pool belongs to the owner, and the test fails if it is too
    /// small.
    pub(crate) fn reserve() -> Result<Pool, Box<dyn std::error::Error>> {
        if free()? >= HUGEPAGES {
            return Ok(Pool { before: None });
        }
        let advice = format!(
            "hugepages: this test needs {HUGEPAGES} free ones of 2 MiB (sysctl vm.nr_hugepages)"
        );
        if !is_emulated() {
            return Err(advice.into());
        }
        let before = fs::read_to_string(POOL)?;
        // The kernel reserves only contiguous pages, so page cache in between is dropped first.
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        fs::write("/proc/sys/vm/compact_memory", "1")?;
        fs::write(POOL, HUGEPAGES.to_string())?;
        let pool = Pool { before: Some(before) };
        if free()? < HUGEPAGES { Err(advice.into()) } else { Ok(pool) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // No other program in the emulated host uses them.
            let _ = fs::write(POOL, before);
        }
    }
}

fn free() -> Result<u64, Box<dyn std::error::Error>> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    Ok(line.ok_or("this kernel has no hugepages")?.trim().parse()?)
}
