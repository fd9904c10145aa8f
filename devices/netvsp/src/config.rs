//! The settings of a card that all of its channels use, as one immutable value.

use std::fmt;
use std::sync::Arc;

use vmbus_gpadl::GpadlView;

use crate::protocol::limits::DEFAULT_MAX_FRAME;
use crate::protocol::nvsp::{NvspVersion, SendBuffer};
use crate::protocol::oid::Settings;
use crate::protocol::sub_allocations::{Geometry, Partition, SubAllocation};

/// Settings of a card. The primary channel publishes a new value with each change, and every
/// channel takes it at the start of a round. The default is that of a card without connection: no
/// frame passes.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The negotiated version. `None` before INIT.
    pub(crate) version: Option<NvspVersion>,
    /// Longest frame of the guest, in bytes with the Ethernet header: as it has configured, or less
    /// if the backend takes only less.
    pub(crate) max_frame: u32,
    /// Longest frame to the guest, in bytes with the Ethernet header, unless it is coalesced.
    pub(crate) max_receive_frame: u32,
    /// Most frames in one packet to the guest.
    pub(crate) max_ranges: usize,
    /// Channels in use, the primary channel included.
    pub(crate) channels: u16,
    /// Channels that read frames from the backend: all, or the primary channel for all.
    pub(crate) readers: u16,
    /// The send buffer.
    pub(crate) send_buffer: Option<(SendBuffer, GpadlView)>,
    /// The receive buffer. Another `Arc` means that nothing of the old one is in use.
    pub(crate) receive_buffer: Option<Arc<ReceiveBuffer>>,
    /// The values that the guest has set. `None` before INITIALIZE.
    pub(crate) settings: Option<Arc<Settings>>,
    /// Received TCP segments may be coalesced.
    pub(crate) coalesces: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: None,
            max_frame: DEFAULT_MAX_FRAME,
            max_receive_frame: DEFAULT_MAX_FRAME,
            max_ranges: 1,
            channels: 1,
            readers: 1,
            send_buffer: None,
            receive_buffer: None,
            settings: None,
            coalesces: false,
        }
    }
}

impl Config {
    /// Returns the values for received frames, if the guest wants any frame.
    #[inline]
    pub(crate) fn receive_settings(&self) -> Option<&Settings> {
        self.settings.as_deref().filter(|settings| settings.filter.kinds.0 != 0)
    }
}

/// An accepted receive buffer.
pub(crate) struct ReceiveBuffer {
    /// The guest's number for the buffer.
    pub(crate) id: u16,
    pub(crate) geometry: Geometry,
    pub(crate) partition: Partition,
    pub(crate) view: GpadlView,
}

impl ReceiveBuffer {
    /// Returns the offset of a sub-allocation in the buffer.
    #[inline]
    pub(crate) fn offset(&self, sub_allocation: SubAllocation) -> u32 {
        // Every index of a share is one of the geometry's.
        self.geometry.offset(sub_allocation.index()).unwrap_or(0)
    }
}

impl fmt::Debug for ReceiveBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveBuffer")
            .field("id", &self.id)
            .field("geometry", &self.geometry)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}
