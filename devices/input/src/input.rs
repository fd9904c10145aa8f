//! The sink to which display servers send input.

use std::io;
use std::sync::Arc;

use vmbus_device::WorkerOptions;

use crate::device::{Keyboard, Mouse};
use crate::keys::KeyEvent;
use crate::port::{InputCounters, InputError, Port};
use crate::protocol::keyboard::Leds;
use crate::protocol::mouse::{MAX_COORDINATE, Report};
use crate::queue::{KeyQueue, ReportQueue};

/// The keyboard and the mouse of a guest. Clones are handles to the same devices. No call waits.
#[derive(Clone, Debug)]
pub struct Input {
    keyboard: Arc<Port<KeyQueue>>,
    mouse: Arc<Port<ReportQueue>>,
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
        self.reported_leds().unwrap_or_default()
    }

    /// Returns the LEDs as the guest has set them. `None`: it has said nothing about them, as
    /// Linux does, and they may be on or off.
    pub fn reported_leds(&self) -> Option<Leds> {
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
