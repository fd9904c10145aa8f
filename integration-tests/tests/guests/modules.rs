//! Tests that drivers can be loaded and unloaded without leaving traces.

use guest_images::StockKernel;
use guest_report::agent::Action;
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::VmOptions;

use crate::common::{self, MIB, boot, image};

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, "test_modules_unloaded_and_loaded_ten_times_leave_no_gpadl", reload);
}

fn names() -> Vec<String> {
    ["hv_vmbus", "hv_storvsc"].map(str::to_owned).to_vec()
}

fn unload_all() -> impl Iterator<Item = Action> {
    names().into_iter().rev().map(|name| Action::UnloadModule { name })
}

fn reload(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 4 * MIB, 1)?;
    let mut vm = boot(
        &VmOptions::new(&image(kernel)?).cpus(2).disk(&disk).argument("--disk-channels", "2"),
    )?;
    vm.disks(1)?;
    let first = vm.inspect()?;

    vm.tell(Action::ModulesReload { names: names(), times: 9 })?;
    for action in unload_all() {
        vm.tell(action)?;
    }
    let empty = vm.inspect()?;
    assert!(empty.gpadls.is_empty(), "left behind: {:?}", empty.gpadls);
    assert_ne!(empty.connection.state, "connected");

    for name in names() {
        vm.tell(Action::LoadModule { name, parameters: String::new() })?;
    }
    vm.disks(1)?;
    let last = vm.inspect()?;
    assert_eq!(last.connection.version.as_deref(), Some("5.3"));
    let ids = |report: &integration_tests::inspect::Inspect| {
        let mut ids: Vec<u32> = report.channels.iter().map(|channel| channel.relid).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&last), ids(&first), "ids are used again");
    assert_eq!(last.gpadls.len(), first.gpadls.len());
    // The guest numbers GPADLs from a new start for each load, so the same ids are used again and
    // must be free.
    assert_eq!(vm.sha256("/dev/sda")?.bytes, 4 * MIB);
    assert!(vm.power_off()?.success());
    Ok(())
}
