//! SynIC pages and message queues of all VPs, whoever implements the MSRs and the interrupts.
//!
//! The pages are guest RAM. Event flags are set from any thread (atomic OR). Message slots are written only on the thread
//! of the VP that owns them, while the VP does not run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use tracing::{debug, warn};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory, VolatileSlice};
use vmbus_host::Signal;

use super::slot::{self, Post};
use crate::memory::GuestMemory;

pub(super) const SINTS: u8 = 16;
const FLAGS_PER_SINT: u16 = 2048;
const PAGE: usize = 4096;
const ENABLE: u64 = 1;
const ADDRESS: u64 = !0xFFF;

/// What the pages need of the interrupt side.
pub(super) trait Lines {
    /// Injects a SINT. If the guest has masked it the interrupt is lost; what is in the page is not.
    fn raise(&self, vp: u32, sint: u8);

    /// Forgets the EOMs of `vp` that came so far.
    fn forget_eoms(&self, vp: u32);

    /// Has `vp` kicked at its next EOM, or at once if one came since [`Lines::forget_eoms`].
    fn kick_at_eom(&self, vp: u32);
}

/// The SynIC MSRs of a VP, as KVM reports them when the guest writes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynicState {
    /// SCONTROL.
    pub control: u64,
    /// SIEFP.
    pub event_page: u64,
    /// SIMP.
    pub message_page: u64,
}

impl SynicState {
    /// After power-on. KVM_CAP_HYPERV_SYNIC2 starts with SCONTROL on (spec hypervisor-platform section 5.1).
    pub const RESET: SynicState = SynicState { control: ENABLE, event_page: 0, message_page: 0 };
}

/// Pages and queues of all VPs.
pub(super) struct Vps {
    memory: GuestMemory,
    vps: Box<[Vp]>,
}

struct Vp {
    /// Held for reading while a page is written, for writing while it changes: a page that the guest has switched off
    /// is not written any more once its MSR write is over.
    pages: RwLock<Pages>,
    queues: Mutex<BTreeMap<u8, VecDeque<Message>>>,
}

/// Where a VP's pages are; `None` when off, or not in RAM.
struct Pages {
    state: SynicState,
    messages: Option<GuestAddress>,
    flags: Option<GuestAddress>,
}

impl Pages {
    const RESET: Pages = Pages { state: SynicState::RESET, messages: None, flags: None };
}

struct Message {
    len: u8,
    payload: [u8; slot::MAX_PAYLOAD],
}

impl Vps {
    /// `count` VPs in their reset state.
    pub(super) fn new(memory: GuestMemory, count: u32) -> Vps {
        let vp = || Vp { pages: RwLock::new(Pages::RESET), queues: Mutex::default() };
        Vps { memory, vps: (0..count).map(|_| vp()).collect() }
    }

    /// Number of VPs.
    pub(super) fn count(&self) -> u32 {
        self.vps.len() as u32
    }

    /// Takes over the MSRs of `vp`. On the VP's thread.
    pub(super) fn update(&self, vp: u32, state: SynicState) {
        let Some(target) = self.vp(vp) else { return };
        let mut pages = target.pages.write().unwrap_or_else(PoisonError::into_inner);
        let messages = self.page(vp, "SIMP", pages.messages, state.control, state.message_page);
        let flags = self.page(vp, "SIEFP", pages.flags, state.control, state.event_page);
        *pages = Pages { state, messages, flags };
    }

    /// Where a page is now. One that has just been switched on is zeroed; no message can be in it yet, because this is
    /// the only thread that could write one.
    fn page(
        &self,
        vp: u32,
        register: &str,
        before: Option<GuestAddress>,
        control: u64,
        value: u64,
    ) -> Option<GuestAddress> {
        if control & ENABLE == 0 || value & ENABLE == 0 {
            return None;
        }
        let address = GuestAddress(value & ADDRESS);
        if before == Some(address) {
            return before;
        }
        match self.memory.write_slice(&[0; PAGE], address) {
            Ok(()) => Some(address),
            Err(_) => {
                // No more often than the guest can exit, and below the level that is logged by default.
                debug!("VP {vp}: {register} page {:#x} is not RAM; it stays off", address.0);
                None
            }
        }
    }

