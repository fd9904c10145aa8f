//! The VM: memory, interrupt controller and bus.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use vmbus_gpadl::GuestRam;
use vmbus_host::core::ChannelKey;
use vmbus_host::{BusReport, Channel, Device, HvStatus, Offer, OfferError, OpenError, VmBus};
use vmbus_protocol::offer::VMBUS_MESSAGE_TYPE;

use crate::config::{Config, Mode};
use crate::device::{ManualDevice, OpenedChannels, Served};
use crate::memory::GuestPages;
use crate::synic::LoopbackSynic;
use crate::workers::{Handler, Workers};

/// Host and guest in one process. Clones share them, and the bus and its devices end with the last
/// clone.
#[derive(Clone)]
pub struct LoopbackVm {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) pages: GuestPages,
    pub(crate) synic: Arc<LoopbackSynic>,
    bus: RwLock<VmBus>,
    pub(crate) workers: Workers,
    pub(crate) started: Instant,
}

impl LoopbackVm {
    /// Returns a VM with [`Config::new`].
    ///
    /// # Panics
    /// The host has no memory for it.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self::with_config(Config::new(mode)).expect("memory for a small VM")
    }

    /// Returns a VM with a configuration of the caller.
    ///
    /// # Errors
    /// The host has no memory, or a region does not consist of whole pages, or overlaps another.
    pub fn with_config(config: Config) -> io::Result<Self> {
        let pages = GuestPages::new(&config.regions)?;
        let synic = Arc::new(LoopbackSynic::new(config.vp_count));
        let bus = RwLock::new(new_bus(&pages, &synic));
        let workers = Workers::new(config.mode);
        Ok(Self {
            inner: Arc::new(Inner { config, pages, synic, bus, workers, started: Instant::now() }),
        })
    }

    /// Returns the present bus. [`LoopbackVm::replace_bus`] replaces it.
    #[must_use]
    pub fn bus(&self) -> VmBus {
        self.inner.bus.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the interrupt controller.
    #[must_use]
    pub fn synic(&self) -> &LoopbackSynic {
        &self.inner.synic
    }

    /// Returns the allocator of guest pages.
    #[must_use]
    pub fn pages(&self) -> &GuestPages {
        &self.inner.pages
    }

    /// Returns guest memory in the devices' view.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        self.inner.pages.ram()
    }

    /// Returns the workers that run handlers, for devices of the caller.
    #[must_use]
    pub fn workers(&self) -> &Workers {
        &self.inner.workers
    }

    /// Adds a device.
    ///
    /// # Errors
    /// The errors of the bus: [`OfferError`].
    pub fn offer(&self, device: impl Device + 'static) -> Result<ChannelKey, OfferError> {
        self.bus().offer(Box::new(device))
    }

    /// Adds a device that consists of one function: see [`Served`].
    ///
    /// # Errors
    /// The errors of the bus: [`OfferError`].
    pub fn offer_served<F>(&self, offer: Offer, open: F) -> Result<ChannelKey, OfferError>
    where
        F: FnMut(&Channel) -> Result<Handler, OpenError> + Send + 'static,
    {
        self.offer(Served::new(offer, self.inner.workers.clone(), open))
    }

    /// Adds a device whose channels the caller drives itself: see [`ManualDevice`].
    ///
    /// # Errors
    /// The errors of the bus: [`OfferError`].
    pub fn offer_manual(&self, offer: Offer) -> Result<(ChannelKey, OpenedChannels), OfferError> {
        let (device, opened) = ManualDevice::new(offer);
        Ok((self.offer(device)?, opened))
    }

    /// Executes the guest's HvPostMessage with message type 1.
    #[must_use]
    pub fn post_message(&self, connection_id: u32, payload: &[u8]) -> HvStatus {
        self.bus().post_message(connection_id, VMBUS_MESSAGE_TYPE, payload)
    }

    /// Executes the guest's HvSignalEvent: signals the doorbell if there is one, otherwise calls
    /// the bus, like KVM.
    #[must_use]
    pub fn signal_event(&self, connection_id: u32, flag: u16) -> HvStatus {
        if flag == 0 && self.inner.synic.signal(connection_id) == HvStatus::Success {
            return HvStatus::Success;
        }
        self.bus().signal_event(connection_id, flag)
    }

    /// Runs each device with a signalled doorbell once. Returns true when there was one. In a
    /// threaded VM the devices run by themselves.
    pub fn step(&self) -> bool {
        self.inner.workers.step()
    }

    /// Runs devices until none has work to do.
    pub fn run_until_idle(&self) {
        while self.step() {}
    }

    /// Resets the machine. Returns when no device accesses guest memory any more. Channels that the
    /// caller holds must be dropped before the call, or by another thread.
    pub fn reset(&self) {
        thread::scope(|scope| {
            let reset = scope.spawn(|| self.bus().reset());
            while !reset.is_finished() {
                if !self.step() {
                    thread::yield_now();
                }
            }
        });
    }

    /// Quiesces the host: devices and bus do not access guest memory or signal the guest until
    /// [`LoopbackVm::resume`].
    pub fn pause(&self) {
        self.inner.workers.pause();
        self.bus().pause();
    }

    /// Ends [`LoopbackVm::pause`], or a restore.
    pub fn resume(&self) {
        self.inner.workers.resume();
        self.bus().resume();
    }

    /// Replaces the bus by a new one without devices, like another process that restores this
    /// machine. Guest memory and event flags belong to the guest and stay. Devices, workers,
    /// doorbells and waiting messages belong to the host and are dropped.
    ///
    /// The usual order is: [`LoopbackVm::pause`], `bus().save()`, this function,
    /// [`LoopbackVm::offer`] for all devices, `bus().restore()`, [`LoopbackVm::resume`].
    pub fn replace_bus(&self) {
        let fresh = new_bus(&self.inner.pages, &self.inner.synic);
        let mut bus = self.inner.bus.write().unwrap_or_else(PoisonError::into_inner);
        drop(std::mem::replace(&mut *bus, fresh));
        drop(bus);
        self.inner.workers.clear();
        self.inner.synic.forget_host();
    }

    /// Returns the state of the bus, once it has handled all requests of guest and host before the
    /// call: see [`VmBus::wait_until_idle`].
    #[must_use]
    pub fn inspect(&self) -> BusReport {
        let bus = self.bus();
        bus.wait_until_idle();
        bus.inspect()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

fn new_bus(pages: &GuestPages, synic: &Arc<LoopbackSynic>) -> VmBus {
    VmBus::new(pages.ram().clone(), Arc::clone(synic) as Arc<dyn vmbus_host::Synic>)
}

impl std::fmt::Debug for LoopbackVm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopbackVm").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.workers.shut_down();
    }
}
