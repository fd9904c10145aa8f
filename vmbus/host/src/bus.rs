//! The thin shell around the core: inbox, devices, doorbells. It has no thread; whoever brings an event pumps.

mod standstill;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use tracing::{debug, error, warn};
use vmbus_gpadl::{GpadlKey, GuestRam, MapError, ReleaseSink};
use vmbus_protocol::MessageBuffer;
use vmbus_protocol::limits::{MAX_INBOX_MESSAGES, MAX_MESSAGE_SIZE, MAX_WAITING_MESSAGES};
use vmbus_protocol::message::GuestMessage;
use vmbus_protocol::offer::{
    HvStatus, MESSAGE_CONNECTION_ID, MESSAGE_CONNECTION_ID_MULTICLIENT, VMBUS_MESSAGE_TYPE,
};
use vmbus_ring::{Incoming, Outgoing, RingMemory};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::core::{Action, ChannelKey, Core, OpenParams};
use crate::device::{Channel, ChannelParts, ChannelShared, Device, OfferError};
use crate::inspect::BusReport;
use crate::log::Limiter;
use crate::synic::{QueuedMessage, Synic};

/// Set in types of messages that only a hypervisor makes (vmbus-core 2.3).
const HYPERVISOR_MESSAGE: u32 = 1 << 31;

/// A VM's VMBus. Cloning shares it.
#[derive(Clone)]
pub struct VmBus {
    inner: Arc<Inner>,
}

struct Inner {
    ram: GuestRam,
    synic: Arc<dyn Synic>,
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
    resets: Mutex<Resets>,
    reset_done: Condvar,
    link: BusLink,
    ignored: Limiter,
    failed_opens: Limiter,
    failed_binds: Limiter,
}

#[derive(Default)]
struct Inbox {
    events: VecDeque<Event>,
    /// Messages from the guest among them: those are bounded, the rest is bounded by what exists.
    messages: usize,
}

/// A message is far larger than the rest; it is queued only while another thread works on the bus, so the room is not worth a box.
#[allow(clippy::large_enum_variant)]
enum Event {
    Message { connection_id: u32, message: GuestBytes },
    Closed { key: ChannelKey, serial: u64 },
    Released(GpadlKey),
    Subchannels { key: ChannelKey, total: u16 },
    Rescind(ChannelKey),
    Reset { ticket: u64 },
}

/// Tickets of [`VmBus::reset`]: the last one drawn, and the last one whose reset is complete.
#[derive(Default)]
struct Resets {
    drawn: u64,
    done: u64,
}

/// A posted payload on its way to the core.
struct GuestBytes {
    bytes: [u8; MAX_MESSAGE_SIZE],
    len: usize,
}

struct State {
    core: Core,
    devices: BTreeMap<ChannelKey, Box<dyn Device>>,
    links: BTreeMap<ChannelKey, Link>,
    /// By connection id, for signals that the machine could not bind to an eventfd.
    doorbells: BTreeMap<u32, ChannelKey>,
    /// Scratch, empty between events.
    actions: Vec<Action>,
    /// While the bus stands still: messages for the guest.
    held: Option<VecDeque<QueuedMessage>>,
    /// Ticket of the last reset that began.
    reset_ticket: u64,
    /// Counts channels handed to devices, so that each end can be told from the next one's.
    channels_made: u64,
}

/// What the shell keeps of a channel that the guest knows.
struct Link {
    doorbell: EventFd,
    open: Option<Arc<ChannelShared>>,
}

/// How channels and views reach their bus, without keeping it alive.
#[derive(Clone)]
pub(crate) struct BusLink(Weak<Inner>);

impl VmBus {
    /// A bus without devices over `ram`, on a machine whose interrupt controller is `synic`.
    #[must_use]
    pub fn new(ram: GuestRam, synic: Arc<dyn Synic>) -> Self {
        let inner = Arc::new_cyclic(|weak| {
            let link = BusLink(Weak::clone(weak));
            let core = Core::new(ram.clone(), synic.vp_count(), Arc::new(link.clone()));
            let state = State {
                core,
                devices: BTreeMap::new(),
                links: BTreeMap::new(),
                doorbells: BTreeMap::new(),
                actions: Vec::new(),
                held: None,
                reset_ticket: 0,
                channels_made: 0,
            };
            Inner {
                ram,
                synic,
                inbox: Mutex::default(),
                state: Mutex::new(state),
                resets: Mutex::default(),
                reset_done: Condvar::new(),
                link,
                ignored: Limiter::default(),
                failed_opens: Limiter::default(),
                failed_binds: Limiter::default(),
            }
        });
        Self { inner }
    }

