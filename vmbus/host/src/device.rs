//! The interface between the bus and its devices: their offers, and the channels that guests open.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;
use vmbus_gpadl::{Access, Gpadl, GuestRam, MapError};
use vmbus_protocol::offer::{NO_INTERRUPT_VP, VMBUS_SINT};
use vmbus_ring::{Incoming, Outgoing, RingWatch};
use vmm_sys_util::eventfd::EventFd;

use crate::core::{ChannelKey, ConnectRequest, Offer};
use crate::synic::{Signal, Synic};
use crate::trace::{BusTrace, ChannelTrace};
use crate::worker::WorkerCounters;

/// A device refused to open a channel; the guest gets a failure status and may try again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct OpenError(pub String);

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The host side of a device.
///
/// The bus calls a device from the thread with the event, one call at a time, without holding a
/// lock of its own. A device must not wait for the guest, and must call the bus only through the
/// [`Channel`].
pub trait Device: Send {
    /// Returns the offer. Called once.
    fn offer(&self) -> Offer;

    /// Returns true if [`Device::open`] may block on I/O, for example because it opens files. Each
    /// open then gets a thread of its own; otherwise it runs on the thread with the event, often a
    /// vCPU. Called once. Default: false.
    fn open_blocks(&self) -> bool {
        false
    }

    /// Takes a channel that a guest has opened: subchannel 0 is the primary. The device must give
    /// it to a worker and return. Dropping the channel ends the close.
    ///
    /// The channel may already be closing when this is called.
    ///
    /// # Errors
    /// [`OpenError`]: the guest's open fails.
    fn open(&mut self, channel: Channel) -> Result<(), OpenError>;

    /// Quiesces the device. On return none of its workers touches guest memory until
    /// [`Device::resume`]. The device may wait for I/O in flight, or leave it in flight if it does
    /// not use guest memory. A device without workers needs no implementation.
    fn pause(&mut self) {}

    /// Ends [`Device::pause`]. Every doorbell is signalled after it.
    fn resume(&mut self) {}

    /// Returns the state of the open channel `subchannel` (0: the primary) of a paused device, from
    /// which another process can continue: requests without an answer, packets that are not in the
    /// ring, mapped GPADLs. Ring positions are part of guest memory.
    ///
    /// `None`, the default: the device cannot be saved. The guest will lose the channel and get a
    /// new offer of the device.
    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        let _ = subchannel;
        None
    }

    /// Takes a channel that was open when the bus was saved, in place of [`Device::open`]. `state`
    /// is the result of [`Device::save`]. The guest does not notice: the device must answer its
    /// earlier requests, and map its GPADLs again. The bus is paused, and signals the doorbell when
    /// it resumes.
    ///
    /// # Errors
    /// [`OpenError`], the default: the guest loses the channel, and gets a new offer of the device.
    /// `state` comes from a file, so the device must validate it.
    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        let _ = (channel, state);
        Err(OpenError("this device does not go on after a restore".to_owned()))
    }
}

/// Takes the guest's requests for socket connections (hvsock-vpci A3).
pub trait ConnectHandler: Send + Sync {
    /// Takes a request. The handler later offers a channel for it ([`Offer::is_socket`]) with
    /// [`VmBus::offer`](crate::VmBus::offer), or calls
    /// [`VmBus::refuse_connect`](crate::VmBus::refuse_connect). Returns false to refuse it
    /// immediately.
    ///
    /// Called with a lock of the bus held: the handler must only queue the request.
    fn connect(&self, request: ConnectRequest) -> bool;
}

/// An open channel of a device: rings, doorbell, interrupt.
///
/// The worker waits on [`Channel::doorbell`]; when it wakes it checks [`Channel::is_closing`] and
/// the rings. When the channel is closing it finishes its requests in flight and drops the channel;
/// only then does the guest get its memory back. A worker that finds its ring corrupt drops the
/// channel immediately: the guest may close and open it again.
pub struct Channel {
    /// Guest to host.
    pub incoming: Incoming,
    /// Host to guest.
    pub outgoing: Outgoing,
    doorbell: EventFd,
    shared: Arc<ChannelShared>,
    ram: GuestRam,
    user_data: [u8; 120],
    trace: Option<ChannelTrace>,
    /// Dropped last: it reports the end to the bus, after the rings were unmapped.
    closed: ClosedOnDrop,
}

