//! The measured animations.

use guest_report::animation::Scene;

use super::viewer::{RAW, ZRLE};

/// An animation, and the encoding of the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) scene: Scene,
    pub(super) encoding: i32,
    /// Whether the viewer announces CopyRect.
    pub(super) copies: bool,
    /// Number of frames.
    pub(super) frames: u16,
}

/// Shortest time from one frame to the next: 30 frames a second.
pub(super) const INTERVAL_US: u64 = 33_333;

/// Frames of an animation: of a whole run, and for `--quick`.
const FRAMES: [u16; 2] = [90, 30];

impl Case {
    /// Returns all cases, in the order of measurement.
    pub(super) fn all(quick: bool) -> Vec<Case> {
        let frames = FRAMES[usize::from(quick)];
        let mut cases = Vec::new();
        for encoding in [ZRLE, RAW] {
            for (scene, copies) in [
                (Scene::Scroll, false),
                (Scene::Scroll, true),
                (Scene::Window, false),
                (Scene::Key, false),
            ] {
                cases.push(Case { scene, encoding, copies, frames });
            }
        }
        cases
    }

    /// Returns the name, such as `scroll_zrle`, and `scroll_zrle_copy` with CopyRect.
    pub(super) fn name(&self) -> String {
        let scene = match self.scene {
            Scene::Scroll => "scroll",
            Scene::Window => "window",
            Scene::Key => "key",
        };
        let encoding = if self.encoding == RAW { "raw" } else { "zrle" };
        let copies = if self.copies { "_copy" } else { "" };
        format!("{scene}_{encoding}{copies}")
    }
}
