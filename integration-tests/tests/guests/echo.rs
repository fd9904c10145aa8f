//! Tests of the backend of docs/writing-a-backend.md in a real guest, from its user space.

use guest_images::StockKernel;
use guest_report::agent::{Action, EchoReport};
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::VmOptions;

use crate::common::{self, MIB, boot, image};

/// The device's class.
const CLASS: &str = "6f686365-7421-0000-5379-6e7468564d21";

/// The size of the memory that uio_hv_generic shares: 31 MiB and 16 MiB.
const SHARED_BYTES: u64 = 47 * MIB;

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    // Linux 6.1 has no way for user space to signal the host: its driver needs devices with monitor
    // pages.
    if kernel != StockKernel::V6_1 {
        let name =
            "test_echo_of_a_documented_backend_is_right_for_linux_user_space_and_leaves_nothing";
        common::add(tests, kernel, name, echo);
    }
}

fn echo(kernel: StockKernel) -> TestResult {
    let mut vm = boot(&VmOptions::new(&image(kernel)?).cpus(2).argument("--test-device", "echo"))?;
    // Twice, because a released device must be usable again.
    for _ in 0..2 {
        let report: EchoReport = vm.ask(Action::Echo)?;
        assert!(report.wraps.iter().all(|wraps| *wraps >= 3), "{report:?}");
        assert!(report.host_waited_for_space && report.interrupts > 0, "{report:?}");
        assert_eq!(report.shared_bytes, SHARED_BYTES);
        let inspect = vm.inspect()?;
        let channel =
            inspect.channels.iter().find(|channel| channel.class.eq_ignore_ascii_case(CLASS));
        let channel =
            channel.ok_or("the guest's kernel still has the device, so it is still offered")?;
        assert!(channel.gpadls.is_empty(), "{channel:?}");
        assert!(
            inspect.gpadls.iter().all(|gpadl| gpadl.relid != channel.relid),
            "{:?}",
            inspect.gpadls
        );
        assert_eq!(inspect.doorbell_exits(), 0, "doorbells must stay in the kernel");
    }
    assert!(vm.power_off()?.success());
    Ok(())
}
