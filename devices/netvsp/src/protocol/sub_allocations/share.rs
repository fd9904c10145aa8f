//! The sub-allocations of one owner.

use std::iter::successors;

use super::partition::{Owner, Partition};
use super::transaction::TransactionId;

/// One sub-allocation of the receive buffer, by its index. [`Geometry::offset`] has its place.
///
/// [`Geometry::offset`]: super::Geometry::offset
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAllocation(u32);

impl SubAllocation {
    /// Returns the index in the receive buffer.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// An operation that a share refuses, and that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The guest completed a packet that is not outstanding: never sent, or completed before.
    #[error("no packet with transaction id {0:#x} is outstanding")]
    UnknownTransaction(u64),
    /// The caller used a sub-allocation that is not reserved.
    #[error("sub-allocation {0} is not reserved")]
    NotReserved(u32),
    /// The caller sent a packet without a sub-allocation.
    #[error("a packet has at least one sub-allocation")]
    EmptyPacket,
}

/// The sub-allocations of one owner, each free, reserved or outstanding in a packet.
///
/// All memory is allocated at creation: 12 bytes for each sub-allocation. Operations take constant
/// time for each sub-allocation that they concern. The most recently freed one is used first, as
/// it is likely to be in a cache.
#[derive(Clone, Debug)]
pub struct Share {
    first: u32,
    entries: Box<[Entry]>,
    free: Option<u32>,
    available: u32,
    packets: u32,
}

/// State of one sub-allocation. `next` continues the free list or the packet's list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    next: u32,
    generation: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Reserved,
    /// The first of an outstanding packet, whose transaction id names it.
    Head,
    /// Another one of an outstanding packet.
    Member,
}

/// The end of a list.
const NONE: u32 = u32::MAX;

impl Share {
    /// Creates the share of `owner`, with every sub-allocation free.
    pub fn new(partition: Partition, owner: Owner) -> Self {
        let indices = partition.indices(owner);
        let count = indices.end - indices.start;
        let entries = (0..count)
            .map(|at| Entry {
                next: if at + 1 < count { at + 1 } else { NONE },
                generation: 1,
                state: State::Free,
            })
            .collect();
        Self {
            first: indices.start,
            entries,
            free: (count > 0).then_some(0),
            available: count,
            packets: 0,
        }
    }

    /// Returns the number of free sub-allocations.
    pub fn available(&self) -> u32 {
        self.available
    }

    /// Returns the number of packets that the guest has not completed.
    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// Returns true if every sub-allocation is free.
    pub fn is_idle(&self) -> bool {
        self.available as usize == self.entries.len()
    }

    /// Reserves a free sub-allocation for writing. `None`: all are in use.
    pub fn reserve(&mut self) -> Option<SubAllocation> {
        let at = self.free?;
        let entry = self.entries.get_mut(at as usize)?;
        self.free = (entry.next != NONE).then_some(entry.next);
        entry.state = State::Reserved;
        self.available -= 1;
        Some(SubAllocation(self.first + at))
    }

    /// Frees a reserved sub-allocation that holds nothing.
    ///
    /// # Errors
    /// It is not reserved in this share.
    pub fn cancel(&mut self, sub_allocation: SubAllocation) -> Result<(), Refused> {
        let at = self.reserved(sub_allocation)?;
        self.release(at);
        Ok(())
    }

