//! Functions that the tests of real guests share.

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use guest_report::agent::Event;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

/// Returns the builder of the guest that tests boot.
pub(crate) fn guest(kernel: StockKernel) -> GuestBuilder {
    GuestBuilder::stock(kernel)
}

/// Returns the guest that tests boot.
pub(crate) fn image(kernel: StockKernel) -> Result<GuestImage, guest_images::Error> {
    guest(kernel).build()
}

/// Returns the guest for storage tests: with fio, and the programs and the driver of XFS.
pub(crate) fn storage_guest(kernel: StockKernel) -> GuestBuilder {
    guest(kernel)
        .package("fio", &["usr/bin/fio"])
        .package("xfsprogs", &["sbin/mkfs.xfs", "sbin/xfs_repair"])
        .module("xfs", false)
        .module("isofs", false)
}

/// Returns the guest for network tests: with ethtool and the driver of VLANs.
pub(crate) fn network_guest(kernel: StockKernel) -> GuestBuilder {
    guest(kernel).package("ethtool", &["sbin/ethtool"]).module("8021q", false)
}

/// Adds a test whose name ends with the kernel's version.
pub(crate) fn add(
    tests: &mut Vec<Test>,
    kernel: StockKernel,
    name: &str,
    run: impl Fn(StockKernel) -> TestResult + 'static,
) {
    tests.push(Test::new(format!("{name}_on_{}", kernel.version()), move || run(kernel)));
}

/// Boots a machine whose guest must have loaded all its modules.
pub(crate) fn boot(options: &VmOptions) -> Result<Vm, VmError> {
    let mut vm = Vm::start(options)?;
    let ready = vm.wait_ready()?;
    if let Event::Ready { modules_failed, .. } = &ready {
        assert!(
            modules_failed.is_empty(),
            "modules that did not load: {modules_failed:?}\n{}",
            vm.said()
        );
    }
    Ok(vm)
}

/// Starts a program in the guest in the background.
pub(crate) fn start_program(vm: &mut Vm, name: &str, program: &str) -> TestResult {
    let script = format!(
        "({program} > /tmp/{name} 2>&1 & echo $! > /tmp/{name}.pid; wait $!; echo $? > \
        /tmp/{name}.status) > /dev/null 2>&1 &"
    );
    vm.shell(&script)?;
    Ok(())
}

/// Waits for the program to end. Returns its exit status and its output.
pub(crate) fn end_program(vm: &mut Vm, name: &str) -> Result<(String, String), VmError> {
    let status = vm.shell(&format!(
        "until [ -s /tmp/{name}.status ]; do sleep 0.1; done; cat /tmp/{name}.status"
    ))?;
    Ok((status.trim().to_owned(), vm.shell(&format!("cat /tmp/{name}"))?))
}

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;
