//! The packet filter: frames that the guest wants (netvsc sections 5.2 and 7.6).

use super::address::MacAddress;
use super::limits::MAX_MULTICAST;

/// Kinds of frames that the guest wants: the word of GEN_CURRENT_PACKET_FILTER. 0 stops reception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFilter(pub u32);

impl PacketFilter {
    /// Frames to the card's address.
    pub const DIRECTED: Self = Self(1);
    /// Frames to the group addresses of the multicast list.
    pub const MULTICAST: Self = Self(2);
    /// Frames to any group address but the broadcast address.
    pub const ALL_MULTICAST: Self = Self(4);
    /// Frames to the broadcast address.
    pub const BROADCAST: Self = Self(8);
    /// All frames.
    pub const PROMISCUOUS: Self = Self(0x20);

    /// Returns true if one of the kinds of `other` is wanted.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Decides for each frame whether the guest receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveFilter {
    /// Kinds of frames.
    pub kinds: PacketFilter,
    /// The card's permanent address. It stays valid when the guest sets another: after Linux
    /// opens the channel again, either may be in use.
    pub permanent: MacAddress,
    /// The card's current address.
    pub current: MacAddress,
    /// Group addresses for [`PacketFilter::MULTICAST`].
    pub multicast: MulticastList,
}

impl ReceiveFilter {
    /// Creates the filter of a card that receives nothing yet.
    pub fn new(permanent: MacAddress, current: MacAddress) -> Self {
        Self {
            kinds: PacketFilter::default(),
            permanent,
            current,
            multicast: MulticastList::default(),
        }
    }

    /// Returns true if the guest receives frames to `destination`, the first 6 bytes of a frame.
    #[inline]
    pub fn accepts(&self, destination: MacAddress) -> bool {
        if self.kinds.intersects(PacketFilter::PROMISCUOUS) {
            return true;
        }
        let wanted = |kind| self.kinds.intersects(kind);
        if !destination.is_group() {
            return wanted(PacketFilter::DIRECTED)
                && (destination == self.current || destination == self.permanent);
        }
        if destination == MacAddress::BROADCAST {
            return wanted(PacketFilter::BROADCAST);
        }
        wanted(PacketFilter::ALL_MULTICAST)
            || (wanted(PacketFilter::MULTICAST) && self.multicast.contains(destination))
    }
}

/// The guest's list of group addresses, at most 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MulticastList {
    addresses: [MacAddress; MAX_MULTICAST],
    count: u8,
}

impl MulticastList {
    /// Reads a list of 6-byte addresses, as SET of 802_3_MULTICAST_LIST has them. `None`: the
    /// length is no multiple of 6, or there are more than 32.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (addresses, rest) = data.as_chunks::<6>();
        let mut list = Self { count: u8::try_from(addresses.len()).ok()?, ..Self::default() };
        let target = list.addresses.get_mut(..addresses.len())?;
        for (target, address) in target.iter_mut().zip(addresses) {
            *target = MacAddress(*address);
        }
        rest.is_empty().then_some(list)
    }

    /// Returns the addresses.
    pub fn addresses(&self) -> &[MacAddress] {
        &self.addresses[..self.count.into()]
    }

    fn contains(&self, address: MacAddress) -> bool {
        self.addresses().contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERMANENT: MacAddress = MacAddress([0x00, 0x15, 0x5D, 1, 2, 3]);
    const CURRENT: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 9]);
    const STRANGER: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 10]);
    const LISTED: MacAddress = MacAddress([0x01, 0x00, 0x5E, 0, 0, 1]);
    const UNLISTED: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);

    /// The answers for current, permanent, strange, listed, unlisted and broadcast addresses.
    fn answers(kinds: u32) -> [bool; 6] {
        let mut filter = ReceiveFilter::new(PERMANENT, CURRENT);
        filter.kinds = PacketFilter(kinds);
        filter.multicast = MulticastList::parse(&LISTED.0).unwrap();
        [CURRENT, PERMANENT, STRANGER, LISTED, UNLISTED, MacAddress::BROADCAST]
            .map(|address| filter.accepts(address))
    }

    /// Checklist 24.
    #[test]
    fn test_filter_of_each_kind_accepts_only_its_frames() {
        let [y, n] = [true, false];
        assert_eq!(answers(0), [n; 6]);
        assert_eq!(answers(1), [y, y, n, n, n, n]);
        assert_eq!(answers(2), [n, n, n, y, n, n]);
        assert_eq!(answers(4), [n, n, n, y, y, n]);
        assert_eq!(answers(8), [n, n, n, n, n, y]);
        assert_eq!(answers(0xD), [y, y, n, y, y, y]);
        assert_eq!(answers(0xB), [y, y, n, y, n, y]);
        assert_eq!(answers(0x20), [y; 6]);
        assert_eq!(answers(!0x2F), [n; 6]);
    }

    #[test]
    fn test_multicast_list_of_wrong_length_is_none() {
        for length in [1, 5, 7, 33 * 6, 256 * 6, 300 * 6 + 1] {
            assert_eq!(MulticastList::parse(&vec![1; length]), None);
        }
        for count in [0, 1, 32] {
            let list = MulticastList::parse(&vec![1; count * 6]).unwrap();
            assert_eq!(list.addresses().len(), count);
        }
    }

    #[test]
    fn test_address_kinds_are_distinguished() {
        assert!(CURRENT.is_station() && PERMANENT.is_station());
        assert!(!MacAddress::default().is_station());
        assert!(!MacAddress::BROADCAST.is_station() && LISTED.is_group());
        assert_eq!(PERMANENT.to_string(), "00:15:5d:01:02:03");
    }
}
