//! Tests of dynamic memory with the guest's own driver.

use std::time::{Duration, Instant};

use guest_images::StockKernel;
use guest_report::agent::Action;
use integration_tests::inspect::Memory;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, MIB, boot, end_program, image, start_program};
use crate::hugepages::Pool;

const BALLOON: &str = "test_memory_balloons_under_load_and_the_host_gets_it_back";

const HOT_ADD: &str = "test_memory_is_added_again_after_a_reload_and_after_a_restart";

/// Timeout of a change of the guest's size: it reports each second, on a clock that may be slow.
const LIMIT: Duration = Duration::from_secs(90);

const HUGEPAGES: &str = "test_memory_of_hugepages_is_given_and_comes_back";

const FREE_PAGES: &str = "test_memory_that_the_guest_reports_free_is_the_hosts";

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, BALLOON, balloon);
    common::add(tests, kernel, HOT_ADD, hot_add);
    // The device is the same for both kernels.
    if kernel == StockKernel::V6_12 {
        common::add(tests, kernel, HUGEPAGES, balloon_of_hugepages);
        common::add(tests, kernel, FREE_PAGES, free_pages);
    }
}

/// Loads the guest's driver, which reports its memory at once.
fn load_driver(vm: &mut Vm) -> TestResult {
    let (name, parameters) = ("hv_balloon".to_owned(), "pressure_report_delay=0".to_owned());
    vm.tell(Action::LoadModule { name, parameters })?;
    wait(vm, "the first report", |memory| memory.demand.is_some())?;
    Ok(())
}

