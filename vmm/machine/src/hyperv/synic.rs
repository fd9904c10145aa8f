//! KVM's in-kernel SynIC as the bus's [`Synic`]: KVM implements the MSRs, injects the SINTs
//! (routes, irqfds, resample eventfds) and handles doorbells. [`super::pages`] writes the pages.

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use tracing::debug;
use vmbus_host::{QueuedMessage, Signal, Synic};
use vmm_sys_util::eventfd::EventFd;

use super::eom::EomWatch;
use super::pages::{SynicState, VpInterrupts, Vps};
use super::{VMBUS_SINT, ioctl};
use crate::guest_log::SynicLog;
use crate::irq::Routes;
use crate::memory::GuestMemory;

/// Makes a VP's thread leave KVM_RUN and call [`KvmSynic::deliver`]. Any thread may call it,
/// including the VP's own.
pub(crate) trait KickVp: Send + Sync {
    /// Kicks the thread of `vp`.
    fn kick(&self, vp: u32);
}

/// The path of EOM writes to SynthVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EomPath {
    /// The resample eventfd that SINT2's irqfds of all VPs share. Needs the full irqchip in the
    /// kernel.
    Resample,
    /// An MSR exit on the thread of the VP that wrote EOM, which calls
    /// [`KvmSynic::end_of_message`]. A guest writes EOM only if the slot says that more messages
    /// are pending, so these exits are rare.
    MsrExit,
}

/// The SynICs of a machine.
pub struct KvmSynic {
    vps: Vps,
    lines: KvmLines,
}

struct KvmLines {
    vm: Arc<VmFd>,
    routes: Arc<Routes>,
    /// Eventfds that raise SINT2, by VP.
    vmbus: Box<[EventFd]>,
    /// EOM writes of all VPs for any SINT, and EOIs of SINT2. Not signalled with
    /// [`EomPath::MsrExit`].
    eom: EomWatch,
    kicker: Arc<dyn KickVp>,
    log: SynicLog,
}

impl KvmSynic {
    /// Installs the routes and eventfds of SINT2 for `count` VPs. SYNIC2 must already be enabled
    /// for each VP.
    ///
    /// # Errors
    /// The kernel's error, or no file descriptor is available (one per VP is needed).
    pub(crate) fn new(
        vm: Arc<VmFd>,
        memory: GuestMemory,
        routes: Arc<Routes>,
        kicker: Arc<dyn KickVp>,
        eom_path: EomPath,
        count: u32,
    ) -> io::Result<KvmSynic> {
        let sints: Vec<(u32, u8)> = (0..count).map(|vp| (vp, VMBUS_SINT)).collect();
        routes.add_sints(&sints)?;
        let eom = EomWatch::new()?;
        let mut vmbus = Vec::with_capacity(sints.len());
        for (vp, sint) in sints {
            let interrupt = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
            let gsi = routes
                .sint_gsi(vp, sint)
                .ok_or_else(|| io::Error::other("SINT without a route"))?;
            match eom_path {
                EomPath::Resample => {
                    vm.register_irqfd_with_resample(&interrupt, eom.event(), gsi)?;
                }
                EomPath::MsrExit => vm.register_irqfd(&interrupt, gsi)?,
            }
            vmbus.push(interrupt);
        }
        let log = SynicLog::default();
        let lines = KvmLines { vm, routes, vmbus: vmbus.into(), eom, kicker, log };
        Ok(KvmSynic { vps: Vps::new(memory, count), lines })
    }

    /// Returns the watch that the event loop serves.
    pub(super) fn eom_watch(&self) -> &EomWatch {
        &self.lines.eom
    }

    /// Handles an EOM seen by the event loop: kicks the VPs that may wait for it.
    pub(super) fn eom_reported(&self) {
        if self.lines.take_eoms() {
            self.vps.kick_waiting(None, &self.lines);
        }
    }

