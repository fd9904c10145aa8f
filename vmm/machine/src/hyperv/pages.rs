//! SynIC pages and message queues of all VPs, independent of the MSRs' and interrupts'
//! implementation.
//!
//! The pages are guest RAM. Any thread may set event flags (atomic OR). Only the thread of a VP
//! writes its message slots, while the VP does not run.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use tracing::debug;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};
use vmbus_host::mailbox::{self, Mailbox, SLOT_SIZE, Slot, SlotMemory};
use vmbus_host::{QueuedMessage, Signal};
use vmbus_protocol::offer::SINT_COUNT;

use super::VMBUS_SINT;
use crate::memory::GuestMemory;

const FLAGS_PER_SINT: u16 = 2048;
/// 64-bit words of event flags per SINT.
const WORDS_PER_SINT: usize = 32;
const PAGE: usize = 4096;
const ENABLE: u64 = 1;
const ADDRESS: u64 = !0xFFF;

/// The interrupt operations that the pages need.
pub(super) trait VpInterrupts {
    /// Injects a SINT. If the guest has masked it, the interrupt is lost, but the content of the
    /// page stays.
    fn raise(&self, vp: u32, sint: u8);

    /// Returns whether any VP wrote EOM since the last call.
    fn take_eoms(&self) -> bool;

    /// Watches for the next EOM on any VP. It causes a kick of each VP that has queued messages.
    fn watch_eoms(&self);

    /// Makes the thread of `vp` deliver messages.
    fn kick(&self, vp: u32);
}

/// The SynIC MSRs of a VP, as reported by KVM when the guest writes one.
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
    /// The state after power-on. With KVM_CAP_HYPERV_SYNIC2, SCONTROL starts enabled (spec
    /// hypervisor-platform section 5.1).
    pub const RESET: SynicState = SynicState { control: ENABLE, event_page: 0, message_page: 0 };
}

/// The pages and queues of all VPs.
pub(super) struct Vps {
    memory: GuestMemory,
    vps: Box<[Vp]>,
}

struct Vp {
    /// Locked for reading while a page is written, for writing while it changes. So no write to a
    /// page follows the end of the MSR write that disabled it.
    pages: RwLock<Pages>,
    mailbox: Mailbox,
    /// Event flags that were set while their page was disabled, by 64-bit word of the page. Locked
    /// only while `pages` is locked.
    remembered: Mutex<BTreeMap<usize, u64>>,
}

/// The addresses of a VP's pages; `None` if a page is disabled or not in RAM.
struct Pages {
    state: SynicState,
    messages: Option<GuestAddress>,
    flags: Option<GuestAddress>,
}

/// Returns the word of an event flags page that holds a flag, and the flag's bit in it.
fn word_of(sint: u8, flag: u16) -> (usize, u64) {
    (usize::from(sint) * WORDS_PER_SINT + usize::from(flag / 64), 1 << (flag % 64))
}

impl Pages {
    const RESET: Pages = Pages { state: SynicState::RESET, messages: None, flags: None };
}

/// The interrupts of one VP.
struct VpSink<'a, L> {
    vp: u32,
    vps: &'a Vps,
    all: &'a L,
}

impl<L: VpInterrupts> mailbox::InterruptSink for VpSink<'_, L> {
    fn raise(&self, sint: u8) {
        self.all.raise(self.vp, sint);
    }

    fn take_eoms(&self) {
        if self.all.take_eoms() {
            self.vps.kick_waiting(Some(self.vp), self.all);
        }
    }

    fn watch_eoms(&self) {
        self.all.watch_eoms();
    }
}

impl Vps {
    /// Returns `count` VPs in their reset state.
    pub(super) fn new(memory: GuestMemory, count: u32) -> Vps {
        let vp = || Vp {
            pages: RwLock::new(Pages::RESET),
            mailbox: Mailbox::new(),
            remembered: Mutex::default(),
        };
        Vps { memory, vps: (0..count).map(|_| vp()).collect() }
    }

