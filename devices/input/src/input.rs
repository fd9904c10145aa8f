//! The sink to which display servers send input.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmbus_device::WorkerOptions;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::device::{Keyboard, Mouse};
use crate::keys::KeyEvent;
use crate::protocol::keyboard::Leds;
use crate::protocol::mouse::{MAX_COORDINATE, Report};
use crate::queue::{KeyQueue, MAX_KEYS, ReportQueue};

/// The keyboard and the mouse of a guest. Clones are handles to the same devices. No call waits.
#[derive(Clone, Debug)]
pub struct Input {
    keyboard: Arc<Port<KeyQueue>>,
    mouse: Arc<Port<ReportQueue>>,
}

/// The error of input that the guest does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The guest's driver has not connected.
    #[error("the guest has no driver for it yet, or has stopped it")]
    NotConnected,
    /// The guest takes its input too slowly.
    #[error("the guest has not taken the earlier input yet; at most {MAX_KEYS} events wait")]
    Full,
}

/// The counters of a device. They start at 0 with the device and never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputCounters {
    /// Events that the guest got.
    pub sent: u64,
    /// Events that the guest did not get: it was not connected, or the queue was full.
    pub dropped: u64,
    /// Reports of the pointer that a later one replaced.
    pub replaced: u64,
    /// Messages of the guest that were refused.
    pub refused: u64,
}

/// The connection between the sink and a device.
#[derive(Debug)]
pub(crate) struct Port<Q> {
    state: Mutex<PortState<Q>>,
    /// Readable while the guest takes input and events wait.
    event: EventFd,
}

#[derive(Debug, Default)]
pub(crate) struct PortState<Q> {
    pub(crate) queue: Q,
    pub(crate) counters: InputCounters,
    /// The guest takes input.
    is_ready: bool,
}

impl Input {
    /// Returns the sink and its devices, whose channels are served as `workers` says.
    ///
    /// # Errors
    /// The system is out of file descriptors.
    pub fn new(workers: &WorkerOptions) -> io::Result<(Self, Keyboard, Mouse)> {
        let input = Self { keyboard: Arc::new(Port::new()?), mouse: Arc::new(Port::new()?) };
        let keyboard = Keyboard::new(Arc::clone(&input.keyboard), workers.clone());
        let mouse = Mouse::new(Arc::clone(&input.mouse), workers.clone());
        Ok((input, keyboard, mouse))
    }

    /// Presses or releases a key.
    ///
    /// # Errors
    /// The event is dropped. A release is taken even by a full queue, unless its press was dropped.
    pub fn key(&self, event: KeyEvent) -> Result<(), InputError> {
        self.keyboard
            .push(1, |queue| if queue.push(event) { Ok(()) } else { Err(InputError::Full) })
    }

    /// Presses and releases keys, all or none.
    ///
    /// # Errors
    /// All events are dropped.
    pub fn keys(&self, events: &[KeyEvent]) -> Result<(), InputError> {
        self.keyboard.push(events.len(), |queue| {
            if !queue.has_space(events.len()) {
                return Err(InputError::Full);
            }
            for event in events {
                queue.push(*event);
            }
            Ok(())
        })
    }

    /// Releases all pressed keys, when a viewer leaves.
    pub fn release_keys(&self) {
        let _ = self.keyboard.push(0, |queue| {
            queue.release_all();
            Ok(())
        });
    }

    /// Moves the pointer and sets its buttons. Coordinates above
    /// [`MAX_COORDINATE`] are at the edge; [`coordinate`](crate::protocol::mouse::coordinate)
    /// converts pixels.
    ///
    /// # Errors
    /// [`InputError::NotConnected`]: the report is dropped. A full queue keeps the last state.
    pub fn pointer(&self, report: Report) -> Result<(), InputError> {
        let Report { x, y, .. } = report;
        let report = Report { x: x.min(MAX_COORDINATE), y: y.min(MAX_COORDINATE), ..report };
        let mut is_replaced = false;
        self.mouse.push(1, |queue| {
            is_replaced = queue.push(report);
            Ok(())
        })?;
        self.mouse.lock().counters.replaced += u64::from(is_replaced);
        Ok(())
    }

    /// Returns the LEDs that the guest has switched on.
    pub fn leds(&self) -> Leds {
        self.keyboard.lock().queue.leds
    }

    /// Returns whether the guest's keyboard driver has connected.
    pub fn has_keyboard(&self) -> bool {
        self.keyboard.lock().is_ready
    }

    /// Returns whether the guest's mouse driver has connected.
    pub fn has_pointer(&self) -> bool {
        self.mouse.lock().is_ready
    }

    /// Returns the counters of the keyboard.
    pub fn keyboard_counters(&self) -> InputCounters {
        self.keyboard.lock().counters
    }

    /// Returns the counters of the mouse.
    pub fn mouse_counters(&self) -> InputCounters {
        self.mouse.lock().counters
    }
}

impl<Q: Default> Port<Q> {
    fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)? })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PortState<Q>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `count` events to the queue of a guest that takes input.
    fn push(
        &self,
        count: usize,
        push: impl FnOnce(&mut Q) -> Result<(), InputError>,
    ) -> Result<(), InputError> {
        let mut state = self.lock();
        let pushed =
            if state.is_ready { push(&mut state.queue) } else { Err(InputError::NotConnected) };
        match pushed {
            // A write fails only if the counter is full, and then it is readable already.
            Ok(()) => drop(self.event.write(1)),
            Err(_) => state.counters.dropped += count as u64,
        }
        pushed
    }

    /// Notes whether the guest takes input. Events that wait are dropped with the connection.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        let mut state = self.lock();
        if state.is_ready != is_ready {
            state.is_ready = is_ready;
            state.queue = Q::default();
        }
    }

    /// Clears the descriptor. Must be called with the lock that shows the queue to be empty.
    pub(crate) fn clear_event(&self, _empty: &MutexGuard<'_, PortState<Q>>) {
        let _ = self.event.read();
    }

    pub(crate) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
