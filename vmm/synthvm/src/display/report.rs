//! The display's part of the machine's report.

use serde::{Deserialize, Serialize};
use synthvm_display::ServerReport;
use synthvm_input::{Input, InputCounters};
use synthvm_video::VideoDevice;

use super::ScreenSize;

/// The display.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DisplayReport {
    /// The size of the picture. `None`: the guest shows none.
    pub size: Option<ScreenSize>,
    /// Messages of the guest with changed rectangles.
    pub updates: u64,
    /// Changed rectangles on the screen.
    pub rectangles: u64,
    /// Changes of the mode.
    pub modes: u64,
    /// Shapes of the pointer.
    pub shapes: u64,
    /// Messages, addresses and modes that the video device refused.
    pub refused: u64,
    /// The keyboard.
    pub keyboard: InputReport,
    /// The mouse.
    pub mouse: InputReport,
    /// The display server.
    pub server: ServerReport,
}

/// A keyboard or a mouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InputReport {
    /// Whether the guest's driver has connected.
    pub connected: bool,
    /// Events that the guest got.
    pub sent: u64,
    /// Events that the guest did not get: it was not connected, or the queue was full.
    pub dropped: u64,
    /// Positions of the pointer that a later one replaced before the guest took them.
    pub replaced: u64,
    /// Messages of the guest that were refused.
    pub refused: u64,
}

impl DisplayReport {
    pub(super) fn new(video: &VideoDevice, input: &Input, server: ServerReport) -> Self {
        let counters = video.counters();
        let mode = video.screen().frame().map(|frame| frame.mode());
        Self {
            size: mode.map(|mode| ScreenSize { width: mode.width(), height: mode.height() }),
            updates: counters.updates,
            rectangles: counters.rectangles,
            modes: counters.modes,
            shapes: counters.shapes,
            refused: counters.refused,
            keyboard: InputReport::new(input.has_keyboard(), input.keyboard_counters()),
            mouse: InputReport::new(input.has_pointer(), input.mouse_counters()),
            server,
        }
    }
}

impl InputReport {
    fn new(connected: bool, counters: InputCounters) -> Self {
        let InputCounters { sent, dropped, replaced, refused, .. } = counters;
        Self { connected, sent, dropped, replaced, refused }
    }
}
