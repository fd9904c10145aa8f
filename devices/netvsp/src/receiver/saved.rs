//! Save and restore of a receiver.

use super::{Destination, Receiver};
use crate::protocol::sub_allocations::{Owner, SavedPacket, Share, TransactionId};
use crate::saved::{RestoreError, SavedFrames};

impl Receiver {
    /// Returns the packets that the guest has not completed.
    pub(crate) fn save(&self) -> Vec<SavedFrames> {
        let frames = |packet: SavedPacket| {
            let channel = self.destination(packet.transaction).map_or(self.index, |of| of.channel);
            SavedFrames { packet, channel }
        };
        self.share.save().into_iter().map(frames).collect()
    }

    /// Returns the new receiver with packets that were saved.
    ///
    /// # Errors
    /// The channel cannot have sent them.
    pub(crate) fn restored(self, saved: &[SavedFrames]) -> Result<Self, RestoreError> {
        let packets: Vec<_> = saved.iter().map(|one| one.packet.clone()).collect();
        let owner = Owner::Channel(self.index);
        let share = Share::restore(self.buffer.partition, owner, &packets)?;
        let channels = self.targets.len() as u16;
        let mut receiver = Self::with_share(self.index, self.buffer, channels, share);
        for SavedFrames { packet, channel } in saved {
            let wrong = RestoreError::Damaged("a packet went to a channel that is not there");
            let target = receiver.targets.get_mut(usize::from(*channel)).ok_or(wrong)?;
            target.outstanding += 1 + packet.members.len() as u32;
            let opening = if *channel == receiver.index { 0 } else { (*channel).into() };
            let place = TransactionId::from_word(packet.transaction)
                .and_then(|id| id.index().checked_sub(receiver.first))
                .and_then(|at| receiver.destinations.get_mut(at as usize));
            if let Some(place) = place {
                *place = Destination { channel: *channel, opening };
            }
        }
        Ok(receiver)
    }
}
