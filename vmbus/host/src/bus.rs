//! The thin shell around the core: devices, doorbells, and the queue of what happened.
//!
//! It has no thread of its own: see [`pump`]. Under the state's lock there is no I/O and no callback of a device; those are
//! jobs ([`opening`], [`doorbells`]) that run after it.

mod doorbells;
mod opening;
mod pause;
mod pump;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use tracing::{error, warn};
use vmbus_gpadl::{GpadlKey, GuestRam, MapError, ReleaseSink};
use vmbus_log::LogRateLimiter;
use vmbus_protocol::MessageBuffer;
use vmbus_protocol::limits::{MAX_INBOX_MESSAGES, MAX_MESSAGE_SIZE, MAX_WAITING_MESSAGES};
use vmbus_protocol::message::GuestMessage;
use vmbus_protocol::offer::{
    HvStatus, MESSAGE_CONNECTION_ID, MESSAGE_CONNECTION_ID_MULTICLIENT, VMBUS_MESSAGE_TYPE,
};
use vmm_sys_util::eventfd::EventFd;

use self::doorbells::{Doorbells, ring};
use self::opening::{Opening, Opens};
use self::pump::{OTHER_WORK, Pump, Shell, VCPU_WORK, Visit};
use crate::core::{Action, ChannelKey, Core};
use crate::device::{ChannelShared, Device, OfferError};
use crate::inspect::BusReport;
use crate::synic::{QueuedMessage, Synic};

/// Set in types of messages that only a hypervisor makes (vmbus-core 2.3).
const HYPERVISOR_MESSAGE: u32 = 1 << 31;

/// Stack of the bus's short-lived threads: a message's actions and a device's `open` nest a few calls deep.
const THREAD_STACK: usize = 512 << 10;

/// A VM's VMBus. Cloning shares it.
#[derive(Clone)]
pub struct VmBus {
    inner: Arc<Inner>,
}

struct Inner {
    ram: GuestRam,
    synic: Arc<dyn Synic>,
    pump: Pump<Inner>,
    /// Of the queued events, those that are messages from the guest.
    queued_messages: AtomicUsize,
    doorbells: Doorbells,
    opens: Opens,
    /// Serialises pause, resume, save and restore.
    pausing: Mutex<()>,
    /// Number of the last reset that is complete.
    resets_done: Mutex<u64>,
    reset_done: Condvar,
    link: BusLink,
    ignored: LogRateLimiter,
    failed_opens: LogRateLimiter,
    failed_doorbells: LogRateLimiter,
}

/// What happened. Each kind is bounded by what it is about, however fast a guest is: messages by
/// [`MAX_INBOX_MESSAGES`]; `Opened` and `Closed` by one for each channel in a device's hands; `Subchannels` by one for each
/// channel, which carries the latest total; `Released` by one for each GPADL that is being torn down.
///
/// A message is far larger than the rest; it is queued only while another thread works on the bus, so the space is not worth
/// a box.
#[allow(clippy::large_enum_variant)]
enum Event {
    Message { connection_id: u32, message: GuestBytes },
    Opened(Opening),
    Closed { key: ChannelKey, serial: u64 },
    Released(GpadlKey),
    Subchannels { key: ChannelKey, serial: u64 },
}

/// What takes longer than an event may. Bounded by channels, connection ids and devices.
enum Job {
    /// Gives a channel to its device.
    Open(Box<opening::Request>),
    /// Takes a doorbell's binding away.
    Unbind { connection_id: u32 },
    /// Drops a device that nothing uses any more.
    Drop(Arc<DeviceSlot>),
}

/// A posted payload on its way to the core.
struct GuestBytes {
    bytes: [u8; MAX_MESSAGE_SIZE],
    len: usize,
}

struct State {
    core: Core,
    devices: BTreeMap<ChannelKey, Arc<DeviceSlot>>,
    links: BTreeMap<ChannelKey, Link>,
    /// Scratch, empty between events.
    actions: Vec<Action>,
    /// While the bus is paused: messages for the guest.
    held: Option<VecDeque<QueuedMessage>>,
    /// Opens that wait for the end of the pause.
    deferred: Vec<opening::Request>,
    /// Open channels of a restored bus that go back to their devices.
    reopens: Vec<opening::Request>,
    /// Number of the last reset that began.
    resets: u64,
    /// Counts channels handed to devices, so that each end can be told from the next one's.
    channels_made: u64,
}

/// A device, which threads call one at a time. No other lock of the bus is held meanwhile.
struct DeviceSlot {
    open_blocks: bool,
    device: Mutex<Box<dyn Device>>,
}

