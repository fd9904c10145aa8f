//! Makes a vCPU's thread leave KVM_RUN: a request bit, `immediate_exit`, and a signal.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::run_page::ImmediateExit;
use crate::hyperv::KickVp;

/// Request: check [`super::control::Control`].
pub(super) const CONTROL: u32 = 1;
/// Request: deliver SynIC messages.
pub(super) const MESSAGES: u32 = 2;

/// The pending requests to each vCPU's thread.
pub(crate) struct Kicks {
    vcpus: Box<[Vcpu]>,
}

#[derive(Default)]
struct Vcpu {
    requests: AtomicU32,
    target: Mutex<Option<Target>>,
}

struct Target {
    thread: libc::pthread_t,
    immediate_exit: ImmediateExit,
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Kicks {
    /// Returns the kicks for `count` vCPUs.
    pub(super) fn new(count: u32) -> io::Result<Kicks> {
        static HANDLER: Once = Once::new();
        let mut result = Ok(());
        // The handler does nothing: the signal's arrival ends KVM_RUN.
        HANDLER.call_once(|| {
            result = register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from);
        });
        result?;
        Ok(Kicks { vcpus: (0..count).map(|_| Vcpu::default()).collect() })
    }

    /// Sends a request to vCPU `index`.
    pub(super) fn request(&self, index: u32, request: u32) {
        let Some(vcpu) = self.vcpus.get(index as usize) else { return };
        if vcpu.requests.fetch_or(request, Ordering::SeqCst) != 0 {
            // The sender of the first request kicks; the thread takes all requests together.
            return;
        }
        let target = vcpu.target.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = &*target else { return };
        // SAFETY: pthread_self has no preconditions.
        if target.thread == unsafe { libc::pthread_self() } {
            return;
        }
        target.immediate_exit.set(true);
        // SAFETY: the thread lives as long as the target is set.
        unsafe { libc::pthread_kill(target.thread, SIGRTMIN()) };
    }

    /// Sends a request to every vCPU.
    pub(super) fn request_all(&self, request: u32) {
        for index in 0..self.vcpus.len() as u32 {
            self.request(index, request);
        }
    }

    /// Registers the calling thread as the thread of vCPU `index`, until the guard is dropped.
    ///
    /// # Safety
    /// The guard must be dropped on the calling thread, before that thread ends.
    pub(super) unsafe fn attach(&self, index: u32, immediate_exit: ImmediateExit) -> Attached<'_> {
        if let Some(vcpu) = self.vcpus.get(index as usize) {
            // SAFETY: pthread_self has no preconditions.
            let thread = unsafe { libc::pthread_self() };
            *vcpu.target.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Target { thread, immediate_exit: immediate_exit.clone() });
        }
        Attached { kicks: self, index, immediate_exit }
    }
}

impl KickVp for Kicks {
    fn kick(&self, vp: u32) {
        self.request(vp, MESSAGES);
    }
}

/// The vCPU thread's registration, and its side of the kicks.
pub(super) struct Attached<'a> {
    kicks: &'a Kicks,
    index: u32,
    immediate_exit: ImmediateExit,
}

impl Attached<'_> {
    /// Takes all requests. A later request ends the next KVM_RUN immediately.
    pub(super) fn take(&self) -> u32 {
        self.immediate_exit.set(false);
        self.kicks
            .vcpus
            .get(self.index as usize)
            .map_or(0, |vcpu| vcpu.requests.swap(0, Ordering::SeqCst))
    }

    /// Makes the next KVM_RUN finish pending work and return without running the guest.
    pub(super) fn exit_immediately(&self) {
        self.immediate_exit.set(true);
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Some(vcpu) = self.kicks.vcpus.get(self.index as usize) {
            *vcpu.target.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}