/// The bus's record of an open channel.
pub(crate) struct ChannelShared {
    pub(crate) key: ChannelKey,
    pub(crate) serial: u64,
    pub(crate) relid: u32,
    pub(crate) subchannel: u16,
    event_flag: u16,
    /// Read-locked while a signal is in progress: after a new target was written, no signal can
    /// reach the old one any more (vmbus-core 4.5).
    target: RwLock<Target>,
    closing: AtomicBool,
    /// The device has dropped the channel.
    pub(crate) ended: AtomicBool,
    subchannels: WantedSubchannels,
    pub(crate) signals_sent: AtomicU64,
    pub(crate) signals_suppressed: AtomicU64,
    pub(crate) worker: Arc<WorkerCounters>,
    pub(crate) incoming: RingWatch,
    pub(crate) outgoing: RingWatch,
    synic: Arc<dyn Synic>,
}

/// The number of subchannels that the device asks for. At most one event is queued for all its
/// requests.
#[derive(Default)]
struct WantedSubchannels {
    total: AtomicU16,
    queued: AtomicBool,
}

/// The target of a channel's events.
struct Target {
    /// [`NO_INTERRUPT_VP`] if the guest polls.
    vp: u32,
    /// No signals are sent for now.
    paused: bool,
}

/// The bus, as its channels use it.
pub(crate) trait ChannelBus: Send + Sync {
    /// Reports that the device has dropped the channel.
    fn closed(&self, key: ChannelKey, serial: u64);

    /// Reports that the device has asked for subchannels.
    fn subchannels(&self, key: ChannelKey, serial: u64);

    /// Returns the accepted GPADL `id` of channel `relid`. `None`: there is none, or `is_ended`,
    /// asked while no channel can begin, is true: another channel may have the relid then.
    fn gpadl(&self, relid: u32, id: u32, is_ended: &dyn Fn() -> bool) -> Option<Gpadl>;

    /// See [`VmBus::shared_pages`](crate::VmBus::shared_pages).
    fn shared_pages(&self) -> Vec<Range<u64>>;
}

pub(crate) struct ChannelParts {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    pub(crate) doorbell: EventFd,
    pub(crate) ram: GuestRam,
    pub(crate) user_data: [u8; 120],
    pub(crate) key: ChannelKey,
    pub(crate) serial: u64,
    pub(crate) relid: u32,
    pub(crate) subchannel: u16,
    pub(crate) event_flag: u16,
    pub(crate) target_vp: u32,
    pub(crate) synic: Arc<dyn Synic>,
    pub(crate) bus: Arc<dyn ChannelBus>,
    pub(crate) trace: Option<Arc<dyn BusTrace>>,
}

impl Channel {
    pub(crate) fn new(parts: ChannelParts) -> (Self, Arc<ChannelShared>) {
        let shared = Arc::new(ChannelShared {
            key: parts.key,
            serial: parts.serial,
            relid: parts.relid,
            subchannel: parts.subchannel,
            event_flag: parts.event_flag,
            target: RwLock::new(Target { vp: parts.target_vp, paused: false }),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            subchannels: WantedSubchannels::default(),
            signals_sent: AtomicU64::new(0),
            signals_suppressed: AtomicU64::new(0),
            worker: Arc::default(),
            incoming: parts.incoming.watch(),
            outgoing: parts.outgoing.watch(),
            synic: parts.synic,
        });
        let trace = parts.trace.map(|sink| ChannelTrace::new(sink, parts.relid, parts.subchannel));
        let channel = Self {
            incoming: parts.incoming,
            outgoing: parts.outgoing,
            doorbell: parts.doorbell,
            shared: Arc::clone(&shared),
            ram: parts.ram,
            user_data: parts.user_data,
            trace,
            closed: ClosedOnDrop { shared: Arc::clone(&shared), bus: parts.bus },
        };
        (channel, shared)
    }

