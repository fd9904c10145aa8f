//! KVM's in-kernel SynIC as the bus's [`Synic`].
//!
//! KVM keeps the MSRs and injects the SINTs. The pages are guest RAM that this module writes: event flags from any
//! thread (atomic OR), message slots only on the thread of the VP that owns them, outside KVM_RUN, because KVM's timer
//! messages are written inside it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kvm_ioctls::VmFd;
use tracing::{debug, warn};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory, VolatileSlice};
use vmbus_host::{Signal, Synic};
use vmm_sys_util::eventfd::EventFd;

use super::eom::EomWatch;
use super::slot::{self, Post};
use super::{VMBUS_SINT, ioctl};
use crate::machine::irq::Routes;
use crate::memory::GuestMemory;

const SINTS: u8 = 16;
const FLAGS_PER_SINT: u16 = 2048;
const PAGE: usize = 4096;
const ENABLE: u64 = 1;
const ADDRESS: u64 = !0xFFF;

/// Makes a VP's thread leave KVM_RUN and call [`KvmSynic::deliver`]. May be called from any thread, also the VP's own.
pub trait KickVp: Send + Sync {
    /// See the trait.
    fn kick(&self, vp: u32);
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

/// The SynICs of a machine.
pub struct KvmSynic {
    vm: Arc<VmFd>,
    memory: GuestMemory,
    routes: Arc<Routes>,
    kicker: Arc<dyn KickVp>,
    vps: Box<[Vp]>,
    eom: Arc<EomWatch>,
}

struct Vp {
    /// Held for reading while a page is written, for writing while it changes: a page that the guest has switched off
    /// is not written any more once its MSR write is over.
    pages: RwLock<Pages>,
    queues: Mutex<BTreeMap<u8, VecDeque<Message>>>,
    /// Raises SINT2.
    interrupt: EventFd,
    /// Tells of EOM writes, whatever the SINT, and of SINT2's EOI.
    resample: Arc<EventFd>,
}

/// Where a VP's pages are; `None` when off, or not in RAM.
struct Pages {
    state: SynicState,
    messages: Option<GuestAddress>,
    flags: Option<GuestAddress>,
}

struct Message {
    len: u8,
    payload: [u8; slot::MAX_PAYLOAD],
}

impl Message {
    fn payload(&self) -> &[u8] {
        &self.payload[..usize::from(self.len)]
    }
}

impl KvmSynic {
    /// Installs the routes and eventfds of SINT2 for `vps` VPs. SYNIC2 must be on for each of them already.
    ///
    /// # Errors
    /// The kernel's own, or no file descriptor left (two per VP are needed).
    pub(crate) fn new(
        vm: Arc<VmFd>,
        memory: GuestMemory,
        routes: Arc<Routes>,
        kicker: Arc<dyn KickVp>,
        vps: u32,
    ) -> io::Result<KvmSynic> {
        let sints: Vec<(u32, u8)> = (0..vps).map(|vp| (vp, VMBUS_SINT)).collect();
        routes.add_sints(&sints)?;
        let eom = EomWatch::new()?;
        let mut made = Vec::with_capacity(sints.len());
        for (vp, sint) in sints {
            let interrupt = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
            let resample = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
            let gsi = routes.sint_gsi(vp, sint).ok_or_else(|| io::Error::other("SINT route vanished"))?;
            vm.register_irqfd_with_resample(&interrupt, &resample, gsi)?;
            eom.add(vp, Arc::clone(&resample))?;
            made.push(Vp {
                pages: RwLock::new(Pages { state: SynicState::RESET, messages: None, flags: None }),
                queues: Mutex::default(),
                interrupt,
                resample,
            });
        }
        Ok(KvmSynic { vm, memory, routes, kicker, vps: made.into(), eom: Arc::new(eom) })
    }

    /// What the event loop must watch for this SynIC.
    pub fn eom_watch(&self) -> Arc<EomWatch> {
        Arc::clone(&self.eom)
    }

    /// Who is told when a VP has something to deliver.
    pub fn kicker(&self) -> Arc<dyn KickVp> {
        Arc::clone(&self.kicker)
    }

    /// Takes over the MSRs of `vp` after the guest wrote one (KVM_EXIT_HYPERV_SYNIC). On the VP's thread.
    pub fn update(&self, vp: u32, state: SynicState) {
        let Some(target) = self.vp(vp) else { return };
        let mut pages = target.pages.write().unwrap_or_else(PoisonError::into_inner);
        let messages = self.page(vp, "SIMP", pages.messages, state.control, state.message_page);
        let flags = self.page(vp, "SIEFP", pages.flags, state.control, state.event_page);
        *pages = Pages { state, messages, flags };
    }

