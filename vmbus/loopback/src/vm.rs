//! The VM: memory, interrupt controller, bus.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use vmbus_gpadl::GuestRam;
use vmbus_host::core::ChannelKey;
use vmbus_host::{BusReport, Channel, Device, HvStatus, Offer, OfferError, OpenError, VmBus};
use vmbus_protocol::offer::VMBUS_MESSAGE_TYPE;

use crate::device::{ManualDevice, OpenedChannels, Served};
use crate::memory::{GuestPages, Layout};
use crate::platform::LoopbackPlatform;
use crate::synic::LoopbackSynic;
use crate::workers::{Handler, Workers};

/// The threads that run the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only the caller's: devices run in [`LoopbackVm::step`], which the client calls when it
    /// waits. The same calls give the same events in the same order, and a wait that nothing
    /// can end returns at once instead of hanging.
    Stepped,
    /// A thread for each channel; the client sleeps until something comes.
    Threaded,
}

/// How a VM is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The threads that run the devices.
    pub mode: Mode,
    /// RAM: (guest address, bytes) of each region.
    pub regions: Vec<(u64, usize)>,
    /// Virtual processors.
    pub vp_count: u32,
    /// How the pages of ring buffers lie in guest memory.
    pub ring_layout: Layout,
    /// How long a threaded client waits for anything at all before its call fails. Only a guard
    /// against tests that hang.
    pub timeout: Duration,
}

impl Config {
    /// 256 MiB of RAM in one region (touched pages only cost memory), 2 VPs, contiguous rings.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            regions: vec![(0, 256 << 20)],
            vp_count: 2,
            ring_layout: Layout::Contiguous,
            timeout: Duration::from_secs(60),
        }
    }

    /// The same, with this RAM: (guest address, bytes) of each region, in whole pages.
    #[must_use]
    pub fn regions(mut self, regions: impl IntoIterator<Item = (u64, usize)>) -> Self {
        self.regions = regions.into_iter().collect();
        self
    }

    /// The same, with this number of virtual processors.
    #[must_use]
    pub fn vp_count(mut self, vp_count: u32) -> Self {
        self.vp_count = vp_count;
        self
    }

    /// The same, with ring buffers whose pages lie so.
    #[must_use]
    pub fn ring_layout(mut self, ring_layout: Layout) -> Self {
        self.ring_layout = ring_layout;
        self
    }

    /// The same, with this timeout of a threaded client.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Host and guest in one process. Clones share it; the bus and its devices end with the last one.
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
    /// A VM with [`Config::new`].
    ///
    /// # Panics
    /// When the host has no memory for it.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self::with_config(Config::new(mode)).expect("memory for a small VM")
    }

    /// A VM of your own making.
    ///
    /// # Errors
    /// The host has no memory, or a region is not made of whole pages, or overlaps another.
    pub fn with_config(config: Config) -> io::Result<Self> {
        let pages = GuestPages::new(&config.regions)?;
        let synic = Arc::new(LoopbackSynic::new(config.vp_count));
        let bus = RwLock::new(new_bus(&pages, &synic));
        let workers = Workers::new(config.mode);
        Ok(Self {
            inner: Arc::new(Inner { config, pages, synic, bus, workers, started: Instant::now() }),
        })
    }

    /// The bus as it is now: [`LoopbackVm::replace_bus`] puts another one in its place.
    #[must_use]
    pub fn bus(&self) -> VmBus {
        self.inner.bus.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The interrupt controller.
    #[must_use]
    pub fn synic(&self) -> &LoopbackSynic {
        &self.inner.synic
    }

    /// Guest memory by pages.
    #[must_use]
    pub fn pages(&self) -> &GuestPages {
        &self.inner.pages
    }

    /// Guest memory as devices see it.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        self.inner.pages.ram()
    }

    /// Returns the workers that run handlers, for devices of your own.
    #[must_use]
    pub fn workers(&self) -> &Workers {
        &self.inner.workers
    }

    /// The guest's side, for a [`vmbus_client::Client`].
    #[must_use]
    pub fn platform(&self) -> LoopbackPlatform {
        LoopbackPlatform::new(self.clone())
    }

    /// Adds a device.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer(&self, device: impl Device + 'static) -> Result<ChannelKey, OfferError> {
        self.bus().offer(Box::new(device))
    }

    /// Adds a device that is one function: see [`Served`].
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer_served<F>(&self, offer: Offer, open: F) -> Result<ChannelKey, OfferError>
    where
        F: FnMut(&Channel) -> Result<Handler, OpenError> + Send + 'static,
    {
        self.offer(Served::new(offer, self.inner.workers.clone(), open))
    }

    /// Adds a device whose channels the caller drives by hand: see [`ManualDevice`].
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer_manual(&self, offer: Offer) -> Result<(ChannelKey, OpenedChannels), OfferError> {
        let (device, opened) = ManualDevice::new(offer);
        Ok((self.offer(device)?, opened))
    }

    /// HvPostMessage by the guest with message type 1.
    #[must_use]
    pub fn post_message(&self, connection_id: u32, payload: &[u8]) -> HvStatus {
        self.bus().post_message(connection_id, VMBUS_MESSAGE_TYPE, payload)
    }

    /// HvSignalEvent by the guest: the doorbell when there is one, else the bus decides, as with
    /// KVM.
    #[must_use]
    pub fn signal_event(&self, connection_id: u32, flag: u16) -> HvStatus {
        if flag == 0 && self.inner.synic.signal(connection_id) == HvStatus::Success {
            return HvStatus::Success;
        }
        self.bus().signal_event(connection_id, flag)
    }

    /// Runs each device whose doorbell rang, once. True when there was any. Threaded VMs run by
    /// themselves.
    pub fn step(&self) -> bool {
        self.inner.workers.step()
    }

    /// Runs devices until none has anything to do.
    pub fn run_until_idle(&self) {
        while self.step() {}
    }

    /// Starts the machine anew: returns when no device touches guest memory any more. Channels that
    /// the caller holds must be dropped by another thread, or before.
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

    /// Stands still: devices and bus leave guest memory and the guest alone until
    /// [`LoopbackVm::resume`].
    pub fn pause(&self) {
        self.inner.workers.pause();
        self.bus().pause();
    }

    /// Undoes [`LoopbackVm::pause`], and ends a restore.
    pub fn resume(&self) {
        self.inner.workers.resume();
        self.bus().resume();
    }

    /// Puts a fresh bus without devices in the place of the old one: what another process would
    /// begin with that restores this machine. Guest memory and event flags are the guest's and
    /// stay; devices, workers, doorbells and messages that wait are the host's and go.
    ///
    /// The usual course: [`LoopbackVm::pause`], `bus().save()`, this, [`LoopbackVm::offer`] all
    /// devices, `bus().restore()`, [`LoopbackVm::resume`].
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