    /// HvPostMessage by the guest, after its input was checked: `payload` is a private copy of exactly the payload.
    ///
    /// The message is handled before this returns, or by the thread that works on the bus at this moment.
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
            // The port takes any type; nothing but VMBus listens on it.
            return HvStatus::Success;
        }
        if self.inner.synic.waiting_messages() >= MAX_WAITING_MESSAGES {
            match GuestMessage::parse(payload) {
                // Whoever begins anew has not read what waits, and never will.
                Ok(GuestMessage::InitiateContact(_) | GuestMessage::Unload) => {
                    self.inner.synic.discard_messages();
                }
                Ok(_) | Err(_) => return HvStatus::InsufficientBuffers,
            }
        }
        self.inner.post(connection_id, payload)
    }

    /// HvSignalEvent that the machine did not carry out itself: an id without eventfd, or a flag number.
    #[must_use]
    pub fn signal_event(&self, connection_id: u32, flag: u16) -> HvStatus {
        let status = self.inner.ring_doorbell(connection_id, flag);
        // What others brought while we held the bus waits for us.
        self.inner.pump();
        status
    }

    /// Adds a device; a guest that has asked for offers hears of it at once. The key takes it away again.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer(&self, device: Box<dyn Device>) -> Result<ChannelKey, OfferError> {
        let mut state = self.inner.lock();
        let key = state.core.offer(device.offer())?;
        state.devices.insert(key, device);
        self.inner.act(&mut state);
        drop(state);
        self.inner.pump();
        Ok(key)
    }

    /// Takes a device away: its channels are closed, then rescinded. It is dropped once the guest has released it.
    pub fn rescind(&self, key: ChannelKey) {
        self.inner.push(Event::Rescind(key));
    }

    /// Forgets every connection and channel, and returns when no device touches guest memory any more.
    ///
    /// For a machine that starts anew or ends: its vCPUs must not run. Never call it from a device, nor while the bus is paused: devices that
    /// stand still do not let go.
    pub fn reset(&self) {
        let ticket = {
            let mut resets = lock(&self.inner.resets);
            resets.drawn = resets.drawn.wrapping_add(1);
            resets.drawn
        };
        self.inner.push(Event::Reset { ticket });
        let resets = lock(&self.inner.resets);
        let done = self.inner.reset_done.wait_while(resets, |resets| resets.done < ticket);
        drop(done.unwrap_or_else(PoisonError::into_inner));
    }

    /// As [`Channel::mark_gpadl_read_only`], for machines that hear of it beside the bus: the loopback VM does from its client.
    ///
    /// # Errors
    /// [`MapError::Unknown`].
    pub fn mark_gpadl_read_only(&self, relid: u32, id: u32) -> Result<(), MapError> {
        let table = self.inner.lock().core.gpadl_table();
        // What others brought while we held the bus waits for us.
        self.inner.pump();
        table.mark_read_only(relid, id)
    }

    /// How everything stands.
    #[must_use]
    pub fn inspect(&self) -> BusReport {
        let state = self.inner.lock();
        let open = state
            .links
            .iter()
            .filter_map(|(key, link)| Some((*key, Arc::clone(link.open.as_ref()?))))
            .collect();
        let report = BusReport::new(&state.core, &open);
        drop(state);
        self.inner.pump();
        report
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn ring_doorbell(&self, connection_id: u32, flag: u16) -> HvStatus {
        let state = self.lock();
        let link = state.doorbells.get(&connection_id).and_then(|key| state.links.get(key));
        let Some(link) = link else { return HvStatus::InvalidConnectionId };
        if flag != 0 {
            return HvStatus::InvalidParameter;
        }
        ring(&link.doorbell);
        HvStatus::Success
    }

    fn post(&self, connection_id: u32, payload: &[u8]) -> HvStatus {
        // The usual case: nobody else is here. No copy, no queue.
        if let Ok(mut state) = self.state.try_lock()
            && lock(&self.inbox).events.is_empty()
        {
            self.handle_message(&mut state, connection_id, payload);
            drop(state);
            self.pump();
            return HvStatus::Success;
        }
        let mut inbox = lock(&self.inbox);
        if inbox.messages >= MAX_INBOX_MESSAGES {
            return HvStatus::InsufficientBuffers;
        }
        let mut message = GuestBytes { bytes: [0; MAX_MESSAGE_SIZE], len: payload.len() };
        if let Some(to) = message.bytes.get_mut(..payload.len()) {
            to.copy_from_slice(payload);
        }
        inbox.messages = inbox.messages.saturating_add(1);
        inbox.events.push_back(Event::Message { connection_id, message });
        drop(inbox);
        self.pump();
        HvStatus::Success
    }

    fn push(&self, event: Event) {
        lock(&self.inbox).events.push_back(event);
        self.pump();
    }

    /// Handles what waits, unless another thread does that now: it will see what we brought, because it looks again after letting go.
    fn pump(&self) {
        loop {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.handle_all(&mut state);
            drop(state);
            if lock(&self.inbox).events.is_empty() {
                return;
            }
        }
    }

    fn handle_all(&self, state: &mut State) {
        while let Some(event) = self.next_event() {
            self.handle(state, event);
        }
    }

    fn next_event(&self) -> Option<Event> {
        let mut inbox = lock(&self.inbox);
        let event = inbox.events.pop_front()?;
        if matches!(event, Event::Message { .. }) {
            inbox.messages = inbox.messages.saturating_sub(1);
        }
        Some(event)
    }

    fn handle(&self, state: &mut State, event: Event) {
        match event {
            Event::Message { connection_id, message } => {
                let bytes = message.bytes.get(..message.len).unwrap_or_default();
                self.handle_message(state, connection_id, bytes);
                return;
            }
            Event::Closed { key, serial } => {
                // The channel of an open that the device refused may end late: it is not the one that is open now.
                let link = state.links.get_mut(&key);
                let ended = link.and_then(|link| link.open.take_if(|open| open.serial == serial)).is_some();
                if !ended {
                    return;
                }
                state.core.closed(key);
            }
            Event::Released(key) => state.core.gpadl_released(key),
            Event::Subchannels { key, total } => state.core.offer_subchannels(key, total),
            Event::Rescind(key) => state.core.rescind(key),
            Event::Reset { ticket } => {
                // Two callers may draw their tickets in one order and get here in the other.
                state.reset_ticket = state.reset_ticket.max(ticket);
                state.core.reset();
            }
        }
        self.act(state);
    }

    fn handle_message(&self, state: &mut State, connection_id: u32, payload: &[u8]) {
        if let Err(why) = state.core.message(connection_id, payload) {
            self.ignored.log(|suppressed| warn!(?why, suppressed, "a message from the guest was ignored"));
        }
        self.act(state);
    }

    /// Carries out what the core wants, and what it wants because of that.
    fn act(&self, state: &mut State) {
        let mut actions = std::mem::take(&mut state.actions);
        loop {
            state.core.take_actions(&mut actions);
            if actions.is_empty() {
                break;
            }
            for action in actions.drain(..) {
                self.act_one(state, action);
            }
        }
        state.actions = actions;
    }

    fn act_one(&self, state: &mut State, action: Action) {
        match action {
            Action::Post { vp, sint, message } => self.deliver(state, vp, sint, &message),
            Action::DiscardMessages => {
                self.synic.discard_messages();
                if let Some(held) = &mut state.held {
                    held.clear();
                }
            }
            Action::Bind { key, connection_id } => self.bind(state, key, connection_id),
            Action::Unbind { key, connection_id } => {
                if let Some(link) = state.links.remove(&key) {
                    self.synic.unbind_doorbell(connection_id, &link.doorbell);
                }
                state.doorbells.remove(&connection_id);
            }
            Action::Open { key, params } => {
                let accepted = self.open(state, key, params, None);
                state.core.opened(key, accepted);
            }
            Action::Reopen { key, params, state: saved } => {
                let accepted = self.open(state, key, params, Some(&saved));
                state.core.reopened(key, accepted);
            }
            Action::Signal { key } => {
                if let Some(link) = state.links.get(&key) {
                    if let Some(open) = &link.open {
                        open.signal();
                    }
                    // The guest may have written before the device was there: let it look once.
                    ring(&link.doorbell);
                }
            }
            Action::Wake { key } => {
                if let Some(link) = state.links.get(&key) {
                    ring(&link.doorbell);
                }
            }
            Action::Retarget { key, vp } => {
                if let Some(open) = state.links.get(&key).and_then(|link| link.open.as_ref()) {
                    open.retarget(vp);
                }
            }
            Action::Close { key } => {
                // Without an open channel the device gave up just now: its `Closed` is in the inbox.
                if let Some(Link { doorbell, open: Some(open) }) = state.links.get(&key) {
                    open.begin_close();
                    ring(doorbell);
                }
            }
            Action::Removed { key } => {
                state.devices.remove(&key);
            }
            Action::Quiesced => {
                lock(&self.resets).done = state.reset_ticket;
                self.reset_done.notify_all();
            }
        }
    }

    fn deliver(&self, state: &mut State, vp: u32, sint: u8, message: &MessageBuffer) {
        match &mut state.held {
            Some(held) => held.push_back(QueuedMessage { vp, sint, message: message.as_bytes().to_vec() }),
            None => self.synic.post_message(vp, sint, message.as_bytes()),
        }
    }

    fn bind(&self, state: &mut State, key: ChannelKey, connection_id: u32) {
        let doorbell = match EventFd::new(EFD_NONBLOCK) {
            Ok(doorbell) => doorbell,
            Err(error) => {
                self.failed_binds.log(|suppressed| {
                    error!(%error, connection_id, suppressed, "no doorbell for a channel: opening it will fail (out of file descriptors?)");
                });
                return;
            }
        };
        if let Err(error) = self.synic.bind_doorbell(connection_id, &doorbell) {
            self.failed_binds.log(|suppressed| {
                warn!(%error, connection_id, suppressed, "signals of this channel will leave the kernel");
            });
        }
        state.doorbells.insert(connection_id, key);
        state.links.insert(key, Link { doorbell, open: None });
    }

    /// Maps the rings and gives the channel to its device. `saved`: what it said of the channel when the bus was written down.
    fn open(&self, state: &mut State, key: ChannelKey, params: OpenParams, saved: Option<&[u8]>) -> bool {
        let Some(link) = state.links.get_mut(&key) else { return false };
        let (primary, relid, subchannel) = (params.primary, params.relid, params.subchannel);
        state.channels_made = state.channels_made.wrapping_add(1);
        let serial = state.channels_made;
        let (channel, shared) = match self.make_channel(key, serial, link, params, state.core.gpadl_table()) {
            Ok(made) => made,
            Err(error) => {
                self.failed_opens
                    .log(|suppressed| warn!(relid, error, suppressed, "a channel could not be opened"));
                return false;
            }
        };
        let Some(device) = state.devices.get_mut(&primary) else { return false };
        shared.set_paused(state.held.is_some());
        let taken = match saved {
            None => device.open(channel),
            Some(saved) => device.restore(channel, saved),
        };
        // The bus hears of the end of a refused channel too; without an open channel that means nothing.
        match taken {
            Ok(()) => {
                debug!(relid, subchannel, restored = saved.is_some(), "channel open");
                link.open = Some(shared);
                true
            }
            Err(error) => {
                self.failed_opens.log(
                    |suppressed| warn!(relid, %error, suppressed, restoring = saved.is_some(), "the device refused to open a channel"),
                );
                false
            }
        }
    }

    fn make_channel(
        &self,
        key: ChannelKey,
        serial: u64,
        link: &Link,
        params: OpenParams,
        gpadls: Arc<crate::core::GpadlTable>,
    ) -> Result<(Channel, Arc<ChannelShared>), String> {
        let pages = params.ring.pages();
        let downstream_pages = pages.saturating_sub(params.downstream_page);
        let incoming = RingMemory::map(params.ring.clone(), 0, params.downstream_page)
            .map_err(|error| error.to_string())?;
        let outgoing = RingMemory::map(params.ring, params.downstream_page, downstream_pages)
            .map_err(|error| error.to_string())?;
        let doorbell = link.doorbell.try_clone().map_err(|error| error.to_string())?;
        Ok(Channel::new(ChannelParts {
            incoming: Incoming::new(incoming).map_err(|error| error.to_string())?,
            outgoing: Outgoing::new(outgoing).map_err(|error| error.to_string())?,
            doorbell,
            gpadls,
            ram: self.ram.clone(),
            user_data: params.user_data,
            key,
            serial,
            relid: params.relid,
            subchannel: params.subchannel,
            event_flag: params.event_flag,
            target_vp: params.target_vp,
            synic: Arc::clone(&self.synic),
            bus: self.link.clone(),
        }))
    }
}

impl BusLink {
    pub(crate) fn closed(&self, key: ChannelKey, serial: u64) {
        self.push(Event::Closed { key, serial });
    }

    pub(crate) fn subchannels(&self, key: ChannelKey, total: u16) {
        self.push(Event::Subchannels { key, total });
    }

    fn push(&self, event: Event) {
        // Without a bus there is nobody left to tell.
        if let Some(bus) = self.0.upgrade() {
            bus.push(event);
        }
    }
}

impl ReleaseSink for BusLink {
    fn gpadl_released(&self, key: GpadlKey) {
        self.push(Event::Released(key));
    }
}

/// No state behind these locks is left half-changed by a panic elsewhere, and a VMM must go on closing disks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ring(doorbell: &EventFd) {
    // Fails only when the counter is full, and then it is readable anyway.
    let _ = doorbell.write(1);
}
