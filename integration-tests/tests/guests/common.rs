//! What the tests of real guests have in common.

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use guest_report::agent::Event;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

/// The guest that tests boot, before it is built.
pub(crate) fn guest(kernel: StockKernel) -> GuestBuilder {
    GuestBuilder::stock(kernel)
}

/// The guest that tests boot.
pub(crate) fn image(kernel: StockKernel) -> Result<GuestImage, guest_images::Error> {
    guest(kernel).build()
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
        assert!(modules_failed.is_empty(), "modules that did not load: {modules_failed:?}\n{}", vm.said());
    }
    Ok(vm)
}

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;