/// Waits until dynamic memory is as `is_reached` demands.
fn wait(vm: &Vm, what: &str, is_reached: impl Fn(&Memory) -> bool) -> Result<Memory, VmError> {
    let end = Instant::now() + LIMIT;
    loop {
        let memory = vm.memory_status()?;
        if is_reached(&memory) {
            return Ok(memory);
        }
        if Instant::now() > end {
            let console = vm.said();
            panic!("{what} did not happen: {memory:?}\n{console}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns a size of the guest's /proc/meminfo in bytes.
fn meminfo(vm: &mut Vm, name: &str) -> Result<u64, VmError> {
    let text: String = vm.ask(Action::ReadFile { path: "/proc/meminfo".to_owned() })?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number =
        value.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(number.unwrap_or_else(|| panic!("no {name} in {text}")) * 1024)
}

fn balloon(kernel: StockKernel) -> TestResult {
    let options = VmOptions::new(&image(kernel)?).cpus(2).memory("1G,min=256M,start-delay=3600");
    let mut vm = boot(&options)?;
    load_driver(&mut vm)?;
    let total = meminfo(&mut vm, "MemTotal")?;
    start_program(&mut vm, "load", "memory-load 96")?;
    for round in 0..3 {
        vm.set_memory("512M")?;
        let memory = wait(&vm, "the balloon", |memory| memory.assigned <= 513 * MIB)?;
        assert_eq!(memory.ballooned, memory.returned, "round {round}: {memory:?}");
        assert!(memory.resident <= memory.assigned + MIB, "round {round}: {memory:?}");
        assert!(meminfo(&mut vm, "MemTotal")? <= total - 500 * MIB);
        vm.set_memory("1G")?;
        wait(&vm, "the end of the balloon", |memory| memory.ballooned == 0)?;
        assert_eq!(meminfo(&mut vm, "MemTotal")?, total, "round {round}");
    }
    vm.shell("touch /run/memory-load.stop")?;
    let (status, output) = end_program(&mut vm, "load")?;
    assert_eq!(status, "0", "the load in the guest: {output}");
    let memory = vm.memory_status()?;
    let counters = &memory.counters;
    assert_eq!(counters.pages_ballooned, counters.pages_unballooned, "{memory:?}");
    let errors = (counters.ranges_refused, counters.messages_refused, counters.host_errors);
    assert_eq!(errors, (0, 0, 0), "{memory:?}");
    assert_eq!(memory.version.as_deref(), Some("2.0"));
    assert!(vm.power_off()?.success());
    Ok(())
}

fn hot_add(kernel: StockKernel) -> TestResult {
    let options = VmOptions::new(&image(kernel)?)
        .cmdline("memhp_default_state=online")
        .memory("512M,max=1G,start-delay=3600");
    let mut vm = boot(&options)?;
    let total = meminfo(&mut vm, "MemTotal")?;
    load_driver(&mut vm)?;
    grow(&mut vm, "640M", total, 128 * MIB)?;
    // The balloon takes pages of both kinds, and they work when they are back.
    vm.set_memory("512M")?;
    wait(&vm, "the balloon", |memory| memory.assigned <= 513 * MIB)?;
    vm.set_memory("640M")?;
    wait(&vm, "the end of the balloon", |memory| memory.ballooned == 0)?;
    start_program(&mut vm, "load", "memory-load 320")?;
    wait(&vm, "the load", |memory| memory.demand > Some(320 * MIB))?;
    vm.shell("touch /run/memory-load.stop")?;
    let (status, output) = end_program(&mut vm, "load")?;
    assert_eq!(status, "0", "the load in the guest: {output}");

    // The module has no exit, so the driver leaves the device instead.
    let driver = "/sys/bus/vmbus/drivers/hv_balloon";
    let device = vm.shell(&format!("cd {driver} && echo *-*-*"))?;
    for _ in 0..10 {
        vm.shell(&format!("echo {} > {driver}/unbind", device.trim()))?;
        wait(&vm, "the end of the driver", |memory| memory.version.is_none())?;
        vm.shell(&format!("echo {} > {driver}/bind", device.trim()))?;
        wait(&vm, "the first report", |memory| memory.demand.is_some())?;
    }
    grow(&mut vm, "768M", total, 256 * MIB)?;

    vm.tell(Action::Reboot)?;
    vm.wait_ready()?;
    assert_eq!(meminfo(&mut vm, "MemTotal")?, total, "the RAM that it booted with");
    let memory = vm.memory_status()?;
    assert_eq!((memory.added, memory.version), (0, None));
    load_driver(&mut vm)?;
    grow(&mut vm, "768M", total, 256 * MIB)?;
    let memory = vm.memory_status()?;
    let counters = &memory.counters;
    let errors = (counters.ranges_refused, counters.messages_refused, counters.host_errors);
    assert_eq!(errors, (0, 0, 0), "{memory:?}");
    assert!(vm.power_off()?.success());
    Ok(())
}

/// The host frees a hugepage when all its small pages are in the balloon.
fn balloon_of_hugepages(kernel: StockKernel) -> TestResult {
    let _pool = Pool::reserve()?;
    let memory = "512M,hugepages=on,min=256M,start-delay=3600";
    let mut vm = boot(&VmOptions::new(&image(kernel)?).memory(memory))?;
    load_driver(&mut vm)?;
    vm.set_memory("384M")?;
    let memory = wait(&vm, "the balloon", |memory| memory.assigned <= 385 * MIB)?;
    // Linux gives blocks of 2 MiB as long as it has some.
    assert!(memory.returned >= 96 * MIB && memory.returned % (2 * MIB) == 0, "{memory:?}");
    vm.set_memory("512M")?;
    wait(&vm, "the end of the balloon", |memory| memory.ballooned == 0)?;
    start_program(&mut vm, "load", "memory-load 256")?;
    wait(&vm, "the load", |memory| memory.demand > Some(256 * MIB))?;
    vm.shell("touch /run/memory-load.stop")?;
    let (status, output) = end_program(&mut vm, "load")?;
    assert_eq!(status, "0", "the load in the guest: {output}");
    let counters = vm.memory_status()?.counters;
    assert_eq!((counters.ranges_refused, counters.host_errors), (0, 0), "{counters:?}");
    assert!(vm.power_off()?.success());
    Ok(())
}

/// KVM passes the hypercall to the program since Linux 6.3. Older ones refuse the option, which is
/// what the test host of the usual suite shows; `cargo xtask host --suite trixie` has a newer one.
fn free_pages(kernel: StockKernel) -> TestResult {
    let memory = "512M,min=256M,start-delay=3600,free-page-reporting=on";
    let mut vm = match Vm::boot(&VmOptions::new(&image(kernel)?).memory(memory)) {
        Ok(vm) => vm,
        Err(error) => {
            let text = error.to_string();
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
            assert!(text.contains("extended-hypercalls"), "{text}");
            assert!(is_older_than_6_3(&release), "{release}: {text}");
            return Ok(());
        }
    };
    load_driver(&mut vm)?;
    vm.shell(
        "mkdir -p /run/fill && mount -t tmpfs none /run/fill && \
         dd if=/dev/zero of=/run/fill/file bs=1M count=128",
    )?;
    let used = vm.memory_status()?;
    vm.shell("umount /run/fill")?;
    let reported = wait(&vm, "the report", |memory| memory.counters.pages_hinted >= 96 * 256)?;
    assert!(reported.resident + 90 * MIB <= used.resident, "{used:?} {reported:?}");
    assert_eq!((reported.ballooned, reported.assigned), (0, used.assigned), "{reported:?}");
    start_program(&mut vm, "load", "memory-load 256")?;
    wait(&vm, "the load", |memory| memory.demand > Some(256 * MIB))?;
    vm.shell("touch /run/memory-load.stop")?;
    let (status, output) = end_program(&mut vm, "load")?;
    assert_eq!(status, "0", "the load in the guest: {output}");
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Returns whether a kernel's release, such as `6.1.0-56-amd64`, is below 6.3.
fn is_older_than_6_3(release: &str) -> bool {
    let mut numbers = release.split('.').map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(6), Some(3))
}

/// Sets the size, and waits until `/proc/meminfo` has `added` bytes more than at boot. The kernel
/// keeps a part of added memory for its own tables.
fn grow(vm: &mut Vm, size: &str, total: u64, added: u64) -> TestResult {
    vm.set_memory(size)?;
    wait(vm, "the added memory", |memory| memory.added == added)?;
    let now = meminfo(vm, "MemTotal")?;
    assert!(now >= total + added - 8 * MIB && now <= total + added, "{total} {added} {now}");
    Ok(())
}
