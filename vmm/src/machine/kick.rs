//! Getting a vCPU's thread out of KVM_RUN: a request bit, `immediate_exit`, and a signal.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::hyperv::KickVp;

/// Look at [`super::control::Control`].
pub(super) const CONTROL: u32 = 1;
/// Deliver SynIC messages.
pub(super) const MESSAGES: u32 = 2;

/// Requests to each vCPU's thread.
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
    immediate_exit: *mut u8,
}

// SAFETY: a pthread_t may be used from any thread; the pointer is only used for atomic stores and only while the mutex
// around the target is held, which `detach` takes before the mapping goes away.
unsafe impl Send for Target {}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Kicks {
    /// For `count` vCPUs.
    pub(super) fn new(count: u32) -> io::Result<Kicks> {
        static HANDLER: Once = Once::new();
        let mut result = Ok(());
        // The handler does nothing: the signal's arrival is what ends KVM_RUN.
        HANDLER.call_once(|| result = register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from));
        result?;
        Ok(Kicks { vcpus: (0..count).map(|_| Vcpu::default()).collect() })
    }

    /// Asks vCPU `index` for something.
    pub(super) fn request(&self, index: u32, request: u32) {
        let Some(vcpu) = self.vcpus.get(index as usize) else { return };
        if vcpu.requests.fetch_or(request, Ordering::SeqCst) != 0 {
            // Whoever asked first kicks; the thread takes all requests at once.
            return;
        }
        let target = vcpu.target.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = &*target else { return };
        // SAFETY: pthread_self has no preconditions.
        if target.thread == unsafe { libc::pthread_self() } {
            return;
        }
        // SAFETY: the mapping lives as long as the target is set.
        unsafe { AtomicU8::from_ptr(target.immediate_exit) }.store(1, Ordering::SeqCst);
        // SAFETY: the thread lives as long as the target is set.
        unsafe { libc::pthread_kill(target.thread, SIGRTMIN()) };
    }

    /// Asks every vCPU.
    pub(super) fn request_all(&self, request: u32) {
        for index in 0..self.vcpus.len() as u32 {
            self.request(index, request);
        }
    }

    /// Tells that the calling thread runs vCPU `index` from now on, until the guard is dropped.
    ///
    /// # Safety
    /// `immediate_exit` must point to that byte of the vCPU's `kvm_run` and stay valid while the guard lives.
    pub(super) unsafe fn attach(&self, index: u32, immediate_exit: *mut u8) -> Attached<'_> {
        if let Some(vcpu) = self.vcpus.get(index as usize) {
            // SAFETY: pthread_self has no preconditions.
            let thread = unsafe { libc::pthread_self() };
            *vcpu.target.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Target { thread, immediate_exit });
        }
        Attached { kicks: self, index, immediate_exit }
    }
}

impl KickVp for Kicks {
    fn kick(&self, vp: u32) {
        self.request(vp, MESSAGES);
    }
}

/// The vCPU's side.
pub(super) struct Attached<'a> {
    kicks: &'a Kicks,
    index: u32,
    immediate_exit: *mut u8,
}

impl Attached<'_> {
    /// Takes all requests. What comes after this ends the next KVM_RUN at once.
    pub(super) fn take(&self) -> u32 {
        // SAFETY: valid while the guard lives.
        unsafe { AtomicU8::from_ptr(self.immediate_exit) }.store(0, Ordering::SeqCst);
        self.kicks.vcpus.get(self.index as usize).map_or(0, |vcpu| vcpu.requests.swap(0, Ordering::SeqCst))
    }

    /// Makes the next KVM_RUN finish pending work and return without running the guest.
    pub(super) fn exit_immediately(&self) {
        // SAFETY: valid while the guard lives.
        unsafe { AtomicU8::from_ptr(self.immediate_exit) }.store(1, Ordering::SeqCst);
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Some(vcpu) = self.kicks.vcpus.get(self.index as usize) {
            *vcpu.target.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}
