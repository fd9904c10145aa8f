//! The thread's part that reads the screen, and tells viewers of changes.

use std::time::{Duration, Instant};

use synthvm_video::Changes;
use synthvm_video::protocol::Rectangle;

use super::EventLoop;

/// The shortest time between two readings of the screen: guests draw more often than viewers show.
const REFRESH_INTERVAL: Duration = Duration::from_millis(16);

/// The time between two readings of the screen of a guest that does not report what it draws, as
/// firmware does not.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl EventLoop {
    pub(super) fn refresh_if_due(&mut self) {
        let now = Instant::now();
        if !self.is_update_wanted() || self.next_refresh > now {
            return;
        }
        if self.must_poll() && self.next_poll() <= now {
            self.read_frame(None);
        }
        self.refresh();
    }

    /// Reads the changes of the screen, if there are any.
    pub(super) fn refresh(&mut self) {
        let changes = self.watch.take();
        if changes == Changes::default() {
            return;
        }
        let visible = changes.is_shape_changed || changes.is_pointer_moved;
        for (number, registered) in &mut self.viewers {
            let Some(running) = registered.viewer.running() else { continue };
            if visible {
                running.change_shape();
            }
            if changes.is_pointer_moved && self.mover != Some(*number) {
                running.move_pointer();
            }
        }
        if changes.is_mode_changed {
            self.has_reports = false;
        } else {
            self.has_reports |= !changes.region.rectangles().is_empty();
        }
        if changes.is_mode_changed || !changes.region.rectangles().is_empty() {
            self.read_frame(Some(changes.region.rectangles()));
        }
    }

    /// Copies rectangles of the screen, or all of it.
    fn read_frame(&mut self, rectangles: Option<&[Rectangle]>) {
        let counters = &self.setup.mailbox.counters;
        counters.refreshes.add(1);
        let frame = self.setup.screen.frame();
        let size = frame.as_ref().and_then(|frame| {
            let mode = frame.mode();
            Some((u16::try_from(mode.width()).ok()?, u16::try_from(mode.height()).ok()?))
        });
        let known = (self.canvas.width(), self.canvas.height());
        let is_other = size.is_none_or(|size| size != known);
        if is_other {
            let (width, height) = size.unwrap_or(known);
            self.canvas.reset(width, height);
            self.cache.clear();
            for running in self.viewers.values_mut().filter_map(|one| one.viewer.running()) {
                running.resize(width, height);
            }
        }
        if let (Some(frame), Some((width, height))) = (frame, size) {
            let (right, bottom) = (u32::from(width), u32::from(height));
            let all = [Rectangle { left: 0, top: 0, right, bottom }];
            let rectangles = rectangles.filter(|_| !is_other).unwrap_or(&all);
            let mut viewers: Vec<_> =
                self.viewers.values_mut().filter_map(|one| one.viewer.running()).collect();
            let size = (width, height);
            let finds_moves = !is_other && viewers.iter().any(|one| one.follows_moves(size));
            let refreshed = self.canvas.refresh(&frame, rectangles, finds_moves);
            counters.compared_segments.add(refreshed.compared);
            counters.changed_segments.add(refreshed.changed.count());
            viewers.iter_mut().for_each(|running| running.add_changes(&refreshed, size));
        }
        self.next_refresh = Instant::now() + REFRESH_INTERVAL;
    }

    pub(super) fn is_update_wanted(&self) -> bool {
        self.viewers.values().any(|one| one.viewer.wants_update())
    }

    /// Returns whether the screen must be read without reports of the guest.
    pub(super) fn must_poll(&self) -> bool {
        !self.has_reports && self.setup.screen.frame().is_some()
    }

    pub(super) fn next_poll(&self) -> Instant {
        self.next_refresh + (POLL_INTERVAL - REFRESH_INTERVAL)
    }
}
