//! The guest's reference time, next to the host's clock.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kvm_ioctls::VmFd;

/// KVM_CLOCK_REALTIME: `realtime` is valid, and was read together with `clock`.
const HAS_REALTIME: u32 = 1 << 2;

/// The guest's reference time: MSR 0x40000020 and the TSC page, which KVM derives from its clock
/// (docs/spec/hypervisor-platform.md section 4). It stands still while the machine is saved.
#[derive(Clone)]
pub struct ReferenceClock {
    vm: Arc<VmFd>,
}

/// One moment in two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// UTC since 1970-01-01, in nanoseconds.
    pub utc_ns: u64,
    /// The guest's reference time in nanoseconds. The guest sees units of 100 ns.
    pub reference_ns: u64,
}

impl ReferenceClock {
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self { vm }
    }

    /// Reads both clocks. They differ by less than a microsecond if KVM reads both itself (Linux
    /// 5.16, with a stable TSC), and else by half of the time of a system call.
    ///
    /// # Errors
    /// The system call's error.
    pub fn read(&self) -> io::Result<ClockReading> {
        let before = utc_ns();
        let clock = self.vm.get_clock()?;
        let after = utc_ns();
        let utc_ns = match clock.flags & HAS_REALTIME {
            0 => before + after.saturating_sub(before) / 2,
            _ => clock.realtime,
        };
        Ok(ClockReading { utc_ns, reference_ns: clock.clock })
    }
}

impl fmt::Debug for ReferenceClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferenceClock").finish_non_exhaustive()
    }
}

fn utc_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
