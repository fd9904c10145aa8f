//! Bounded queues from the sink to the devices, and what happens when they are full.

use std::collections::{BTreeSet, VecDeque};

use crate::keys::{Key, KeyEvent};
use crate::protocol::keyboard::Leds;
use crate::protocol::mouse::{Buttons, Report};

/// Maximum number of key events that wait for the guest. Releases of keys whose press was taken
/// may exceed it, so that no key stays pressed.
pub const MAX_KEYS: usize = 4096;

/// Maximum number of keys that are pressed at once: more than a keyboard has.
const MAX_PRESSED: usize = 256;

/// Maximum number of reports that wait for the guest.
const MAX_REPORTS: usize = 64;

/// The key events that wait for the guest.
#[derive(Debug, Default)]
pub struct KeyQueue {
    events: VecDeque<KeyEvent>,
    /// Keys whose last taken event is a press.
    pressed: BTreeSet<Key>,
    /// The LEDs that the guest has set. `None`: it has set none.
    pub(crate) leds: Option<Leds>,
}

impl KeyQueue {
    /// Adds an event, and returns whether it was taken. A full queue takes no press. A release is
    /// taken if the press of its key was.
    pub(crate) fn push(&mut self, event: KeyEvent) -> bool {
        let is_taken = match event.is_pressed {
            true => self.events.len() < MAX_KEYS && self.press(event.key),
            false => self.pressed.remove(&event.key),
        };
        if is_taken {
            self.events.push_back(event);
        }
        is_taken
    }

    /// Returns whether the queue has space for `count` events.
    pub(crate) fn has_space(&self, count: usize) -> bool {
        count <= MAX_KEYS.saturating_sub(self.events.len())
    }

    /// Adds the release of each pressed key. Returns whether there was one.
    pub(crate) fn release_all(&mut self) -> bool {
        let pressed = std::mem::take(&mut self.pressed);
        let release = |key| KeyEvent { key, is_pressed: false };
        self.events.extend(pressed.iter().copied().map(release));
        !pressed.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<KeyEvent> {
        self.events.pop_front()
    }

    fn press(&mut self, key: Key) -> bool {
        let is_taken = self.pressed.len() < MAX_PRESSED || self.pressed.contains(&key);
        if is_taken {
            self.pressed.insert(key);
        }
        is_taken
    }
}

/// The reports of the pointer that wait for the guest.
#[derive(Debug, Default)]
pub struct ReportQueue {
    reports: VecDeque<Report>,
    /// The buttons of the last report.
    buttons: Buttons,
}

impl ReportQueue {
    /// Adds a report, and returns whether it replaced one that the guest has not seen. A report
    /// replaces the newest one if only the position differs. In a full queue it replaces it in any
    /// case: clicks may be lost, but never the last position and buttons. Steps of the wheel are
    /// added up.
    pub(crate) fn push(&mut self, mut report: Report) -> bool {
        let is_full = self.reports.len() >= MAX_REPORTS;
        let is_motion = report.buttons == self.buttons && report.wheel == 0;
        self.buttons = report.buttons;
        match self.reports.back_mut() {
            Some(last) if is_full || (is_motion && last.wheel == 0) => {
                report.wheel = report.wheel.saturating_add(last.wheel).max(-i16::MAX);
                *last = report;
                true
            }
            _ => {
                self.reports.push_back(report);
                false
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(code: u8, is_pressed: bool) -> KeyEvent {
        KeyEvent { key: Key::from_xt(code), is_pressed }
    }

    #[test]
    fn test_full_key_queue_takes_no_press_but_the_releases_of_taken_ones() {
        let mut queue = KeyQueue::default();
        assert!(queue.push(event(1, true)));
        while queue.push(event(2, true)) {}
        assert_eq!(queue.events.len(), MAX_KEYS);
        assert!(!queue.push(event(3, true)));
        assert!(!queue.push(event(3, false)), "its press was not taken");
        assert!(queue.push(event(1, false)));
        assert!(queue.push(event(2, false)));
        assert!(!queue.push(event(2, false)));
        assert_eq!(queue.events.len(), MAX_KEYS + 2);
        assert!(!queue.has_space(1));
    }

    #[test]
    fn test_pressed_keys_are_limited() {
        let mut queue = KeyQueue::default();
        let unicode = |unit| KeyEvent { key: Key::Unicode(unit), is_pressed: true };
        let taken = (0..1000).filter(|unit| queue.push(unicode(*unit))).count();
        assert_eq!(taken, MAX_PRESSED);
        assert!(queue.push(unicode(0)), "the repetition of a pressed key");
        assert!(queue.release_all());
        assert!(!queue.release_all());
        assert_eq!(queue.events.len(), 2 * MAX_PRESSED + 1);
    }

    fn report(buttons: Buttons, x: u16, wheel: i16) -> Report {
        Report { buttons, x, y: 0, wheel }
    }

    #[test]
    fn test_motion_replaces_motion_but_no_click() {
        let mut queue = ReportQueue::default();
        let none = Buttons::empty();
        assert!(!queue.push(report(none, 1, 0)));
        assert!(queue.push(report(none, 2, 0)));
        assert!(!queue.push(report(Buttons::LEFT, 3, 0)));
        assert!(queue.push(report(Buttons::LEFT, 4, 0)));
        assert!(!queue.push(report(none, 4, 0)));
        assert!(!queue.push(report(none, 4, 1)));
        assert!(!queue.push(report(none, 5, 0)), "a wheel's step is not repeated");
        let positions: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|one| one.x).collect();
        assert_eq!(positions, [2, 4, 4, 4, 5]);
    }

    #[test]
    fn test_full_report_queue_keeps_the_last_state_and_adds_up_the_wheel() {
        let mut queue = ReportQueue::default();
        for step in 0..1000 {
            let buttons = if step % 2 == 0 { Buttons::LEFT } else { Buttons::empty() };
            queue.push(report(buttons, step, -100));
        }
        assert_eq!(queue.reports.len(), MAX_REPORTS);
        assert_eq!(queue.reports.back(), Some(&report(Buttons::empty(), 999, -i16::MAX)));
    }
}
