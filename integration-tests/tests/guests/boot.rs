//! Tests that a stock guest boots and finds its bus, and that both sides agree about it.

use std::collections::BTreeSet;

use guest_images::StockKernel;
use guest_report::agent::Action;
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::VmOptions;

use crate::common::{self, MIB, boot, image};

const SERIAL: &str = "test_serial_port_carries_lines_of_all_lengths_in_both_directions";

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, SERIAL, serial_lines);
    for cpus in [1, 2, 4] {
        for memory in ["512M", "5G"] {
            let name =
                format!("test_boot_{cpus}_vcpus_{memory}_agrees_on_bus_on_{}", kernel.version());
            tests.push(Test::new(name, move || agrees_on_bus(kernel, cpus, memory)));
        }
    }
}

/// Lines of all lengths, which fill the port's receive buffer many times, arrive whole in both
/// directions: no interrupt of the port and no wake-up of its host end is lost.
fn serial_lines(kernel: StockKernel) -> TestResult {
    let mut vm = boot(&VmOptions::new(&image(kernel)?))?;
    for length in (1..3000).step_by(31) {
        let text: String = ('a'..='z').cycle().take(length).collect();
        assert_eq!(vm.shell(&format!("echo {text}"))?.trim(), text);
    }
    assert!(vm.power_off()?.success());
    Ok(())
}

fn agrees_on_bus(kernel: StockKernel, cpus: u32, memory: &str) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 4 * MIB, 1)?;
    let mut vm = boot(&VmOptions::new(&image(kernel)?).cpus(cpus).memory(memory).disk(&disk))?;

    let disks = vm.disks(1)?;
    assert_eq!(disks[0].size, 4 * MIB, "{disks:?}");
    assert_eq!(vm.ask::<u32>(Action::OnlineCpus)?, cpus);
    assert_eq!(vm.ask::<String>(Action::Clocksource)?, "hyperv_clocksource_tsc_page");

    let seen = vm.vmbus()?;
    let inspect = vm.inspect()?;
    assert_eq!(seen.version.as_deref(), Some("5.3"));
    assert_eq!(inspect.connection.version.as_deref(), Some("5.3"));
    assert_eq!(inspect.vcpus.len(), cpus as usize);
    let offered: BTreeSet<String> =
        inspect.channels.iter().map(|c| c.instance.to_lowercase()).collect();
    let found: BTreeSet<String> = seen.devices.iter().map(|d| d.device_id.to_lowercase()).collect();
    assert!(!offered.is_empty());
    assert_eq!(offered, found, "channels offered, and devices that the guest lists");
    assert!(!inspect.gpadls.is_empty(), "an open channel's ring is a GPADL");

    assert!(vm.power_off()?.success());
    Ok(())
}
