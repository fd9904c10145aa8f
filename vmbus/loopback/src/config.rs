//! The configuration of a loopback VM.

use std::time::Duration;

use crate::memory::Layout;

/// The threads that run the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only the caller's thread: devices run in [`LoopbackVm::step`](crate::LoopbackVm::step),
    /// which the client calls when it waits. The same calls give the same events in the same order,
    /// and a wait that cannot end returns immediately instead of hanging.
    Stepped,
    /// A thread for each channel. The client sleeps until an event arrives.
    Threaded,
}

/// The configuration of a VM.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The threads that run the devices.
    pub mode: Mode,
    /// The regions of RAM: (guest address, bytes).
    pub regions: Vec<(u64, usize)>,
    /// The number of virtual processors.
    pub vp_count: u32,
    /// The positions of ring buffers' pages in guest memory.
    pub ring_layout: Layout,
    /// The time that a threaded client waits for any event before its call fails. It only guards
    /// against tests that hang.
    pub timeout: Duration,
}

impl Config {
    /// Returns 256 MiB of RAM in one region (only accessed pages use memory), 2 VPs, and contiguous
    /// rings.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            regions: vec![(0, 256 << 20)],
            vp_count: 2,
            ring_layout: Layout::Contiguous,
            timeout: Duration::from_secs(60),
        }
    }

    /// Sets the regions of RAM: (guest address, bytes), in whole pages.
    #[must_use]
    pub fn regions(mut self, regions: impl IntoIterator<Item = (u64, usize)>) -> Self {
        self.regions = regions.into_iter().collect();
        self
    }

    /// Sets the number of virtual processors.
    #[must_use]
    pub fn vp_count(mut self, vp_count: u32) -> Self {
        self.vp_count = vp_count;
        self
    }

    /// Sets the positions of ring buffers' pages.
    #[must_use]
    pub fn ring_layout(mut self, ring_layout: Layout) -> Self {
        self.ring_layout = ring_layout;
        self
    }

    /// Sets the timeout of a threaded client.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
