//! Tests of guests and programs that end without a shutdown.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use guest_images::StockKernel;
use guest_images::packages::sha256_file;
use guest_report::agent::{Action, Event, Load};
use guest_report::pattern::mix;
use guest_report::records::Order;
use integration_tests::image::{WorkDir, check_records};
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::VmOptions;

use crate::common::{self, MIB, boot, guest, image};

/// `synthvm`'s exit status when its guest panicked.
const EXIT_PANICKED: i32 = 5;

/// Number of rounds. In each, the program is killed after some acknowledged records; each round
/// starts with a new image.
const KILL_ROUNDS: u64 = 3;

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, "test_kexec_without_unload_finds_the_bus_again", kexec);
    common::add(
        tests,
        kernel,
        "test_panic_ends_the_program_with_its_own_status_and_parameters",
        panic,
    );
    common::add(tests, kernel, "test_panic_unloads_the_bus_without_a_wait", panic_and_unload);
    common::add(
        tests,
        kernel,
        "test_sigterm_powers_the_guest_down_and_keeps_flushed_data",
        terminate,
    );
    common::add(tests, kernel, "test_sigkill_under_load_loses_no_acknowledged_write", kill);
}

fn kexec(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 4 * MIB, 1)?;
    let guest = guest(kernel).with_kexec().build()?;
    let mut vm = boot(&VmOptions::new(&guest).cpus(2).disk(&disk))?;
    vm.disks(1)?;
    let before = vm.inspect()?;
    vm.tell(Action::Kexec { cmdline: None })?;
    let ready = vm.wait_ready()?;
    assert!(
        matches!(&ready, Event::Ready { modules_failed, .. } if modules_failed.is_empty()),
        "{ready:?}"
    );
    vm.disks(1)?;
    assert_eq!(vm.sha256("/dev/sda")?.sha256, sha256_file(&disk)?);
    let after = vm.inspect()?;
    assert_eq!(after.connection.version.as_deref(), Some("5.3"));
    assert_eq!(
        after.gpadls.len(),
        before.gpadls.len(),
        "the old connection's are gone: {:?}",
        after.gpadls
    );
    assert!(vm.power_off()?.success());
    Ok(())
}

fn panic(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 4 * MIB, 1)?;
    let mut vm = boot(&VmOptions::new(&image(kernel)?).disk(&disk))?;
    vm.tell(Action::Panic)?;
    let status = vm.wait()?;
    assert_eq!(status.code(), Some(EXIT_PANICKED), "{}", vm.said());
    // Linux writes its OS id to P1 (hyperv_report_panic): bit 63 and the number of Linux.
    assert!(vm.said().contains("the guest panicked: P0=0x"), "{}", vm.said());
    assert!(vm.said().contains(" P1=0x81"), "{}", vm.said());
    Ok(())
}

/// Linux's panic path sends UNLOAD and then empties the message slots of all VPs itself, here on VP
/// 1, while the response goes to VP 0. After each 5 s without the response it prints a line
/// (vmbus_wait_for_unload).
fn panic_and_unload(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 4 * MIB, 1)?;
    // The last `panic=` applies: the guest does not reboot, so that its bus can be inspected.
    let options = VmOptions::new(&image(kernel)?).cpus(2).disk(&disk).cmdline("panic=0");
    let mut vm = boot(&options.argument("--on-panic", "continue"))?;
    vm.disks(1)?;
    assert_eq!(vm.inspect()?.connection.state, "connected");
    let crash = "taskset 2 sh -c 'echo c > /proc/sysrq-trigger'";
    let argv = ["sh", "-c", crash].map(str::to_owned).to_vec();
    vm.send(Action::Run { argv, timeout_s: 120 })?;
    vm.wait_said("end Kernel panic")?;
    let said = vm.said();
    for words in ["Waiting for VMBus UNLOAD", "VMBus UNLOAD did not complete"] {
        assert!(!said.contains(words), "{said}");
    }
    let report = vm.inspect()?;
    assert_eq!(report.connection.state, "disconnected", "{said}");
    assert!(report.panic.is_some(), "{said}");
    Ok(())
}

fn terminate(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.empty_image("disk.img", 8 * MIB)?;
    // The guest's init powers off when the button is pressed, long before the timeout.
    let options = VmOptions::new(&image(kernel)?).disk(&disk).argument("--stop-timeout", "600");
    let mut vm = boot(&options)?;
    vm.disks(1)?;
    let load = load(Some(20), 1);
    vm.tell(Action::FsyncLoad(load.clone()))?;
    vm.signal(libc::SIGTERM);
    let status = vm.wait()?;
    assert!(status.success(), "{status}: {}", vm.said());
    check_records(&disk, &load, 20)?;
    Ok(())
}

fn kill(kernel: StockKernel) -> TestResult {
    for round in 0..KILL_ROUNDS {
        let dir = WorkDir::new()?;
        let disk = dir.empty_image("disk.img", 8 * MIB)?;
        let mut vm = boot(&VmOptions::new(&image(kernel)?).cpus(2).disk(&disk))?;
        vm.disks(1)?;
        let load = load(None, round);
        vm.send(Action::FsyncLoad(load.clone()))?;
        // A different number in each round; the requests in flight at that time are random.
        let enough = 10 + mix(round) % 60;
        let mut acknowledged = 0;
        while acknowledged < enough {
            if let Event::Ack { records } = vm.event(Duration::from_secs(120))? {
                acknowledged = records;
            }
        }
        vm.signal(libc::SIGKILL);
        let status = vm.wait()?;
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        for event in vm.events_to_the_end() {
            if let Event::Ack { records } = event {
                acknowledged = records;
            }
        }
        check_records(&disk, &load, acknowledged).map_err(|why| format!("round {round}: {why}"))?;
    }
    Ok(())
}

fn load(count: Option<u64>, seed: u64) -> Load {
    let order = if seed.is_multiple_of(2) { Order::Random } else { Order::Sequential };
    Load {
        path: "/dev/sda".to_owned(),
        blocks: 1024,
        count,
        seed,
        order,
        direct: seed.is_multiple_of(3),
        batch: 1,
    }
}
