//! What waking a thread costs on this machine.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use synthvm_block::wait::wait_for;

/// Round trips. The quickest counts: what disturbs makes it longer only.
const ROUNDS: u32 = 16;

/// Time from an event to the thread that sleeps on it. Zero when it cannot be measured. Takes about as long as [`ROUNDS`] round trips.
pub(super) fn measure() -> Duration {
    let (Ok(there), Ok(back)) = (EventFd::new(EFD_CLOEXEC), EventFd::new(EFD_CLOEXEC)) else {
        return Duration::ZERO;
    };
    let quickest = thread::scope(|scope| {
        let echo = || {
            for _ in 0..ROUNDS {
                wait_for(&[there.as_raw_fd()], None);
                if there.read().and_then(|_| back.write(1)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name("wake".to_owned()).stack_size(64 << 10).spawn_scoped(scope, echo).ok()?;
        let round = |_| {
            let start = Instant::now();
            there.write(1).ok()?;
            wait_for(&[back.as_raw_fd()], None);
            back.read().ok()?;
            Some(start.elapsed())
        };
        (0..ROUNDS).filter_map(round).min()
    });
    quickest.unwrap_or_default() / 2
}

/// Has the calling thread's short sleeps end when they should; else the kernel lets them end up to 50 us late.
pub(super) fn sleep_exactly() {
    // SAFETY: no memory is involved. Should it fail, sleeps last longer.
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