    /// Queues a message. `false`: there is no such VP or SINT.
    pub(super) fn queue(&self, vp: u32, sint: u8, message: &[u8]) -> bool {
        let Some(target) = self.vp(vp).filter(|_| sint < SINTS) else { return false };
        let len = message.len().min(slot::MAX_PAYLOAD);
        let mut payload = [0; slot::MAX_PAYLOAD];
        payload[..len].copy_from_slice(&message[..len]);
        let mut queues = target.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(sint).or_default().push_back(Message { len: len as u8, payload });
        true
    }

    /// Delivers what is queued for `vp`. Only on that VP's thread, while it does not run.
    pub(super) fn deliver(&self, vp: u32, lines: &impl Lines) {
        let Some(target) = self.vp(vp) else { return };
        let mut queues = target.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.is_empty() {
            return;
        }
        let pages = target.pages.read().unwrap_or_else(PoisonError::into_inner);
        // Off: the messages wait for the exit that switches it on.
        let Some(page) = pages.messages else { return };
        // An EOM from here on counts; what the earlier ones freed is seen below.
        lines.forget_eoms(vp);
        let mut busy = false;
        // Empty queues go, so that a burst's memory is given back.
        queues.retain(|&sint, queue| {
            while let Some(message) = queue.front() {
                let Some(slot) = self.slot(page, sint) else { return false };
                let payload = &message.payload[..usize::from(message.len)];
                match slot::post(&slot, payload, queue.len() > 1) {
                    Ok(Post::Written) => {
                        queue.pop_front();
                        lines.raise(vp, sint);
                    }
                    Ok(Post::Busy) => {
                        busy = true;
                        return true;
                    }
                    // The page was RAM when it was switched on, and RAM does not go.
                    Err(error) => {
                        warn!("VP {vp}: message slot {sint}: {error}");
                        return false;
                    }
                }
            }
            false
        });
        if busy {
            lines.kick_at_eom(vp);
        }
    }

    /// Forgets all queued messages.
    pub(super) fn discard(&self) {
        for vp in &self.vps {
            vp.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Back to power-on: pages off, queues empty. All VPs stand still.
    pub(super) fn reset(&self) {
        self.discard();
        for vp in &self.vps {
            *vp.pages.write().unwrap_or_else(PoisonError::into_inner) = Pages::RESET;
        }
    }

    /// Sets an event flag; raises the SINT if it was clear.
    pub(super) fn signal(&self, vp: u32, sint: u8, flag: u16, lines: &impl Lines) -> Signal {
        let Some(target) = self.vp(vp).filter(|_| sint < SINTS && flag < FLAGS_PER_SINT) else {
            return Signal::Disabled;
        };
        let pages = target.pages.read().unwrap_or_else(PoisonError::into_inner);
        let Some(page) = pages.flags else { return Signal::Disabled };
        let Ok(page) = self.memory.get_slice(page, PAGE) else { return Signal::Disabled };
        let word = usize::from(sint) * 256 + usize::from(flag / 64) * 8;
        let Ok(word) = page.get_atomic_ref::<AtomicU64>(word) else { return Signal::Disabled };
        let bit = 1 << (flag % 64);
        if word.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
            return Signal::AlreadySet;
        }
        lines.raise(vp, sint);
        Signal::Raised
    }

    /// Messages queued for `vp`.
    pub(super) fn waiting(&self, vp: u32) -> usize {
        let count = |vp: &Vp| {
            let queues = vp.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.values().map(VecDeque::len).sum()
        };
        self.vp(vp).map_or(0, count)
    }

    /// The MSRs of `vp` as last reported.
    pub(super) fn state(&self, vp: u32) -> Option<SynicState> {
        Some(self.vp(vp)?.pages.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    fn vp(&self, vp: u32) -> Option<&Vp> {
        self.vps.get(vp as usize)
    }

    fn slot(&self, page: GuestAddress, sint: u8) -> Option<VolatileSlice<'_>> {
        let address = page.0.checked_add(u64::from(sint) * slot::SLOT_SIZE as u64)?;
        self.memory.get_slice(GuestAddress(address), slot::SLOT_SIZE).ok()
    }
}

#[cfg(test)]
mod tests;
