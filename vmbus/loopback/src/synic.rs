//! A synthetic interrupt controller in plain memory: message queues, event flags, doorbells.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmbus_client::platform::HostBytes;
use vmbus_host::{HvStatus, QueuedMessage, Signal, Synic};
use vmbus_protocol::offer::{SINT_COUNT, VMBUS_SINT};
use vmm_sys_util::eventfd::EventFd;

/// The number of SINTs of one VP.
const SINTS: usize = SINT_COUNT as usize;
/// 64-bit words that hold the 2,048 event flags of one SINT.
const FLAG_WORDS: usize = 32;

/// A [`Synic`] over plain memory.
#[derive(Debug)]
pub struct LoopbackSynic {
    vps: Vec<Vp>,
    doorbells: Mutex<BTreeMap<u32, EventFd>>,
    /// Locked while an event is announced, so that no thread can check for events, find none and
    /// sleep in between.
    signal_lock: Mutex<()>,
    signalled: Condvar,
    raised: AtomicU64,
    spared: AtomicU64,
}

#[derive(Debug)]
struct Vp {
    enabled: AtomicBool,
    messages: [Mutex<VecDeque<HostBytes>>; SINTS],
    flags: [[AtomicU64; FLAG_WORDS]; SINTS],
    /// (SINT, flag) of signals that arrived while the SynIC was off. `enabled` changes under this
    /// lock.
    remembered: Mutex<BTreeSet<(u8, u16)>>,
}

impl Vp {
    /// Sets a flag. Returns whether it was already set. `None`: there is no such flag.
    fn set_flag(&self, sint: u8, flag: u16) -> Option<bool> {
        let (word, bit) = place(flag);
        let word = self.flags.get(usize::from(sint))?.get(word)?;
        Some(word.fetch_or(bit, Ordering::AcqRel) & bit != 0)
    }
}

impl LoopbackSynic {
    pub(crate) fn new(vp_count: u32) -> Self {
        let vps = (0..vp_count).map(|_| Vp {
            enabled: AtomicBool::new(true),
            messages: Default::default(),
            flags: [const { [const { AtomicU64::new(0) }; FLAG_WORDS] }; SINTS],
            remembered: Mutex::default(),
        });
        Self {
            vps: vps.collect(),
            doorbells: Mutex::default(),
            signal_lock: Mutex::default(),
            signalled: Condvar::new(),
            raised: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        }
    }

