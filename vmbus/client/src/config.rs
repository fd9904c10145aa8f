//! The configuration of a channel (kmcl.md 3.2).

use alloc::string::String;

use bitflags::bitflags;
use vmbus_protocol::Guid;
use vmbus_protocol::limits::PAGE_SIZE;

bitflags! {
    /// Flags of either end (`VMBUS_CHANNEL_INIT_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ChannelFlags: u32 {
        /// Packets have a pipe header (vmbus-core section 8): payloads keep their exact length.
        const IS_PIPE = 0x1;
    }
}

/// Default maximum number of received packets without completion.
const DEFAULT_QUOTA: u32 = 1 << 16;
/// Default maximum payload bytes of one packet, as on a Linux channel.
const DEFAULT_MAX_PACKET: usize = 4096;
/// Default maximum external data of one packet: bytes and pieces.
const DEFAULT_MAX_EXTERNAL: (u32, u32) = (1 << 20, 32);
/// Number of packets of maximum size that a ring of default size holds.
const DEFAULT_DEPTH: usize = 16;
/// Minimum pages of one ring: a control page and a data page.
pub(crate) const MIN_RING_PAGES: usize = 2;
/// Bytes of a pipe header.
pub(crate) const PIPE_HEADER: usize = 8;

/// The settings of the init calls.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) max_packet: usize,
    /// Maximum bytes and pieces of external data.
    pub(crate) max_external: (u32, u32),
    /// Pages of the host→guest and the guest→host ring, control pages included.
    pub(crate) ring_pages: Option<(usize, usize)>,
    pub(crate) target: Option<(Guid, Option<Guid>)>,
    pub(crate) subchannel: u16,
    pub(crate) target_vp: Option<u32>,
    pub(crate) user_data: [u8; 120],
    pub(crate) flags: ChannelFlags,
    pub(crate) friendly_name: String,
    pub(crate) quota: u32,
    pub(crate) manual: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_packet: DEFAULT_MAX_PACKET,
            max_external: DEFAULT_MAX_EXTERNAL,
            ring_pages: None,
            target: None,
            subchannel: 0,
            target_vp: None,
            user_data: [0; 120],
            flags: ChannelFlags::empty(),
            friendly_name: String::new(),
            quota: DEFAULT_QUOTA,
            manual: false,
        }
    }
}

impl Config {
    /// Pages of the host→guest and the guest→host ring.
    pub(crate) fn ring_pages(&self) -> (usize, usize) {
        self.ring_pages.unwrap_or_else(|| {
            let packet = 24 + PIPE_HEADER + self.max_packet.next_multiple_of(8);
            let (bytes, pieces) = self.max_external;
            // Each piece takes a word for itself and may touch one page more than its bytes fill.
            let external = 8 + (bytes as usize / PAGE_SIZE + 2 * pieces as usize) * 8;
            let pages = |packet: usize| (packet * DEFAULT_DEPTH).div_ceil(PAGE_SIZE) + 1;
            (pages(packet), pages(packet + external))
        })
    }
}
