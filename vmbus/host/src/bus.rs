//! The shell around the core: devices, doorbells, and the queue of events.
//!
//! The bus has no thread of its own: see [`pump`]. I/O and calls to devices do not run under the
//! state's lock; they are jobs that run after it is released.
//!
//! | module | content |
//! |---|---|
//! | `state` | the parts of a bus, its events and jobs |
//! | `pump`, `work` | the thread that works on the bus; handling an event, running a job |
//! | `messages` | between the guest and the core |
//! | `actions` | the core's actions |
//! | `opens`, `opening` | opens in progress; giving channels to their devices |
//! | `doorbells` | eventfds behind HvSignalEvent |
//! | `pause` | pause, resume, save, restore |

mod actions;
mod doorbells;
mod lock;
mod messages;
mod opening;
mod opens;
mod pause;
mod pump;
mod state;
mod work;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};

use vmbus_gpadl::{GuestRam, MapError, ReleaseSink};
use vmbus_log::LogRateLimiter;
use vmbus_protocol::limits::{MAX_MESSAGE_SIZE, MAX_WAITING_MESSAGES};
use vmbus_protocol::message::GuestMessage;
use vmbus_protocol::offer::{
    HvStatus, MESSAGE_CONNECTION_ID, MESSAGE_CONNECTION_ID_MULTICLIENT, VMBUS_MESSAGE_TYPE,
};

use self::doorbells::Doorbells;
use self::lock::lock;
use self::opens::{DeviceSlot, Opens};
use self::pump::{Pump, Visit};
use self::state::{BusLink, Inner, State};
use crate::core::{ChannelKey, ConnectRequest, Core, OfferError};
use crate::device::{ConnectHandler, Device};
use crate::inspect::BusReport;
use crate::synic::Synic;
use crate::trace::BusTrace;

/// Set in types of messages that only a hypervisor makes (vmbus-core 2.3).
const HYPERVISOR_MESSAGE: u32 = 1 << 31;

/// A VM's VMBus. Clones are handles to the same bus.
#[derive(Clone)]
pub struct VmBus {
    inner: Arc<Inner>,
}

impl VmBus {
    /// Returns a bus without devices over `ram`, on a machine with the interrupt controller
    /// `synic`.
    #[must_use]
    pub fn new(ram: GuestRam, synic: Arc<dyn Synic>) -> Self {
        let inner = Arc::new_cyclic(|weak| {
            let link = Arc::new(BusLink(Weak::clone(weak)));
            let sink: Arc<dyn ReleaseSink> = link.clone();
            let core = Core::new(ram.clone(), synic.vp_count(), sink);
            let state = State {
                core,
                devices: BTreeMap::new(),
                links: BTreeMap::new(),
                actions: Vec::new(),
                held: None,
                deferred: Vec::new(),
                reopens: Vec::new(),
                resets: 0,
                channels_made: 0,
            };
            Inner {
                ram,
                synic,
                pump: Pump::new(state),
                queued_messages: AtomicUsize::new(0),
                doorbells: Doorbells::default(),
                opens: Opens::default(),
                pausing: Mutex::default(),
                resets_done: Mutex::default(),
                reset_done: Condvar::new(),
                link,
                trace: OnceLock::new(),
                connects: OnceLock::new(),
                ignored: LogRateLimiter::default(),
                failed_opens: LogRateLimiter::default(),
                failed_doorbells: LogRateLimiter::default(),
            }
        });
        Self { inner }
    }

    /// Passes all messages to `trace` from here on, and the packets of all channels that are opened
    /// from here on. A bus has one trace: returns false if it has one already.
    pub fn set_trace(&self, trace: Arc<dyn BusTrace>) -> bool {
        self.inner.trace.set(trace).is_ok()
    }

    /// Passes the guest's requests for socket connections to `handler` from here on. A bus has one
    /// handler: returns false if it has one already. Without one, requests are refused.
    pub fn set_connect_handler(&self, handler: Arc<dyn ConnectHandler>) -> bool {
        let is_first = self.inner.connects.set(handler).is_ok();
        self.inner.visit().core.accept_connects();
        is_first
    }

    /// Tells the guest that a connection is refused which [`ConnectHandler::connect`] had taken.
    pub fn refuse_connect(&self, request: ConnectRequest) {
        let mut state = self.inner.visit();
        state.core.refuse_connect(request);
        self.inner.act(&mut state);
    }

    /// Handles HvPostMessage by the guest, after its input was checked. `payload` is a private copy
    /// of the payload only.
    ///
    /// The message is handled before this returns, or by the thread that is working on the bus.
    #[must_use]
    pub fn post_message(&self, connection_id: u32, message_type: u32, payload: &[u8]) -> HvStatus {
        if !matches!(connection_id, MESSAGE_CONNECTION_ID | MESSAGE_CONNECTION_ID_MULTICLIENT) {
            return HvStatus::InvalidConnectionId;
        }
        if payload.len() > MAX_MESSAGE_SIZE {
            return HvStatus::InvalidParameter;
        }
        if message_type & HYPERVISOR_MESSAGE != 0 {
            return HvStatus::InvalidParameter;
        }
        if message_type != VMBUS_MESSAGE_TYPE {
            // The port accepts any type, but only VMBus listens on it.
            return HvStatus::Success;
        }
        if self.inner.synic.waiting_messages() >= MAX_WAITING_MESSAGES {
            match GuestMessage::parse(payload) {
                // A guest that connects again has not read the waiting messages, and never will.
                Ok(GuestMessage::InitiateContact(_) | GuestMessage::Unload) => {
                    self.inner.synic.discard_messages();
                }
                Ok(_) | Err(_) => return HvStatus::InsufficientBuffers,
            }
        }
        self.inner.post(connection_id, payload)
    }

