//! KVM's in-kernel SynIC as the bus's [`Synic`]: KVM keeps the MSRs and injects the SINTs (routes, irqfds, resample
//! eventfds) and takes doorbells; the pages are written here, by [`super::pages`].

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use tracing::debug;
use vmbus_host::{QueuedMessage, Signal, Synic};
use vmm_sys_util::eventfd::EventFd;

use super::eom::EomWatch;
use super::pages::{Lines, SynicState, Vps};
use super::{VMBUS_SINT, ioctl};
use crate::guest_log::SynicLog;
use crate::machine::irq::Routes;
use crate::memory::GuestMemory;

/// Makes a VP's thread leave KVM_RUN and call [`KvmSynic::deliver`]. May be called from any thread, also the VP's own.
pub trait KickVp: Send + Sync {
    /// See the trait.
    fn kick(&self, vp: u32);
}

/// How SynthVM hears of EOM writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EomPath {
    /// By the resample eventfd of SINT2's irqfd. Needs the full irqchip in the kernel.
    Resample,
    /// By an MSR exit on the VP's own thread, which calls [`KvmSynic::deliver`]. A guest writes EOM only when it was
    /// told that more messages wait, so these exits are rare.
    MsrExit,
}

/// The SynICs of a machine.
pub struct KvmSynic {
    vps: Vps,
    lines: KvmLines,
    kicker: Arc<dyn KickVp>,
}

struct KvmLines {
    vm: Arc<VmFd>,
    routes: Arc<Routes>,
    vmbus: Box<[VmbusLine]>,
    eom: Arc<EomWatch>,
    log: SynicLog,
}

/// SINT2 of one VP.
struct VmbusLine {
    /// Raises it.
    interrupt: EventFd,
    /// Tells of EOM writes, whatever the SINT, and of SINT2's EOI. Silent with [`EomPath::MsrExit`].
    resample: Arc<EventFd>,
}

impl KvmSynic {
    /// Installs the routes and eventfds of SINT2 for `count` VPs. SYNIC2 must be on for each of them already.
    ///
    /// # Errors
    /// The kernel's own, or no file descriptor left (two per VP are needed).
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
            let resample = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
            let gsi = routes.sint_gsi(vp, sint).ok_or_else(|| io::Error::other("SINT without a route"))?;
            match eom_path {
                EomPath::Resample => vm.register_irqfd_with_resample(&interrupt, &resample, gsi)?,
                EomPath::MsrExit => vm.register_irqfd(&interrupt, gsi)?,
            }
            eom.add(vp, Arc::clone(&resample))?;
            vmbus.push(VmbusLine { interrupt, resample });
        }
        let lines =
            KvmLines { vm, routes, vmbus: vmbus.into(), eom: Arc::new(eom), log: SynicLog::default() };
        Ok(KvmSynic { vps: Vps::new(memory, count), lines, kicker })
    }

    /// What the event loop must watch for this SynIC.
    pub fn eom_watch(&self) -> Arc<EomWatch> {
        Arc::clone(&self.lines.eom)
    }

    /// Who is told when a VP has something to deliver.
    pub fn kicker(&self) -> Arc<dyn KickVp> {
        Arc::clone(&self.kicker)
    }

    /// Takes over the MSRs of `vp` after the guest wrote one (KVM_EXIT_HYPERV_SYNIC), and delivers what waited for
    /// that. On the VP's thread.
    pub fn update(&self, vp: u32, state: SynicState) {
        self.vps.update(vp, state);
        self.deliver(vp);
    }

    /// Delivers what is queued for `vp`. Only on that VP's thread, outside KVM_RUN.
    pub fn deliver(&self, vp: u32) {
        self.vps.deliver(vp, &self.lines);
    }

    /// Messages that wait for `vp`: for a slot, or for its SynIC.
    pub fn waiting_messages(&self, vp: u32) -> usize {
        self.vps.waiting(vp)
    }

    /// Back to power-on: pages off, queues empty. All VPs stand still.
    pub fn reset(&self) {
        self.vps.reset();
        for vp in 0..self.vps.count() {
            self.lines.forget_eoms(vp);
        }
    }

    /// The MSRs of `vp` as last reported.
    pub fn state(&self, vp: u32) -> Option<SynicState> {
        self.vps.state(vp)
    }
}

impl Lines for KvmLines {
    fn raise(&self, vp: u32, sint: u8) {
        if let Some(line) = self.vmbus.get(vp as usize).filter(|_| sint == VMBUS_SINT) {
            // Fails only when 2^64 - 2 interrupts are unread.
            let _ = line.interrupt.write(1);
            return;
        }
        // Other SINTs are rare (a firmware's, a confused guest's): one ioctl each, no descriptor kept. Their EOMs are
        // reported by SINT2's resample eventfd all the same.
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

    fn forget_eoms(&self, vp: u32) {
        if let Some(line) = self.vmbus.get(vp as usize) {
            // Nothing to read is the usual case.
            let _ = line.resample.read();
        }
    }

    fn kick_at_eom(&self, vp: u32) {
        if let Err(error) = self.eom.arm(vp) {
            self.log.eom(vp, &error);
        }
    }
}

impl Synic for KvmSynic {
    fn vp_count(&self) -> u32 {
        self.vps.count()
    }

    fn post_message(&self, vp: u32, sint: u8, message: &[u8]) {
        if self.vps.queue(vp, sint, message) {
            self.kicker.kick(vp);
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

    fn bind_doorbell(&self, connection_id: u32, event: &EventFd) -> io::Result<()> {
        ioctl::bind_doorbell(&self.lines.vm, connection_id, event)
    }

    fn unbind_doorbell(&self, connection_id: u32, event: &EventFd) {
        if let Err(error) = ioctl::unbind_doorbell(&self.lines.vm, connection_id, event) {
            self.lines.log.doorbell(connection_id, &error);
        }
    }
}
