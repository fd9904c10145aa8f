//! Transaction ids of packets to the guest.

/// Transaction id of a transfer-page packet. Not zero; the ids of one share repeat after 2^32
/// packets that begin with the same sub-allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId {
    index: u32,
    generation: u32,
}

impl TransactionId {
    /// Returns the id of use `generation` of a packet that begins with sub-allocation `index`.
    pub(super) fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// Returns the 64-bit number on the ring.
    pub fn word(self) -> u64 {
        (u64::from(self.generation) << 32) | (u64::from(self.index) + 1)
    }

    /// Returns the id with this number. `None`: no packet has it.
    pub fn from_word(word: u64) -> Option<Self> {
        let index = (word as u32).checked_sub(1)?;
        Some(Self { index, generation: (word >> 32) as u32 })
    }

    /// Returns the index of the packet's first sub-allocation.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Returns how many packets began with this sub-allocation before, and one.
    pub(super) fn generation(self) -> u32 {
        self.generation
    }
}
