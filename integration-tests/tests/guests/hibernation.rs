//! A guest that hibernates: it saves its memory to a VMBus disk and resumes in another machine.

use std::time::{Duration, Instant};

use guest_images::{GuestBuilder, StockKernel};
use guest_report::agent::Action;
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, MIB, boot};
use crate::services::wait_ready;

/// A wait of this length has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// What the program in the guest writes on the console after it has resumed.
const RESUMED: &str = "the guest resumes with what it had";

/// Hibernates when the kernel's driver asks for it, as the rule of a distribution's udev does.
const ON_EVENT: &str = "#!/bin/sh\n[ \"$EVENT\" = hibernate ] || exit 0\n\
    echo disk > /sys/power/state && echo \"the guest resumes with $(cat /tmp/kept)\" > /dev/ttyS0\n";

pub(crate) fn guest(kernel: StockKernel) -> GuestBuilder {
    common::guest(kernel).module("hv_utils", true).file(
        "sbin/on-event",
        0o755,
        ON_EVENT.as_bytes().to_vec(),
    )
}

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    let name = "test_hibernate_saves_memory_to_a_disk_and_the_next_machine_resumes";
    common::add(tests, kernel, name, hibernation);
}

fn hibernation(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("swap.img", 512 * MIB, 1)?;
    let image = guest(kernel).build()?;
    let options = VmOptions::new(&image).memory("256M").disk(&disk).argument("--hibernation", "on");
    let mut vm = boot(&options)?;
    vm.disks(1)?;
    vm.shell("busybox mkswap /dev/sda && busybox swapon /dev/sda")?;
    vm.shell("echo what it had > /tmp/kept; busybox uevent /sbin/on-event > /tmp/log 2>&1 &")?;
    wait_ready(&vm, &["shutdown"])?;
    vm.synthvm(&["hibernate"], &["--wait", "120"])?;
    assert!(vm.wait()?.success(), "{}", vm.said());

    let mut vm = boot(&options)?;
    vm.disks(1)?;
    let argv = ["sh", "-c", "echo 8:0 > /sys/power/resume"].map(str::to_owned).to_vec();
    // It has no answer: the memory in which it runs is replaced.
    vm.send(Action::Run { argv, timeout_s: LIMIT.as_secs() })?;
    wait_for_console(&vm, RESUMED)?;
    assert_eq!(vm.shell("cat /tmp/kept")?, "what it had\n");
    // Bus, disk and services work in the resumed guest.
    vm.shell("busybox swapoff /dev/sda && dd if=/dev/sda of=/dev/null bs=1M count=8")?;
    wait_ready(&vm, &["shutdown", "heartbeat"])?;
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Waits until the console has this text.
fn wait_for_console(vm: &Vm, text: &str) -> TestResult {
    let end = Instant::now() + LIMIT;
    while !vm.said().contains(text) {
        if Instant::now() > end {
            return Err(format!("{text:?} is not on the console:\n{}", vm.said()).into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