    /// Handles an EOM write of the guest on `vp`, whose thread calls this ([`EomPath::MsrExit`]).
    /// The slot that the guest emptied may belong to another VP.
    pub fn end_of_message(&self, vp: u32) {
        self.deliver(vp);
        self.vps.kick_waiting(Some(vp), &self.lines);
    }

    /// Applies the MSRs of `vp` after the guest wrote one (KVM_EXIT_HYPERV_SYNIC), and delivers the
    /// messages and event flags that are pending for that. Must run on the VP's thread.
    pub fn update(&self, vp: u32, state: SynicState) {
        self.vps.update(vp, state, &self.lines);
        self.deliver(vp);
    }

    /// Delivers the messages queued for `vp`. Must run on that VP's thread, outside KVM_RUN.
    pub fn deliver(&self, vp: u32) {
        self.vps.deliver(vp, &self.lines);
    }

    /// Returns the number of messages queued for `vp`, for a slot or for its page.
    pub fn waiting_messages(&self, vp: u32) -> usize {
        self.vps.waiting(vp)
    }

    /// Restores the power-on state: pages disabled, queues empty. All VPs must be quiesced.
    pub fn reset(&self) {
        self.vps.reset();
        // No message is queued, so pending EOMs have no effect.
        let _ = self.lines.take_eoms();
    }

    /// Returns the MSRs of `vp` as last reported.
    pub fn state(&self, vp: u32) -> Option<SynicState> {
        self.vps.state(vp)
    }
}

impl VpInterrupts for KvmLines {
    fn raise(&self, vp: u32, sint: u8) {
        if let Some(interrupt) = self.vmbus.get(vp as usize).filter(|_| sint == VMBUS_SINT) {
            // The write fails only with 2^64 - 2 unread interrupts.
            let _ = interrupt.write(1);
            return;
        }
        // Other SINTs are rare (firmware, or a faulty guest): each interrupt costs an ioctl, but no
        // descriptor is kept. The resample eventfd reports their EOMs too.
        let gsi = match self.routes.sint_gsi(vp, sint) {
            Some(gsi) => Ok(gsi),
            None => self.routes.add_sints(&[(vp, sint)]).and_then(|()| {
                self.routes.sint_gsi(vp, sint).ok_or_else(|| io::Error::other("no route"))
            }),
        };
        if let Err(error) = gsi.and_then(|gsi| Ok(self.vm.set_irq_line(gsi, true)?)) {
            debug!("VP {vp}: SINT{sint} not raised: {error}");
        }
    }

    fn take_eoms(&self) -> bool {
        self.eom.take()
    }

    fn watch_eoms(&self) {
        if let Err(error) = self.eom.arm() {
            self.log.eom(&error);
        }
    }

    fn kick(&self, vp: u32) {
        self.kicker.kick(vp);
    }
}

impl Synic for KvmSynic {
    fn vp_count(&self) -> u32 {
        self.vps.count()
    }

    fn post_message(&self, vp: u32, sint: u8, message: &[u8]) {
        if self.vps.queue(vp, sint, message) {
            self.lines.kick(vp);
        }
    }

    fn discard_messages(&self) {
        self.vps.discard();
    }

    fn waiting_messages(&self) -> usize {
        self.vps.waiting_in_all()
    }

    fn queued_messages(&self) -> Vec<QueuedMessage> {
        self.vps.queued()
    }

    fn signal_event(&self, vp: u32, sint: u8, flag: u16) -> Signal {
        self.vps.signal(vp, sint, flag, &self.lines)
    }

    fn forget_signal(&self, vp: u32, sint: u8, flag: u16) {
        self.vps.forget_signal(vp, sint, flag);
    }

    fn bind_doorbell(&self, connection_id: u32, event: &EventFd) -> io::Result<()> {
        ioctl::bind_doorbell(&self.lines.vm, connection_id, event)
    }

    fn unbind_doorbell(&self, connection_id: u32, event: &EventFd) {
        if let Err(error) = ioctl::unbind_doorbell(&self.lines.vm, connection_id, event) {
            self.lines.log.doorbell(connection_id, &error);
        }
    }
}
