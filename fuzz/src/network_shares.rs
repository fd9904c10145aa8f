//! The sub-allocations of a card's receive buffer: one share for each channel and one for control
//! messages, with a model of their outstanding packets.

use std::collections::BTreeMap;

use synthvm_netvsp::protocol::sub_allocations::{Geometry, Owner, Partition, Share, SubAllocation};

use crate::input::Input;

/// The shares of one receive buffer.
pub(crate) struct Shares {
    geometry: Geometry,
    partition: Partition,
    /// The channels in order, then control messages.
    owners: Vec<Owned>,
}

/// One share and the model of it.
struct Owned {
    owner: Owner,
    share: Share,
    reserved: Vec<SubAllocation>,
    /// Sub-allocations of each outstanding packet.
    outstanding: BTreeMap<u64, u32>,
}

impl Shares {
    pub(crate) fn new(geometry: Geometry, channels: u16) -> Self {
        let partition = Partition::new(geometry, channels);
        let control = Owned::new(partition, Owner::Control);
        let mut shares = Self { geometry, partition, owners: vec![control] };
        shares.divide(channels);
        shares
    }

    /// Divides the buffer among another number of channels, if every channel's share is idle.
    pub(crate) fn try_divide(&mut self, channels: u16) {
        let (_, of_channels) = self.owners.split_last().expect("a share for control messages");
        if of_channels.len() != usize::from(channels) && of_channels.iter().all(Owned::is_idle) {
            self.divide(channels);
        }
    }

    fn divide(&mut self, channels: u16) {
        let control = self.owners.pop().expect("a share for control messages");
        let partition = Partition::new(self.geometry, channels);
        assert_eq!(partition.indices(Owner::Control), self.partition.indices(Owner::Control));
        self.partition = partition;
        self.owners =
            (0..channels).map(|channel| Owned::new(partition, Owner::Channel(channel))).collect();
        self.owners.push(control);
        self.check_division();
    }

    /// Each sub-allocation has one owner at most, and the owner's indices say the same.
    fn check_division(&self) {
        let mut owned: Vec<_> =
            self.owners.iter().map(|owned| self.partition.indices(owned.owner)).collect();
        owned.sort_by_key(|indices| indices.start);
        let mut end = 0;
        for indices in owned.into_iter().filter(|indices| !indices.is_empty()) {
            assert!(indices.start >= end && indices.end <= self.geometry.count());
            end = indices.end;
        }
        let others = Owner::Channel(self.owners.len() as u16 - 1);
        assert!(self.partition.indices(others).is_empty());
    }

    /// Reserves up to 31 sub-allocations of one owner and sends them as a packet.
    pub(crate) fn send(&mut self, input: &mut Input<'_>) {
        let byte = usize::from(input.u8());
        let (at, count) = ((byte >> 5) % self.owners.len(), byte & 31);
        let owned = &mut self.owners[at];
        while owned.reserved.len() < count {
            let Some(sub_allocation) = owned.share.reserve() else { break };
            assert!(self.geometry.offset(sub_allocation.index()).is_some());
            assert_eq!(self.partition.owner(sub_allocation.index()), Some(owned.owner));
            owned.reserved.push(sub_allocation);
        }
        // One more than is reserved, now and then: the packet must be refused as a whole.
        let mut packet = owned.reserved.clone();
        if input.u8() & 3 == 0 {
            packet.extend(packet.first().copied());
            assert!(owned.share.send(&packet).is_err());
            packet.pop();
        }
        match owned.share.send(&packet) {
            Ok(id) => {
                assert_eq!(self.partition.owner_of(id.word()), Some(owned.owner));
                let previous = owned.outstanding.insert(id.word(), packet.len() as u32);
                assert_eq!(previous, None);
                assert_ne!(id.word(), 0);
                owned.reserved.clear();
            }
            Err(_) => assert!(packet.is_empty()),
        }
    }

    /// Completes an outstanding packet of any owner, or any number. The share that it is for is
    /// found by the number alone; all others refuse it.
    pub(crate) fn complete(&mut self, input: &mut Input<'_>) {
        let number = input.u64();
        let ids = self.owners.iter().flat_map(|owned| owned.outstanding.keys().copied());
        let known = ids.skip((number >> 1) as usize & 0xFFFF).find(|_| number & 1 == 0);
        let id = known.unwrap_or(number);
        let owner = self.partition.owner_of(id);
        assert!(owner.is_some() || known.is_none());
        for owned in &mut self.owners {
            let expected = owned.outstanding.remove(&id);
            assert!(expected.is_none() || owner == Some(owned.owner));
            assert_eq!(owned.share.complete(id).ok(), expected);
            assert_eq!(owned.share.packets() as usize, owned.outstanding.len());
        }
    }

    pub(crate) fn check_restore(&self) {
        self.owners.iter().for_each(|owned| owned.check_restore(self.partition));
    }
}

impl Owned {
    fn new(partition: Partition, owner: Owner) -> Self {
        let share = Share::new(partition, owner);
        Self { owner, share, reserved: Vec::new(), outstanding: BTreeMap::new() }
    }

    fn is_idle(&self) -> bool {
        let is_idle = self.reserved.is_empty() && self.outstanding.is_empty();
        assert_eq!(self.share.is_idle(), is_idle);
        is_idle
    }

    fn check_restore(&self, partition: Partition) {
        if self.outstanding.len() > 4 {
            return;
        }
        let saved = self.share.save();
        assert!(saved.iter().map(|packet| &packet.transaction).eq(self.sorted_ids().iter()));
        let restored = Share::restore(partition, self.owner, &saved);
        let free = restored.expect("saved by a share").available();
        assert_eq!(free, self.share.available() + self.reserved.len() as u32);
    }

    /// Returns the outstanding transaction ids by their first sub-allocation.
    fn sorted_ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.outstanding.keys().copied().collect();
        ids.sort_unstable_by_key(|id| *id as u32);
        ids
    }
}
