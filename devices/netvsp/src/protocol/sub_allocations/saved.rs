//! Outstanding packets as plain data, for save and restore.

use super::partition::{Owner, Partition};
use super::share::Share;
use super::transaction::TransactionId;

/// A packet that the guest has not completed, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPacket {
    /// Its transaction id on the ring.
    pub transaction: u64,
    /// Indices of its sub-allocations after the first, which the transaction id names.
    pub members: Vec<u32>,
}

/// A list of saved packets that a share cannot have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saved packet {0:#x} has a sub-allocation of another owner or packet")]
pub struct InvalidShare(pub u64);

impl Share {
    /// Returns the packets that the guest has not completed. Reserved sub-allocations count as
    /// free: their packets have not been sent.
    pub fn save(&self) -> Vec<SavedPacket> {
        self.outstanding()
            .map(|(id, members)| SavedPacket { transaction: id.word(), members })
            .collect()
    }

    /// Recreates the share of `owner` with these packets outstanding and everything else free.
    ///
    /// # Errors
    /// Two packets have the same sub-allocation, or one of them is another owner's.
    pub fn restore(
        partition: Partition,
        owner: Owner,
        packets: &[SavedPacket],
    ) -> Result<Self, InvalidShare> {
        let mut share = Self::new(partition, owner);
        for packet in packets {
            share.restore_packet(packet).ok_or(InvalidShare(packet.transaction))?;
        }
        share.rebuild_free_list();
        Ok(share)
    }

    fn restore_packet(&mut self, packet: &SavedPacket) -> Option<()> {
        let id = TransactionId::from_word(packet.transaction)?;
        self.link_restored(id, &packet.members)
    }
}