    /// Joins reserved sub-allocations to one packet, which is outstanding from now on. Returns the
    /// packet's transaction id.
    ///
    /// # Errors
    /// The list is empty, or one of its items is not reserved in this share or occurs twice.
    pub fn send(&mut self, packet: &[SubAllocation]) -> Result<TransactionId, Refused> {
        let (head, members) = packet.split_first().ok_or(Refused::EmptyPacket)?;
        let head_at = self.reserved(*head)?;
        let mut next = NONE;
        for (number, member) in members.iter().enumerate() {
            let linked = self.reserved(*member).and_then(|at| {
                if at == head_at { Err(Refused::NotReserved(member.0)) } else { Ok(at) }
            });
            match linked {
                Ok(at) => {
                    self.set(at, State::Member, next);
                    next = at;
                }
                Err(refused) => {
                    for linked in &members[..number] {
                        self.set(linked.0 - self.first, State::Reserved, NONE);
                    }
                    return Err(refused);
                }
            }
        }
        self.set(head_at, State::Head, next);
        self.packets += 1;
        let generation = self.entries[head_at as usize].generation;
        Ok(TransactionId::new(head.0, generation))
    }

    /// Frees the sub-allocations of a packet that the guest has completed. Returns their number.
    ///
    /// # Errors
    /// No packet with this transaction id is outstanding in this share.
    pub fn complete(&mut self, transaction: u64) -> Result<u32, Refused> {
        let refused = Refused::UnknownTransaction(transaction);
        let id = TransactionId::from_word(transaction).ok_or(refused)?;
        let head_at = id.index().checked_sub(self.first).ok_or(refused)?;
        let head = self.entries.get_mut(head_at as usize).ok_or(refused)?;
        if head.state != State::Head || head.generation != id.generation() {
            return Err(refused);
        }
        head.generation = head.generation.wrapping_add(1);
        let mut next = head.next;
        self.release(head_at);
        let mut freed = 1;
        while next != NONE {
            let at = next;
            next = self.entries[at as usize].next;
            self.release(at);
            freed += 1;
        }
        self.packets -= 1;
        Ok(freed)
    }

    /// Returns the transaction ids of the outstanding packets, each with the indices of its
    /// sub-allocations after the first.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = (TransactionId, Vec<u32>)> {
        let next = |entry: &Entry| (entry.next != NONE).then_some(entry.next);
        let heads = (self.first..).zip(&self.entries).filter(|(_, e)| e.state == State::Head);
        heads.map(move |(index, head)| {
            let id = TransactionId::new(index, head.generation);
            let members = successors(next(head), |&at| next(&self.entries[at as usize]));
            (id, members.map(|at| self.first + at).collect())
        })
    }

    /// Marks a restored packet as outstanding. `None`: one of its sub-allocations is not free.
    /// [`Share::rebuild_free_list`] must follow.
    pub(super) fn link_restored(&mut self, id: TransactionId, members: &[u32]) -> Option<()> {
        let mut next = NONE;
        for (index, state) in
            members.iter().map(|&index| (index, State::Member)).chain([(id.index(), State::Head)])
        {
            let at = index.checked_sub(self.first)?;
            if self.entries.get(at as usize)?.state != State::Free {
                return None;
            }
            self.set(at, state, next);
            next = at;
        }
        self.entries[next as usize].generation = id.generation();
        self.packets += 1;
        Some(())
    }

    /// Links all free sub-allocations.
    pub(super) fn rebuild_free_list(&mut self) {
        self.free = None;
        self.available = 0;
        for at in (0..self.entries.len() as u32).rev() {
            if self.entries[at as usize].state == State::Free {
                self.release(at);
            }
        }
    }

    fn reserved(&self, sub_allocation: SubAllocation) -> Result<u32, Refused> {
        let refused = Refused::NotReserved(sub_allocation.0);
        let at = sub_allocation.0.checked_sub(self.first).ok_or(refused)?;
        let entry = self.entries.get(at as usize).ok_or(refused)?;
        if entry.state == State::Reserved { Ok(at) } else { Err(refused) }
    }

    fn set(&mut self, at: u32, state: State, next: u32) {
        let entry = &mut self.entries[at as usize];
        entry.state = state;
        entry.next = next;
    }

    fn release(&mut self, at: u32) {
        self.set(at, State::Free, self.free.unwrap_or(NONE));
        self.free = Some(at);
        self.available += 1;
    }
}
