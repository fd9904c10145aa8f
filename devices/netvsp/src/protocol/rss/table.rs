//! The indirection table.

use super::super::limits::INDIRECTION_ENTRIES;
use super::flow::FlowHash;

/// The table from hashes to channels, with 128 entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssTable([u16; INDIRECTION_ENTRIES]);

impl RssTable {
    /// Creates a table from 1 to 128 channel indices; fewer than 128 are repeated. `None`: no
    /// entry, more than 128, or an entry that is not less than `channels`.
    pub fn new(entries: impl ExactSizeIterator<Item = u32> + Clone, channels: u16) -> Option<Self> {
        let is_sound = (1..=INDIRECTION_ENTRIES).contains(&entries.len())
            && entries.clone().all(|entry| entry < u32::from(channels));
        let mut table = [0; INDIRECTION_ENTRIES];
        for (slot, entry) in table.iter_mut().zip(entries.cycle()).take_while(|_| is_sound) {
            *slot = entry as u16;
        }
        is_sound.then_some(Self(table))
    }

    /// Returns the channel for a frame: the primary channel for one without a hash.
    #[inline]
    pub fn channel(&self, hash: Option<FlowHash>) -> u16 {
        hash.map_or(0, |hash| self.0[hash.0 as usize % INDIRECTION_ENTRIES])
    }

    /// Returns the entries.
    pub fn entries(&self) -> &[u16; INDIRECTION_ENTRIES] {
        &self.0
    }
}

impl Default for RssTable {
    /// The table that gives everything to the primary channel.
    fn default() -> Self {
        Self([0; INDIRECTION_ENTRIES])
    }
}