    /// Where a page is now. A page that has just been switched on is zeroed: SYNIC2 leaves that to us.
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
                // Once per MSR write, which exits anyway: no faster than the guest can exit, so not worth a limiter.
                debug!("VP {vp}: {register} page {:#x} is not RAM; it stays off", address.0);
                None
            }
        }
    }

    /// Delivers what is queued for `vp`. Only on that VP's thread, outside KVM_RUN.
    pub fn deliver(&self, vp: u32) {
        let Some(target) = self.vp(vp) else { return };
        let mut queues = target.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.is_empty() {
            return;
        }
        let pages = target.pages.read().unwrap_or_else(PoisonError::into_inner);
        // Off: the messages wait for the exit that switches it on.
        let Some(page) = pages.messages else { return };
        // An EOM from here on counts; whatever the earlier ones freed is seen below.
        let _ = target.resample.read();
        let mut busy = false;
        queues.retain(|sint, queue| {
            while let Some(message) = queue.front() {
                let slot = match self.slot(page, *sint) {
                    Some(slot) => slot,
                    None => return false,
                };
                match slot::post(&slot, message.payload(), queue.len() > 1) {
                    Ok(Post::Written) => {
                        queue.pop_front();
                        self.raise(target, vp, *sint);
                    }
                    Ok(Post::Busy) => {
                        busy = true;
                        return true;
                    }
                    Err(error) => {
                        warn!("VP {vp}: message slot {sint}: {error}");
                        return false;
                    }
                }
            }
            false
        });
        if busy && let Err(error) = self.eom.arm(vp) {
            warn!("VP {vp}: cannot watch for EOM: {error}");
        }
    }

    /// Whether `vp` has messages that wait (for a slot, or for its SynIC).
    pub fn has_waiting(&self, vp: u32) -> bool {
        self.vp(vp).is_some_and(|vp| !vp.queues.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    /// Back to power-on: pages off, queues empty. All VPs are stopped.
    pub fn reset(&self) {
        self.discard_messages();
        for vp in &self.vps {
            *vp.pages.write().unwrap_or_else(PoisonError::into_inner) =
                Pages { state: SynicState::RESET, messages: None, flags: None };
            let _ = vp.resample.read();
        }
    }

    /// The MSRs of `vp` as last reported.
    pub fn state(&self, vp: u32) -> Option<SynicState> {
        Some(self.vp(vp)?.pages.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    fn vp(&self, vp: u32) -> Option<&Vp> {
        self.vps.get(vp as usize)
    }

    fn slot(&self, page: GuestAddress, sint: u8) -> Option<VolatileSlice<'_>> {
        let address = page.0.checked_add(u64::from(sint) * slot::SLOT_SIZE as u64)?;
        self.memory.get_slice(GuestAddress(address), slot::SLOT_SIZE).ok()
    }

    /// Injects a SINT. If the guest has masked it the interrupt is lost, the page content is not.
    fn raise(&self, target: &Vp, vp: u32, sint: u8) {
        if sint == VMBUS_SINT {
            // Fails only when 2^64 - 2 interrupts are unread.
            let _ = target.interrupt.write(1);
            return;
        }
        // Other SINTs are rare (a firmware's, a confused guest's): one ioctl each, no descriptor kept.
        let gsi = match self.routes.sint_gsi(vp, sint) {
            Some(gsi) => Ok(gsi),
            None => self
                .routes
                .add_sints(&[(vp, sint)])
                .and_then(|()| self.routes.sint_gsi(vp, sint).ok_or_else(|| io::Error::other("no route"))),
        };
        if let Err(error) = gsi.and_then(|gsi| Ok(self.vm.set_irq_line(gsi, true)?)) {
            debug!("VP {vp}: SINT{sint} not raised: {error}");
        }
    }
}

impl Synic for KvmSynic {
    fn vp_count(&self) -> u32 {
        self.vps.len() as u32
    }

    fn post_message(&self, vp: u32, sint: u8, message: &[u8]) {
        let Some(target) = self.vp(vp).filter(|_| sint < SINTS) else { return };
        let len = message.len().min(slot::MAX_PAYLOAD);
        let mut payload = [0; slot::MAX_PAYLOAD];
        payload[..len].copy_from_slice(&message[..len]);
        let mut queues = target.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(sint).or_default().push_back(Message { len: len as u8, payload });
        drop(queues);
        self.kicker.kick(vp);
    }

    fn discard_messages(&self) {
        for vp in &self.vps {
            vp.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn signal_event(&self, vp: u32, sint: u8, flag: u16) -> Signal {
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
        self.raise(target, vp, sint);
        Signal::Raised
    }

    fn bind_doorbell(&self, connection_id: u32, event: &EventFd) -> io::Result<()> {
        ioctl::bind_doorbell(&self.vm, connection_id, event)
    }

    fn unbind_doorbell(&self, connection_id: u32, event: &EventFd) {
        if let Err(error) = ioctl::unbind_doorbell(&self.vm, connection_id, event) {
            warn!("doorbell {connection_id:#x}: {error}");
        }
    }
}
