//! The owners of the sub-allocations.

use std::ops::Range;

use super::super::limits::CONTROL_SUB_ALLOCATIONS;
use super::geometry::Geometry;
use super::transaction::TransactionId;

/// An owner of sub-allocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Control messages, which the primary channel sends.
    Control,
    /// Frames of the channel with this index, 0 for the primary.
    Channel(u16),
}

/// The division of a receive buffer among its owners: the first 16 sub-allocations are for control
/// messages (half of a smaller buffer), and each channel has an equal part of the others.
///
/// Ownership follows from the index alone, so the channel on which a completion arrives finds the
/// owner without shared state. To change the number of channels, make a new partition while every
/// share of a channel is [idle](super::Share::is_idle); the share of control messages stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    count: u32,
    channels: u16,
}

impl Partition {
    /// Divides the sub-allocations of `geometry` among `channels` channels, at least one.
    pub fn new(geometry: Geometry, channels: u16) -> Self {
        Self { count: geometry.count(), channels: channels.max(1) }
    }

    /// Returns the indices of an owner's sub-allocations: empty for an unknown channel, and for
    /// channels of a buffer that is too small.
    pub fn indices(self, owner: Owner) -> Range<u32> {
        let control = self.control();
        match owner {
            Owner::Control => 0..control,
            Owner::Channel(channel) if channel < self.channels => {
                let start = control + u32::from(channel) * self.part();
                start..start + self.part()
            }
            Owner::Channel(_) => 0..0,
        }
    }

    /// Returns the owner of sub-allocation `index`. `None`: it has none.
    pub fn owner(self, index: u32) -> Option<Owner> {
        let Some(index) = index.checked_sub(self.control()) else { return Some(Owner::Control) };
        let channel = u16::try_from(index.checked_div(self.part())?).ok()?;
        (channel < self.channels).then_some(Owner::Channel(channel))
    }

    /// Returns the owner of the packet with this transaction id, if it can be one. The owner's
    /// [`Share::complete`](super::Share::complete) decides whether the packet exists.
    pub fn owner_of(self, transaction: u64) -> Option<Owner> {
        TransactionId::from_word(transaction).and_then(|id| self.owner(id.index()))
    }

    fn control(self) -> u32 {
        CONTROL_SUB_ALLOCATIONS.min(self.count.div_ceil(2))
    }

    fn part(self) -> u32 {
        (self.count - self.control()) / u32::from(self.channels)
    }
}