    /// Returns the channel's trace, if the bus is traced. Workers pass it each packet.
    #[inline]
    #[must_use]
    pub fn trace(&self) -> Option<ChannelTrace> {
        self.trace.clone()
    }

    /// Returns a handle for maps of GPADLs while the rings are borrowed.
    #[must_use]
    pub fn handle(&self) -> ChannelHandle {
        ChannelHandle {
            shared: Arc::clone(&self.shared),
            bus: self.closed.bus.clone(),
            ram: self.ram.clone(),
        }
    }

    /// Returns the doorbell. It is readable when the guest signalled or the channel is closing.
    /// Non-blocking; read it to clear it.
    #[must_use]
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// Returns true if the guest closed or lost the channel: the worker must finish and drop it.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Sets the channel's event flag and interrupts the guest if that is needed.
    pub fn signal(&self) {
        self.shared.signal();
    }

    /// Counts a signal that the ring protocol made unnecessary, for reports.
    pub fn suppressed_signal(&self) {
        self.shared.signals_suppressed.fetch_add(1, Ordering::Relaxed);
    }

    /// Signals if `needed`, the result of `commit` of either ring; otherwise counts a suppressed
    /// signal.
    pub fn signal_if(&self, needed: bool) {
        if needed {
            self.signal();
        } else {
            self.suppressed_signal();
        }
    }

    /// Returns its number in this connection.
    #[must_use]
    pub fn relid(&self) -> u32 {
        self.shared.relid
    }

    /// Returns the subchannel's number; 0 for the primary.
    #[must_use]
    pub fn subchannel(&self) -> u16 {
        self.shared.subchannel
    }

    /// Returns the counters of the channel's worker, which reports of the bus show.
    #[must_use]
    pub fn worker_counters(&self) -> &Arc<WorkerCounters> {
        &self.shared.worker
    }

    /// Returns the VP that gets its events now; [`NO_INTERRUPT_VP`] if the guest polls.
    #[must_use]
    pub fn target_vp(&self) -> u32 {
        self.shared.target.read().unwrap_or_else(PoisonError::into_inner).vp
    }

    /// Returns the 120 bytes of user data that the guest opened it with.
    #[must_use]
    pub fn user_data(&self) -> &[u8; 120] {
        &self.user_data
    }

    /// Returns guest memory, for buffers that packets name.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Maps a GPADL that the guest created on this channel, for
    /// [`ReadWrite`](vmbus_gpadl::ReadWrite) or [`ReadOnly`](vmbus_gpadl::ReadOnly). Waits at most
    /// for the message of the guest that the bus is handling, never for a device.
    /// A GPADL has one mapping at a time, of either kind; it ends when the view and its clones are
    /// dropped.
    ///
    /// # Errors
    /// [`MapError`]: unknown on this channel, mapped already, being torn down, or marked read-only
    /// and asked for writing.
    pub fn map_gpadl<A: Access>(&self, id: u32, access: A) -> Result<A::View, MapError> {
        access.map(&self.shared.gpadl(&*self.closed.bus, id)?)
    }

    /// Makes the bus refuse further mappings of this GPADL for writing, as the device's own
    /// protocol demands.
    ///
    /// VMBus itself has no such message (kmcl.md 4.6): a client that creates a read-only GPADL
    /// passes that to its server together with the number.
    ///
    /// # Errors
    /// [`MapError::Unknown`].
    pub fn mark_gpadl_read_only(&self, id: u32) -> Result<(), MapError> {
        self.shared.gpadl(&*self.closed.bus, id)?.mark_read_only();
        Ok(())
    }

    /// Asks the bus to offer subchannels 1..=`total` to the guest. Has no effect on a subchannel.
    pub fn offer_subchannels(&self, total: u16) {
        if self.shared.want_subchannels(total) {
            self.closed.bus.subchannels(self.shared.key, self.shared.serial);
        }
    }
}

/// The part of an open channel that needs no ring: a handle that can be used while the rings are
/// borrowed. It does not keep the channel open; after the close, its GPADLs are gone.
#[derive(Clone)]
pub struct ChannelHandle {
    shared: Arc<ChannelShared>,
    bus: Arc<dyn ChannelBus>,
    ram: GuestRam,
}

