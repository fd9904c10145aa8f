//! VLAN tags, which travel beside frames (netvsc section 4.1).

/// A VLAN tag. The id may be 0: a tag that carries only a priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vlan {
    /// Priority, 0..=7.
    pub priority: u8,
    /// Drop-eligible indicator.
    pub drop_eligible: bool,
    /// VLAN id, 0..=4095.
    pub id: u16,
}

impl Vlan {
    /// EtherType of a tag.
    const ETHER_TYPE: u16 = 0x8100;

    /// Returns the 4 bytes of the tag that a tagged frame has at offset 12, in network byte order.
    pub fn to_tag(self) -> [u8; 4] {
        let control = (u16::from(self.priority & 7) << 13)
            | (u16::from(self.drop_eligible) << 12)
            | (self.id & 0xFFF);
        let [kind, control] = [Self::ETHER_TYPE, control].map(u16::to_be_bytes);
        [kind[0], kind[1], control[0], control[1]]
    }

    /// Reads the 4 bytes at offset 12 of a frame. `None`: the frame has no tag.
    pub fn from_tag(tag: [u8; 4]) -> Option<Self> {
        let [kind, control] = [[tag[0], tag[1]], [tag[2], tag[3]]].map(u16::from_be_bytes);
        (kind == Self::ETHER_TYPE).then_some(Self {
            priority: (control >> 13) as u8,
            drop_eligible: control & 0x1000 != 0,
            id: control & 0xFFF,
        })
    }

    /// Returns the word of the per-packet information.
    pub(super) fn to_word(self) -> u32 {
        u32::from(self.priority & 7)
            | (u32::from(self.drop_eligible) << 3)
            | (u32::from(self.id & 0xFFF) << 4)
    }

    /// Reads the word of the per-packet information.
    pub(super) fn from_word(word: u32) -> Self {
        Self {
            priority: (word & 7) as u8,
            drop_eligible: word & 8 != 0,
            id: ((word >> 4) & 0xFFF) as u16,
        }
    }
}
