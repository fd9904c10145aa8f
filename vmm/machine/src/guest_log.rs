//! Log lines that a guest can cause at will. Each kind has a rate limit, and a count of suppressed
//! lines.

use std::fmt::Display;

use tracing::{error, info, warn};
use vmbus_log::LogRateLimiter;

use crate::crash::CrashParameters;

/// Lines about a machine's vCPUs, and about actions of the guest on the machine.
#[derive(Debug, Default)]
pub(crate) struct MachineLog {
    crashes: LogRateLimiter,
    resets: LogRateLimiter,
    triple_faults: LogRateLimiter,
    eoms: LogRateLimiter,
    events: LogRateLimiter,
}

impl MachineLog {
    /// Logs that the guest wrote its crash MSRs.
    pub(crate) fn crash(&self, parameters: &CrashParameters) {
        self.crashes
            .log(|suppressed| error!(suppressed, "the guest reported a crash: {parameters}"));
    }

    pub(crate) fn reset(&self) {
        self.resets.log(|suppressed| info!(suppressed, "the machine resets"));
    }

    pub(crate) fn triple_fault(&self, vcpu: u32) {
        let line = |suppressed| warn!(suppressed, "vCPU {vcpu}: triple fault, the machine resets");
        self.triple_faults.log(line);
    }

    /// Logs that KVM refused the guest's EOM.
    pub(crate) fn eom(&self, vcpu: u32, error: &dyn Display) {
        self.eoms.log(|suppressed| warn!(suppressed, "vCPU {vcpu}: EOM: {error}"));
    }

    /// Logs that KVM reported an unknown system event.
    pub(crate) fn system_event(&self, vcpu: u32, kind: u32) {
        let line = |suppressed| warn!(suppressed, "vCPU {vcpu}: system event {kind} ignored");
        self.events.log(line);
    }
}

/// Lines about the SynICs.
#[derive(Debug, Default)]
pub(crate) struct SynicLog {
    eoms: LogRateLimiter,
    doorbells: LogRateLimiter,
}

impl SynicLog {
    /// Logs that the EOM of a busy message slot will not be noticed.
    pub(crate) fn eom(&self, error: &dyn Display) {
        self.eoms.log(|suppressed| warn!(suppressed, "cannot watch for EOM: {error}"));
    }

    /// Logs that a connection id stays bound to its eventfd.
    pub(crate) fn doorbell(&self, connection_id: u32, error: &dyn Display) {
        self.doorbells.log(|suppressed| warn!(suppressed, "doorbell {connection_id:#x}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use vmbus_log::testing::expect_limited;

    use super::*;

    #[test]
    fn test_lines_that_a_guest_causes_are_limited_each_kind_for_itself() {
        const TIMES: u64 = 100_000;
        let (machine, synic) = (MachineLog::default(), SynicLog::default());
        expect_limited("crash", TIMES, || machine.crash(&CrashParameters([1, 2, 3, 4, 5])));
        expect_limited("reset", TIMES, || machine.reset());
        expect_limited("triple fault", TIMES, || machine.triple_fault(0));
        expect_limited("EOM exit", TIMES, || machine.eom(0, &"refused"));
        expect_limited("system event", TIMES, || machine.system_event(0, 99));
        expect_limited("EOM watch", TIMES, || synic.eom(&"refused"));
        expect_limited("doorbell", TIMES, || synic.doorbell(0x10001, &"refused"));
    }
}