    /// Returns the number of VPs.
    pub(super) fn count(&self) -> u32 {
        self.vps.len() as u32
    }

    /// Applies the MSRs of `vp`, and sets the event flags that are pending for its page. Must run
    /// on the VP's thread.
    ///
    /// The guest may have unmasked SINTs after it enabled the pages, which causes no exit. So each
    /// SINT with content in a page is raised again.
    pub(super) fn update(&self, vp: u32, state: SynicState, lines: &impl VpInterrupts) {
        let Some(target) = self.vp(vp) else { return };
        let mut pages = target.pages.write().unwrap_or_else(PoisonError::into_inner);
        let messages = self.page(vp, "SIMP", pages.messages, state.control, state.message_page);
        let flags = self.page(vp, "SIEFP", pages.flags, state.control, state.event_page);
        *pages = Pages { state, messages, flags };
        drop(pages);
        let pages = target.pages.read().unwrap_or_else(PoisonError::into_inner);
        for sint in self.pending_sints(target, &pages) {
            lines.raise(vp, sint);
        }
    }

    /// Moves the pending event flags to their page, and returns the SINTs that have content in a
    /// page. SINTs other than VMBus's are included only if they had pending flags.
    fn pending_sints(&self, target: &Vp, pages: &Pages) -> BTreeSet<u8> {
        let mut pending = BTreeSet::new();
        if let Some(page) = pages.flags {
            let remembered = std::mem::take(
                &mut *target.remembered.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for (index, bits) in remembered {
                if self.set_flags(page, index, bits).is_some() {
                    pending.insert((index / WORDS_PER_SINT) as u8);
                }
            }
            let first = usize::from(VMBUS_SINT) * WORDS_PER_SINT;
            let is_set = |index| self.set_flags(page, index, 0).is_some_and(|before| before != 0);
            if (first..first + WORDS_PER_SINT).any(is_set) {
                pending.insert(VMBUS_SINT);
            }
        }
        let slot = pages.messages.and_then(|page| self.slot(page, VMBUS_SINT));
        if slot.is_some_and(|slot| slot.message_type() != mailbox::EMPTY) {
            pending.insert(VMBUS_SINT);
        }
        pending
    }

    /// Returns the address of a page. A page that has just been enabled is zeroed; it cannot
    /// contain a message yet, because only this thread writes messages.
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
                // The guest needs an exit for each such line, and the level is below the default.
                debug!("VP {vp}: {register} page {:#x} is not RAM; it stays off", address.0);
                None
            }
        }
    }

    /// Queues a message. Returns `false` if the VP or the SINT does not exist.
    pub(super) fn queue(&self, vp: u32, sint: u8, message: &[u8]) -> bool {
        let Some(target) = self.vp(vp).filter(|_| sint < SINT_COUNT) else { return false };
        target.mailbox.queue(sint, message);
        true
    }

    /// Delivers the messages queued for `vp`. Must run on that VP's thread, while the VP does not
    /// run.
    pub(super) fn deliver(&self, vp: u32, lines: &impl VpInterrupts) {
        let Some(target) = self.vp(vp) else { return };
        let pages = target.pages.read().unwrap_or_else(PoisonError::into_inner);
        // The page is disabled: the messages stay queued until the exit that enables it.
        let Some(page) = pages.messages else { return };
        target.mailbox.deliver(|sint| self.slot(page, sint), &VpSink { vp, vps: self, all: lines });
    }

    /// Kicks each VP, except `except`, that has messages queued for a slot: some VP has written
    /// EOM.
    pub(super) fn kick_waiting(&self, except: Option<u32>, lines: &impl VpInterrupts) {
        for (vp, target) in (0..).zip(&self.vps) {
            // Messages queued for a disabled page are delivered when the guest enables it.
            let is_on =
                || target.pages.read().unwrap_or_else(PoisonError::into_inner).messages.is_some();
            if Some(vp) != except && !target.mailbox.is_empty() && is_on() {
                lines.kick(vp);
            }
        }
    }

    /// Drops all queued messages.
    pub(super) fn discard(&self) {
        for vp in &self.vps {
            vp.mailbox.clear();
        }
    }

    /// Restores the power-on state: pages disabled, queues empty. All VPs must be quiesced.
    pub(super) fn reset(&self) {
        self.discard();
        for vp in &self.vps {
            *vp.pages.write().unwrap_or_else(PoisonError::into_inner) = Pages::RESET;
            vp.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Sets an event flag, and raises the SINT if the flag was clear. While the page is disabled,
    /// the flag is pending.
    pub(super) fn signal(&self, vp: u32, sint: u8, flag: u16, lines: &impl VpInterrupts) -> Signal {
        let Some(target) = self.vp(vp).filter(|_| sint < SINT_COUNT && flag < FLAGS_PER_SINT)
        else {
            return Signal::Disabled;
        };
        let pages = target.pages.read().unwrap_or_else(PoisonError::into_inner);
        let (index, bit) = word_of(sint, flag);
        let Some(page) = pages.flags else {
            let mut remembered = target.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            *remembered.entry(index).or_default() |= bit;
            return Signal::Disabled;
        };
        match self.set_flags(page, index, bit) {
            None => Signal::Disabled,
            Some(before) if before & bit != 0 => Signal::AlreadySet,
            Some(_) => {
                lines.raise(vp, sint);
                Signal::Raised
            }
        }
    }

    /// Drops an event flag that is pending for its page. A flag in the page stays.
    pub(super) fn forget_signal(&self, vp: u32, sint: u8, flag: u16) {
        let Some(target) = self.vp(vp).filter(|_| sint < SINT_COUNT && flag < FLAGS_PER_SINT)
        else {
            return;
        };
        let (index, bit) = word_of(sint, flag);
        let mut remembered = target.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut word) = remembered.entry(index) {
            *word.get_mut() &= !bit;
            if *word.get() == 0 {
                word.remove();
            }
        }
    }

    /// Sets `bits` in a 64-bit word of an event flags page. Returns the word's previous value.
    fn set_flags(&self, page: GuestAddress, index: usize, bits: u64) -> Option<u64> {
        let page = self.memory.get_slice(page, PAGE).ok()?;
        Some(page.get_atomic_ref::<AtomicU64>(index * 8).ok()?.fetch_or(bits, Ordering::SeqCst))
    }

    /// Returns the number of messages queued for `vp`.
    pub(super) fn waiting(&self, vp: u32) -> usize {
        self.vp(vp).map_or(0, |vp| vp.mailbox.len())
    }

    /// Returns the number of messages queued for all VPs.
    pub(super) fn waiting_in_all(&self) -> usize {
        self.vps.iter().map(|vp| vp.mailbox.len()).sum()
    }

    /// Returns the messages queued for all VPs.
    pub(super) fn queued(&self) -> Vec<QueuedMessage> {
        let of_vp = |(vp, target): (u32, &Vp)| {
            target.mailbox.messages().into_iter().map(move |(sint, message)| QueuedMessage {
                vp,
                sint,
                message,
            })
        };
        (0..).zip(&self.vps).flat_map(of_vp).collect()
    }

    /// Returns the MSRs of `vp` as last reported.
    pub(super) fn state(&self, vp: u32) -> Option<SynicState> {
        Some(self.vp(vp)?.pages.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    fn vp(&self, vp: u32) -> Option<&Vp> {
        self.vps.get(vp as usize)
    }

    fn slot(&self, page: GuestAddress, sint: u8) -> Option<SlotMemory<'_>> {
        let address = page.0.checked_add(u64::from(sint) * SLOT_SIZE as u64)?;
        // The page was RAM when the guest enabled it, and RAM is never removed.
        SlotMemory::new(self.memory.get_slice(GuestAddress(address), SLOT_SIZE).ok()?)
    }
}

#[cfg(test)]
mod tests;
