//! The cost of waking a thread on this machine.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use crate::wait;

/// Number of round trips. The shortest counts, as a disturbance only makes one longer.
const ROUNDS: u32 = 16;

/// Measures the time from a write to an event until the thread that sleeps on it runs. Returns zero
/// if the measurement fails. Takes about as long as [`ROUNDS`] round trips.
pub(crate) fn measure() -> Duration {
    let (Ok(there), Ok(back)) = (EventFd::new(EFD_CLOEXEC), EventFd::new(EFD_CLOEXEC)) else {
        return Duration::ZERO;
    };
    let quickest = thread::scope(|scope| {
        let echo = || {
            for _ in 0..ROUNDS {
                wait::poll(&mut [wait::entry(there.as_raw_fd())], None);
                if there.read().and_then(|_| back.write(1)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("wake".to_owned())
            .stack_size(64 << 10)
            .spawn_scoped(scope, echo)
            .ok()?;
        let round = |_| {
            let start = Instant::now();
            there.write(1).ok()?;
            wait::poll(&mut [wait::entry(back.as_raw_fd())], None);
            back.read().ok()?;
            Some(start.elapsed())
        };
        (0..ROUNDS).filter_map(round).min()
    });
    quickest.unwrap_or_default() / 2
}

/// Makes short sleeps of the calling thread end on time. By default the kernel ends them up to 50
/// us late.
pub(crate) fn sleep_exactly() {
    // SAFETY: the call accesses no memory. If it fails, sleeps last longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_measure_finds_a_time() {
        let time = measure();
        assert!(!time.is_zero() && time < Duration::from_secs(10), "{time:?}");
    }
}
