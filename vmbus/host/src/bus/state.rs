//! The parts of a bus, its events and its jobs.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};

use vmbus_gpadl::{Gpadl, GpadlKey, GuestRam, ReleaseSink};
use vmbus_log::LogRateLimiter;
use vmbus_protocol::limits::MAX_MESSAGE_SIZE;
use vmm_sys_util::eventfd::EventFd;

use super::doorbells::Doorbells;
use super::opens::{DeviceSlot, Opening, Opens, Request};
use super::pump::Pump;
use crate::core::{Action, ChannelKey, Core};
use crate::device::{ChannelBus, ChannelShared, ConnectHandler};
use crate::synic::{QueuedMessage, Synic};
use crate::trace::BusTrace;

/// The part of a bus that its clones share.
pub(super) struct Inner {
    pub(super) ram: GuestRam,
    pub(super) synic: Arc<dyn Synic>,
    pub(super) pump: Pump<Inner>,
    /// Number of queued events that are messages from the guest.
    pub(super) queued_messages: AtomicUsize,
    pub(super) doorbells: Doorbells,
    pub(super) opens: Opens,
    /// Serialises pause, resume, save and restore.
    pub(super) pausing: Mutex<()>,
    /// Number of the last complete reset.
    pub(super) resets_done: Mutex<u64>,
    pub(super) reset_done: Condvar,
    pub(super) link: Arc<BusLink>,
    /// The receiver of the traffic. Empty: none.
    pub(super) trace: OnceLock<Arc<dyn BusTrace>>,
    /// The receiver of the guest's requests for socket connections. Empty: they are refused.
    pub(super) connects: OnceLock<Arc<dyn ConnectHandler>>,
    pub(super) ignored: LogRateLimiter,
    pub(super) failed_opens: LogRateLimiter,
    pub(super) failed_doorbells: LogRateLimiter,
}

/// An event. The number of queued events is bounded, however fast a guest is: messages by
/// [`MAX_INBOX_MESSAGES`](vmbus_protocol::limits::MAX_INBOX_MESSAGES); `Opened` and `Closed` by one
/// for each channel of a device; `Subchannels` by one for each channel, with the latest total;
/// `Released` by one for each GPADL that is being torn down.
///
/// A message is far larger than the rest. It is queued only while another thread works on the bus,
/// so its space is not worth a box.
#[allow(clippy::large_enum_variant)]
pub(super) enum Event {
    Message { connection_id: u32, message: GuestBytes },
    Opened(Opening),
    Closed { key: ChannelKey, serial: u64 },
    Released(GpadlKey),
    Subchannels { key: ChannelKey, serial: u64 },
}

/// Work that takes longer than an event may. Bounded by channels, connection ids and devices.
pub(super) enum Job {
    /// Gives a channel to its device.
    Open(Box<Request>),
    /// Removes a doorbell's binding.
    Unbind { connection_id: u32 },
    /// Drops a device that is no longer used.
    Drop(Arc<DeviceSlot>),
}

/// A posted payload on its way to the core.
pub(super) struct GuestBytes {
    pub(super) bytes: [u8; MAX_MESSAGE_SIZE],
    pub(super) len: usize,
}

pub(super) struct State {
    pub(super) core: Core,
    pub(super) devices: BTreeMap<ChannelKey, Arc<DeviceSlot>>,
    pub(super) links: BTreeMap<ChannelKey, Link>,
    /// Scratch, empty between events.
    pub(super) actions: Vec<Action>,
    /// Messages for the guest that are held while the bus is paused; `None` while it runs.
    pub(super) held: Option<VecDeque<QueuedMessage>>,
    /// Opens that are deferred to the end of the pause.
    pub(super) deferred: Vec<Request>,
    /// Open channels of a restored bus that go back to their devices.
    pub(super) reopens: Vec<Request>,
    /// Number of the last reset that began.
    pub(super) resets: u64,
    /// Counts channels given to devices: the serial number tells the ends of two channels apart.
    pub(super) channels_made: u64,
}

/// The shell's record of a channel that the guest knows.
pub(super) struct Link {
    pub(super) doorbell: Arc<EventFd>,
    pub(super) open: Option<Arc<ChannelShared>>,
}

/// A weak reference from channels and views to their bus.
pub(super) struct BusLink(pub(super) Weak<Inner>);

impl BusLink {
    fn push(&self, event: Event) {
        // If the bus is gone, no event is needed.
        if let Some(bus) = self.0.upgrade() {
            bus.push(event);
        }
    }
}

impl ChannelBus for BusLink {
    fn closed(&self, key: ChannelKey, serial: u64) {
        self.push(Event::Closed { key, serial });
    }

    fn subchannels(&self, key: ChannelKey, serial: u64) {
        self.push(Event::Subchannels { key, serial });
    }

    fn gpadl(&self, relid: u32, id: u32, is_ended: &dyn Fn() -> bool) -> Option<Gpadl> {
        let bus = self.0.upgrade()?;
        let state = bus.visit();
        if is_ended() { None } else { state.core.gpadl(relid, id).cloned() }
    }

    fn shared_pages(&self) -> Vec<Range<u64>> {
        self.0.upgrade().map_or_else(Vec::new, |bus| bus.shared_pages())
    }
}

impl ReleaseSink for BusLink {
    fn gpadl_released(&self, key: GpadlKey) {
        self.push(Event::Released(key));
    }
}