impl ChannelHandle {
    /// Returns the channel's number in this connection.
    #[must_use]
    pub fn relid(&self) -> u32 {
        self.shared.relid
    }

    /// Returns the subchannel number: 0 for the primary.
    #[must_use]
    pub fn subchannel(&self) -> u16 {
        self.shared.subchannel
    }

    /// Returns guest memory, for buffers that packets name.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Returns the guest pages that GPADLs of any channel have: see
    /// [`VmBus::shared_pages`](crate::VmBus::shared_pages).
    #[must_use]
    pub fn shared_pages(&self) -> Vec<Range<u64>> {
        self.bus.shared_pages()
    }

    /// See [`Channel::map_gpadl`].
    ///
    /// # Errors
    /// See [`Channel::map_gpadl`].
    pub fn map_gpadl<A: Access>(&self, id: u32, access: A) -> Result<A::View, MapError> {
        access.map(&self.shared.gpadl(&*self.bus, id)?)
    }

    /// See [`Channel::mark_gpadl_read_only`].
    ///
    /// # Errors
    /// See [`Channel::mark_gpadl_read_only`].
    pub fn mark_gpadl_read_only(&self, id: u32) -> Result<(), MapError> {
        self.shared.gpadl(&*self.bus, id)?.mark_read_only();
        Ok(())
    }
}

impl std::fmt::Debug for ChannelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelHandle")
            .field("relid", &self.relid())
            .field("subchannel", &self.subchannel())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("relid", &self.relid())
            .field("subchannel", &self.subchannel())
            .finish_non_exhaustive()
    }
}

impl ChannelShared {
    pub(crate) fn signal(&self) {
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
        let vp = target.vp;
        // A resuming bus signals every channel, so no signal is lost.
        if vp == NO_INTERRUPT_VP || target.paused {
            return;
        }
        let counter = match self.synic.signal_event(vp, VMBUS_SINT, self.event_flag) {
            Signal::Raised => &self.signals_sent,
            Signal::AlreadySet | Signal::Disabled => &self.signals_suppressed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a GPADL of this channel.
    fn gpadl(&self, bus: &dyn ChannelBus, id: u32) -> Result<Gpadl, MapError> {
        bus.gpadl(self.relid, id, &|| self.ended.load(Ordering::Acquire))
            .ok_or(MapError::Unknown(id))
    }

    pub(crate) fn retarget(&self, vp: u32) {
        let mut target = self.target.write().unwrap_or_else(PoisonError::into_inner);
        self.synic.forget_signal(target.vp, VMBUS_SINT, self.event_flag);
        target.vp = vp;
    }

    /// Drops a pending signal of the ended channel, which must not reach the next channel.
    pub(crate) fn forget_signal(&self) {
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
        self.synic.forget_signal(target.vp, VMBUS_SINT, self.event_flag);
    }

    /// Records the number. Returns whether the bus must be notified.
    fn want_subchannels(&self, total: u16) -> bool {
        self.subchannels.total.fetch_max(total, Ordering::SeqCst);
        !self.subchannels.queued.swap(true, Ordering::SeqCst)
    }

    /// Takes the number of subchannels that the device asked for, if it did. Further requests
    /// notify the bus again.
    pub(crate) fn wanted_subchannels(&self) -> Option<u16> {
        let said = self.subchannels.queued.swap(false, Ordering::SeqCst);
        said.then(|| self.subchannels.total.load(Ordering::SeqCst))
    }

    /// Stops or allows signals. When this returns, no signal is in progress any more, or signals
    /// are sent again.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.target.write().unwrap_or_else(PoisonError::into_inner).paused = paused;
    }

    /// Marks the channel as closing. The device sees it when it reads the doorbell that the bus
    /// signals after this.
    pub(crate) fn begin_close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// Reports the end of a channel to the bus on drop.
struct ClosedOnDrop {
    shared: Arc<ChannelShared>,
    bus: Arc<dyn ChannelBus>,
}

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.bus.closed(self.shared.key, self.shared.serial);
    }
}