    /// Handles an HvSignalEvent that the machine did not handle: an id without an eventfd, or a
    /// flag number. Never waits for the bus.
    #[must_use]
    pub fn signal_event(&self, connection_id: u32, flag: u16) -> HvStatus {
        if flag != 0 && self.inner.doorbells.is_live(connection_id) {
            return HvStatus::InvalidParameter;
        }
        if self.inner.doorbells.signal(connection_id) {
            HvStatus::Success
        } else {
            HvStatus::InvalidConnectionId
        }
    }

    /// Adds a device and offers it, immediately if the guest has asked for offers. Returns the key
    /// for [`VmBus::rescind`].
    ///
    /// # Errors
    /// See [`OfferError`].
    pub fn offer(&self, device: Box<dyn Device>) -> Result<ChannelKey, OfferError> {
        let (offer, open_blocks) = (device.offer(), device.open_blocks());
        let slot = Arc::new(DeviceSlot { open_blocks, device: Mutex::new(device) });
        let mut state = self.inner.visit();
        let key = state.core.offer(offer)?;
        state.devices.insert(key, slot);
        self.inner.act(&mut state);
        Ok(key)
    }

    /// Removes a device: closes its channels, then rescinds them. The device is dropped once the
    /// guest has released it.
    pub fn rescind(&self, key: ChannelKey) {
        let mut state = self.inner.visit();
        state.core.rescind(key);
        self.inner.act(&mut state);
    }

    /// Ends the connection and all channels. Returns when no device touches guest memory any more,
    /// including devices with an open in progress.
    ///
    /// For the reset or the end of a machine. Its vCPUs must not run; their last messages are
    /// dropped. Must not be called from a device, nor while the bus is paused, as paused devices do
    /// not release channels.
    pub fn reset(&self) {
        let number = {
            let mut state = self.inner.visit();
            self.inner.drop_queued_messages();
            state.resets = state.resets.wrapping_add(1);
            let number = state.resets;
            state.core.reset();
            self.inner.act(&mut state);
            number
        };
        let done = lock(&self.inner.resets_done);
        let done = self.inner.reset_done.wait_while(done, |done| *done < number);
        drop(done.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until all work is done that the guest and the host requested before the call, and all
    /// work that follows from it: messages are handled, devices with a non-blocking `open` have
    /// answered, doorbells are bound or unbound. [`VmBus::inspect`] then shows the result.
    ///
    /// For tests and tools: a guest that posts without pause keeps it waiting. Must not be called
    /// from a device.
    pub fn wait_until_idle(&self) {
        self.inner.pump.wait_until_idle(&self.inner);
    }

    /// Does the work of [`Channel::mark_gpadl_read_only`](crate::Channel::mark_gpadl_read_only) for
    /// machines that learn it outside the bus, as the loopback VM does from its client.
    ///
    /// # Errors
    /// [`MapError::Unknown`].
    pub fn mark_gpadl_read_only(&self, relid: u32, id: u32) -> Result<(), MapError> {
        let state = self.inner.visit();
        state.core.gpadl(relid, id).ok_or(MapError::Unknown(id))?.mark_read_only();
        Ok(())
    }

    /// Returns the guest pages that GPADLs have, as page frame numbers: sorted, and never
    /// overlapping. GPADLs that are being torn down are among them until their last view is
    /// dropped. Waits at most for the message in progress.
    ///
    /// A guest that gives such pages to the host (a balloon, a hint) breaks its own buffers, and
    /// may begin to share others at any moment. So this protects a guest from its own mistakes; the
    /// host's mapping of a page stays valid in any case.
    #[must_use]
    pub fn shared_pages(&self) -> Vec<Range<u64>> {
        self.inner.shared_pages()
    }

    /// Returns the state of the bus, its channels and GPADLs. Waits at most for the message in
    /// progress, never for a device. The report is built without the state's lock.
    #[must_use]
    pub fn inspect(&self) -> BusReport {
        let (snapshot, open) = {
            let state = self.inner.visit();
            let open = state
                .links
                .iter()
                .filter_map(|(key, link)| Some((*key, Arc::clone(link.open.as_ref()?))));
            (state.core.snapshot(), open.collect())
        };
        BusReport::new(snapshot, &open)
    }
}

impl Inner {
    fn visit(&self) -> Visit<'_, Inner> {
        self.pump.visit(self)
    }

    fn shared_pages(&self) -> Vec<Range<u64>> {
        let gpadls: Vec<_> = self.visit().core.accepted_gpadls().cloned().collect();
        let mut runs: Vec<_> =
            gpadls.iter().flat_map(|gpadl| gpadl.buffer().guest_runs()).collect();
        runs.sort_unstable_by_key(|run| run.start);
        runs.dedup_by(|next, last| {
            let joins = next.start <= last.end;
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
        runs
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
