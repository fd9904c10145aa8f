//! The measured animations.

use guest_report::animation::Scene;

use super::viewer::{RAW, ZRLE};

/// An animation, and the encoding of the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) scene: Scene,
    pub(super) encoding: i32,
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
            for scene in [Scene::Scroll, Scene::Window, Scene::Key] {
                cases.push(Case { scene, encoding, frames });
            }
        }
        cases
    }

    /// Returns the name, such as `scroll_zrle`.
    pub(super) fn name(&self) -> String {
        let scene = match self.scene {
            Scene::Scroll => "scroll",
            Scene::Window => "window",
            Scene::Key => "key",
        };
        let encoding = if self.encoding == RAW { "raw" } else { "zrle" };
        format!("{scene}_{encoding}")
    }
}