/// What the shell keeps of a channel that the guest knows.
struct Link {
    doorbell: Arc<EventFd>,
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
                ignored: LogRateLimiter::default(),
                failed_opens: LogRateLimiter::default(),
                failed_doorbells: LogRateLimiter::default(),
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
                // A guest that begins again has not read what waits, and never will.
                Ok(GuestMessage::InitiateContact(_) | GuestMessage::Unload) => {
                    self.inner.synic.discard_messages();
                }
                Ok(_) | Err(_) => return HvStatus::InsufficientBuffers,
            }
        }
        self.inner.post(connection_id, payload)
    }

    /// HvSignalEvent that the machine did not carry out itself: an id without eventfd, or a flag number. Waits for nothing that
    /// the bus does.
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

    /// Adds a device; a guest that has asked for offers hears of it at once. The key takes it away again.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer(&self, device: Box<dyn Device>) -> Result<ChannelKey, OfferError> {
        let (offer, open_blocks) = (device.offer(), device.open_blocks());
        let slot = Arc::new(DeviceSlot { open_blocks, device: Mutex::new(device) });
        let mut state = self.inner.visit();
        let key = state.core.offer(offer)?;
        state.devices.insert(key, slot);
        self.inner.act(&mut state);
        Ok(key)
    }

    /// Takes a device away: its channels are closed, then rescinded. It is dropped once the guest has released it.
    pub fn rescind(&self, key: ChannelKey) {
        let mut state = self.inner.visit();
        state.core.rescind(key);
        self.inner.act(&mut state);
    }

    /// Forgets every connection and channel, and returns when no device touches guest memory any more. That includes devices
    /// that are being asked to open a channel.
    ///
    /// For a machine that is reset or ends: its vCPUs must not run; what they posted last is dropped. Never call it from a device,
    /// nor while the bus is paused: paused devices do not let go.
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

    /// As [`Channel::mark_gpadl_read_only`](crate::Channel::mark_gpadl_read_only), for machines that hear of it beside the bus:
    /// the loopback VM does from its client.
    ///
    /// # Errors
    /// [`MapError::Unknown`].
    pub fn mark_gpadl_read_only(&self, relid: u32, id: u32) -> Result<(), MapError> {
        let table = self.inner.visit().core.gpadl_table();
        table.mark_read_only(relid, id)
    }

    /// Returns the state of everything. Waits at most for the message that is being handled, never for a device; the report
    /// itself is made without the bus.
    #[must_use]
    pub fn inspect(&self) -> BusReport {
        let (snapshot, open) = {
            let state = self.inner.visit();
            let open =
                state.links.iter().filter_map(|(key, link)| Some((*key, Arc::clone(link.open.as_ref()?))));
            (state.core.snapshot(), open.collect())
        };
        BusReport::new(snapshot, &open)
    }
}