    /// Turns the SynIC of `vp` on or off. While it is off, messages and event flags wait. All are
    /// on at the start.
    ///
    /// # Panics
    /// There is no such VP.
    pub fn set_enabled(&self, vp: u32, enabled: bool) {
        let vp = &self.vps[vp as usize];
        let mut remembered = lock(&vp.remembered);
        vp.enabled.store(enabled, Ordering::Release);
        if enabled {
            for (sint, flag) in std::mem::take(&mut *remembered) {
                if vp.set_flag(sint, flag) == Some(false) {
                    self.raised.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        drop(remembered);
        self.announce();
    }

    /// Returns the number of interrupts that event flags raised, and of those that were not needed
    /// because the flag was still set.
    #[must_use]
    pub fn interrupts(&self) -> (u64, u64) {
        (self.raised.load(Ordering::Relaxed), self.spared.load(Ordering::Relaxed))
    }

    /// Removes and returns the next message in the slot of (`vp`, `sint`).
    #[must_use]
    pub fn take_message(&self, vp: u32, sint: u8) -> Option<HostBytes> {
        let vp = self.vps.get(vp as usize).filter(|vp| vp.enabled.load(Ordering::Acquire))?;
        lock(vp.messages.get(usize::from(sint))?).pop_front()
    }

    /// Removes and returns the next VMBus message (SINT 2) of any VP, lowest VP first.
    #[must_use]
    pub fn take_any_message(&self) -> Option<HostBytes> {
        (0..self.vp_count()).find_map(|vp| self.take_message(vp, VMBUS_SINT))
    }

    /// Returns whether event flag `flag` of SINT 2 of `vp` is set, without clearing it.
    #[must_use]
    pub fn event_is_set(&self, vp: u32, flag: u16) -> bool {
        let (word, bit) = place(flag);
        self.vps.get(vp as usize).is_some_and(|vp| {
            vp.flags[usize::from(VMBUS_SINT)][word].load(Ordering::Acquire) & bit != 0
        })
    }

    /// Clears one event flag of SINT 2 on all VPs. Returns whether it was set.
    #[must_use]
    pub fn take_event(&self, flag: u16) -> bool {
        let (word, bit) = place(flag);
        self.vps.iter().fold(false, |any, vp| {
            let before = vp.flags[usize::from(VMBUS_SINT)][word].fetch_and(!bit, Ordering::AcqRel);
            any | (before & bit != 0)
        })
    }

    /// Clears all event flags of SINT 2 on all VPs, and passes those that were set to `sink`.
    pub fn take_events(&self, sink: &mut dyn FnMut(u16)) {
        for vp in &self.vps {
            for (word, flags) in vp.flags[usize::from(VMBUS_SINT)].iter().enumerate() {
                if flags.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                let mut set = flags.swap(0, Ordering::AcqRel);
                while set != 0 {
                    let bit = set.trailing_zeros();
                    set &= set - 1;
                    sink((word as u32 * 64 + bit) as u16);
                }
            }
        }
    }

    /// Executes HvSignalEvent like the kernel: signals the doorbell of the id.
    #[must_use]
    pub fn signal(&self, connection_id: u32) -> HvStatus {
        match lock(&self.doorbells).get(&connection_id) {
            Some(doorbell) => {
                // The write fails only when the counter is full, and then the doorbell is readable
                // anyway.
                let _ = doorbell.write(1);
                HvStatus::Success
            }
            None => HvStatus::InvalidConnectionId,
        }
    }

    /// Returns the connection ids that have a doorbell.
    #[must_use]
    pub fn doorbells(&self) -> Vec<u32> {
        lock(&self.doorbells).keys().copied().collect()
    }

    /// Returns whether a message can be taken or an event flag is set.
    #[must_use]
    pub fn has_something(&self) -> bool {
        self.vps.iter().any(|vp| {
            let sint = usize::from(VMBUS_SINT);
            (vp.enabled.load(Ordering::Acquire) && !lock(&vp.messages[sint]).is_empty())
                || vp.flags[sint].iter().any(|flags| flags.load(Ordering::Acquire) != 0)
        })
    }

    /// Waits until [`LoopbackSynic::has_something`]. Returns false after `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = lock(&self.signal_lock);
        while !self.has_something() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard =
                self.signalled.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Discards all state of a host's process: waiting messages, and doorbells. Event flags stay,
    /// because they are guest memory.
    pub(crate) fn forget_host(&self) {
        self.discard_messages();
        lock(&self.doorbells).clear();
    }

    fn announce(&self) {
        let _guard = lock(&self.signal_lock);
        self.signalled.notify_all();
    }
}

impl Synic for LoopbackSynic {
    fn vp_count(&self) -> u32 {
        self.vps.len() as u32
    }

    fn post_message(&self, vp: u32, sint: u8, message: &[u8]) {
        let Some(queue) =
            self.vps.get(vp as usize).and_then(|vp| vp.messages.get(usize::from(sint)))
        else {
            return;
        };
        lock(queue).push_back(HostBytes::new(message));
        self.announce();
    }

    fn discard_messages(&self) {
        for queue in self.vps.iter().flat_map(|vp| &vp.messages) {
            lock(queue).clear();
        }
    }

    fn waiting_messages(&self) -> usize {
        self.vps.iter().flat_map(|vp| &vp.messages).map(|queue| lock(queue).len()).sum()
    }

    fn queued_messages(&self) -> Vec<QueuedMessage> {
        let mut queued = Vec::new();
        for (vp, queues) in (0..).zip(&self.vps) {
            for (sint, queue) in (0..).zip(&queues.messages) {
                let bytes = lock(queue)
                    .iter()
                    .map(|message| message.as_bytes().to_vec())
                    .collect::<Vec<_>>();
                queued.extend(bytes.into_iter().map(|message| QueuedMessage { vp, sint, message }));
            }
        }
        queued
    }

    fn signal_event(&self, vp: u32, sint: u8, flag: u16) -> Signal {
        let Some(vp) = self.vps.get(vp as usize) else { return Signal::Disabled };
        if !vp.enabled.load(Ordering::Acquire) {
            let mut remembered = lock(&vp.remembered);
            // Another thread may have switched the SynIC on in the meantime.
            if !vp.enabled.load(Ordering::Acquire) {
                remembered.insert((sint, flag));
                return Signal::Disabled;
            }
        }
        match vp.set_flag(sint, flag) {
            None => Signal::Disabled,
            Some(true) => {
                self.spared.fetch_add(1, Ordering::Relaxed);
                Signal::AlreadySet
            }
            Some(false) => {
                self.raised.fetch_add(1, Ordering::Relaxed);
                self.announce();
                Signal::Raised
            }
        }
    }

    fn forget_signal(&self, vp: u32, sint: u8, flag: u16) {
        if let Some(vp) = self.vps.get(vp as usize) {
            lock(&vp.remembered).remove(&(sint, flag));
        }
    }

    fn bind_doorbell(&self, connection_id: u32, event: &EventFd) -> io::Result<()> {
        let event = event.try_clone()?;
        let mut doorbells = lock(&self.doorbells);
        if doorbells.contains_key(&connection_id) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        doorbells.insert(connection_id, event);
        Ok(())
    }

    fn unbind_doorbell(&self, connection_id: u32, _: &EventFd) {
        lock(&self.doorbells).remove(&connection_id);
    }
}

fn place(flag: u16) -> (usize, u64) {
    (usize::from(flag) / 64, 1 << (flag % 64))
}

/// Locks a mutex, also after a panic: the data behind these locks is consistent between any two
/// statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