impl Inner {
    fn visit(&self) -> Visit<'_, Inner> {
        self.pump.visit(self)
    }

    fn post(&self, connection_id: u32, payload: &[u8]) -> HvStatus {
        // The usual case: no other thread is here. No copy, no queue.
        if let Some(mut state) = self.pump.enter(self, VCPU_WORK) {
            self.handle_message(&mut state, connection_id, payload);
            return HvStatus::Success;
        }
        let status = self.queue_message(connection_id, payload);
        // Also when the queue is full: the thread that filled it may have met this one in the state.
        self.pump.settle(self, VCPU_WORK);
        status
    }

    fn queue_message(&self, connection_id: u32, payload: &[u8]) -> HvStatus {
        let mut queue = self.pump.queue();
        if self.queued_messages.load(Ordering::Relaxed) >= MAX_INBOX_MESSAGES {
            return HvStatus::InsufficientBuffers;
        }
        let mut message = GuestBytes { bytes: [0; MAX_MESSAGE_SIZE], len: payload.len() };
        if let Some(to) = message.bytes.get_mut(..payload.len()) {
            to.copy_from_slice(payload);
        }
        self.queued_messages.fetch_add(1, Ordering::Relaxed);
        queue.events.push_back(Event::Message { connection_id, message });
        HvStatus::Success
    }

    fn push(&self, event: Event) {
        self.pump.queue().events.push_back(event);
        self.pump.settle(self, OTHER_WORK);
    }

    /// Handles what is queued now. For a machine whose vCPUs do not run: they cannot add to it.
    fn handle_queued(&self, state: &mut State) {
        let queued = self.pump.queue().events.len();
        for _ in 0..queued {
            // In its own statement: the queue is free while the event is handled.
            let event = self.pump.queue().events.pop_front();
            if let Some(event) = event {
                self.handle(state, event);
            }
        }
    }

    /// The machine starts again: what its vCPUs posted before is not for the next guest.
    fn drop_queued_messages(&self) {
        let mut queue = self.pump.queue();
        queue.events.retain(|event| !matches!(event, Event::Message { .. }));
        self.queued_messages.store(0, Ordering::Relaxed);
    }

    fn handle_message(&self, state: &mut State, connection_id: u32, payload: &[u8]) {
        if let Err(why) = state.core.message(connection_id, payload) {
            self.ignored.log(|suppressed| warn!(?why, suppressed, "a message from the guest was ignored"));
        }
        self.act(state);
    }

    /// The device has let go of the channel: of this one, not of one that it was handed before or refused.
    fn handle_closed(&self, state: &mut State, key: ChannelKey, serial: u64) {
        let link = state.links.get_mut(&key);
        let ended = link.and_then(|link| link.open.take_if(|open| open.serial == serial));
        if let Some(ended) = ended {
            ended.forget_signal();
            state.core.closed(key);
        }
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
                state.links.remove(&key);
                if self.doorbells.retire(connection_id) {
                    self.pump.add_job(Job::Unbind { connection_id });
                }
            }
            Action::Open { key, params } => self.request_open(state, key, params),
            Action::Reopen { key, params, state: saved } => self.request_reopen(state, key, params, saved),
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
                // Without an open channel the device gave up just now: its `Closed` is queued.
                if let Some(Link { doorbell, open: Some(open) }) = state.links.get(&key) {
                    open.begin_close();
                    ring(doorbell);
                }
            }
            Action::Removed { key } => {
                if let Some(device) = state.devices.remove(&key) {
                    self.pump.add_job(Job::Drop(device));
                }
            }
            Action::Quiesced => {
                *lock(&self.resets_done) = state.resets;
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
        match self.doorbells.bind(&*self.synic, connection_id) {
            Ok(bound) => {
                if let Some(error) = bound.refused {
                    self.failed_doorbells.log(|suppressed| {
                        warn!(%error, connection_id, suppressed, "signals of this channel leave the kernel");
                    });
                }
                state.links.insert(key, Link { doorbell: bound.event, open: None });
            }
            Err(error) => self.failed_doorbells.log(|suppressed| {
                error!(
                    %error,
                    connection_id,
                    suppressed,
                    "no doorbell for a channel: opening it will fail (out of file descriptors?)"
                );
            }),
        }
    }

    /// Runs `task` on a thread of its own; gives it back when there is none to be had.
    fn spawn<T: Send + 'static>(&self, name: &str, task: T, run: fn(&Inner, T)) -> Result<(), T> {
        let Some(bus) = self.link.0.upgrade() else { return Err(task) };
        // The task is handed over when the thread exists, so that it is not lost when there is none.
        let (give, take) = std::sync::mpsc::sync_channel::<T>(1);
        let body = move || {
            if let Ok(task) = take.recv() {
                run(&bus, task);
            }
        };
        match thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK).spawn(body) {
            Ok(_) => give.send(task).map_err(|returned| returned.0),
            Err(error) => {
                self.failed_opens.log(|suppressed| warn!(%error, suppressed, "no thread for the bus"));
                Err(task)
            }
        }
    }
}

thread_local! {
    /// This thread calls a device.
    static IN_JOB: Cell<bool> = const { Cell::new(false) };
}

impl Shell for Inner {
    type State = State;
    type Event = Event;
    type Job = Job;

    fn handle(&self, state: &mut State, event: Event) {
        match event {
            Event::Message { connection_id, message } => {
                self.queued_messages.fetch_sub(1, Ordering::Relaxed);
                let bytes = message.bytes.get(..message.len).unwrap_or_default();
                self.handle_message(state, connection_id, bytes);
                return;
            }
            Event::Opened(opening) => self.handle_opened(state, opening),
            Event::Closed { key, serial } => self.handle_closed(state, key, serial),
            Event::Released(key) => state.core.gpadl_released(key),
            Event::Subchannels { key, serial } => Self::handle_subchannels(state, key, serial),
        }
        self.act(state);
    }

    fn run(&self, job: Job) {
        match job {
            Job::Open(request) => self.start_open(*request),
            Job::Unbind { connection_id } => {
                if let Err(error) = self.doorbells.unbind(&*self.synic, connection_id) {
                    self.failed_doorbells.log(|suppressed| {
                        warn!(%error, connection_id, suppressed, "signals of this channel leave the kernel");
                    });
                }
            }
            Job::Drop(device) => drop(device),
        }
    }

    fn is_in_job(&self) -> bool {
        IN_JOB.get()
    }

    fn start_helper(&self) -> bool {
        self.spawn("bus", (), |bus, ()| bus.pump.help(bus)).is_ok()
    }
}

/// Marks this thread as one that calls a device, until it is dropped. The device must not be called again meanwhile.
struct InJob(bool);

impl InJob {
    fn begin() -> Self {
        Self(IN_JOB.replace(true))
    }
}

impl Drop for InJob {
    fn drop(&mut self) {
        IN_JOB.set(self.0);
    }
}

impl BusLink {
    pub(crate) fn closed(&self, key: ChannelKey, serial: u64) {
        self.push(Event::Closed { key, serial });
    }

    pub(crate) fn subchannels(&self, key: ChannelKey, serial: u64) {
        self.push(Event::Subchannels { key, serial });
    }

    fn push(&self, event: Event) {
        // Without a bus nothing is left to tell.
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
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(loom)))]
mod tests;
