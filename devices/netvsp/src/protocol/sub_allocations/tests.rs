//! The receive-buffer half of the conformance checklist (netvsc section 13).

use super::*;

const LENGTH: u32 = 64 * 1024;

fn geometry() -> Geometry {
    Geometry::new(LENGTH, 1514).unwrap()
}

fn share(channel: u16, channels: u16) -> Share {
    Share::new(Partition::new(geometry(), channels), Owner::Channel(channel))
}

/// Reserves and sends a packet of `count` sub-allocations.
fn send(share: &mut Share, count: usize) -> u64 {
    let packet: Vec<_> = (0..count).map(|_| share.reserve().unwrap()).collect();
    share.send(&packet).unwrap().word()
}

/// Checklist 6.
#[test]
fn test_geometry_of_common_buffers_fits_and_is_aligned() {
    for (length, max_frame) in [(16 << 20, 1514), (31 << 20, 9216), (u32::MAX, 1514)] {
        let geometry = Geometry::new(length, max_frame).unwrap();
        assert_eq!(geometry.size() % 8, 0);
        assert!(geometry.size() >= 256 + max_frame + 36);
        assert!(geometry.usable() >= 256 + max_frame);
        assert_eq!(geometry.end(), geometry.size() * geometry.count());
        assert!(geometry.end() <= length);
        assert_eq!(geometry.offset(0), Some(0));
        assert_eq!(geometry.offset(geometry.count()), None);
        let last = geometry.offset(geometry.count() - 1).unwrap();
        assert_eq!(last + geometry.size(), geometry.end());
    }
    assert_eq!(Geometry::new(16 << 20, 1514).unwrap().size(), 1808);
}

#[test]
fn test_geometry_for_coalesced_frames_holds_the_longest_in_8_parts() {
    for (length, max_frame) in [(16 << 20, 1514), (31 << 20, 9216), (u32::MAX, 1514)] {
        let geometry = Geometry::for_coalesced(length, max_frame).unwrap();
        assert_eq!(geometry.size() % 8, 0);
        assert!((geometry.usable() - 256) * 8 >= 65_553);
        assert!(geometry.usable() >= 256 + max_frame);
        assert!(geometry.count() >= 512 && geometry.end() <= length);
    }
    // Far below 64 KiB: Linux allocates as much for each of 64 channels.
    assert_eq!(Geometry::for_coalesced(16 << 20, 1514).unwrap().size(), 8488);
}

#[test]
fn test_geometry_for_coalesced_frames_of_a_small_buffer_is_that_of_whole_frames() {
    let least = 512 * 8488;
    assert_eq!(Geometry::for_coalesced(least, 1514).unwrap().count(), 512);
    for length in [least - 1, 1 << 20, 1808, 1807, 0] {
        assert_eq!(Geometry::for_coalesced(length, 1514), Geometry::new(length, 1514));
    }
}

/// Checklist 5.
#[test]
fn test_geometry_of_too_small_buffer_is_none() {
    assert_eq!(Geometry::new(0, 1514), None);
    assert_eq!(Geometry::new(1807, 1514), None);
    assert_eq!(Geometry::new(1808, 1514).unwrap().count(), 1);
    assert_eq!(Geometry::new(u32::MAX, u32::MAX), None);
}

#[test]
fn test_partition_owners_have_disjoint_equal_parts() {
    for channels in [1, 2, 3, 16, 64] {
        let partition = Partition::new(geometry(), channels);
        assert_eq!(partition.indices(Owner::Control), 0..16);
        let mut next = 16;
        for channel in 0..channels {
            let indices = partition.indices(Owner::Channel(channel));
            assert_eq!(indices.start, next);
            for index in indices.clone() {
                assert_eq!(partition.owner(index), Some(Owner::Channel(channel)));
            }
            next = indices.end;
        }
        assert!(next <= geometry().count());
        assert_eq!(partition.owner(next), None);
        assert_eq!(partition.owner(15), Some(Owner::Control));
        assert_eq!(partition.owner(u32::MAX), None);
        assert!(partition.indices(Owner::Channel(channels)).is_empty());
    }
}

#[test]
fn test_partition_of_tiny_buffer_keeps_control_messages() {
    for (count, control) in [(1, 1), (2, 1), (3, 2), (31, 16), (33, 16)] {
        let partition = Partition::new(Geometry::new(1808 * count, 1514).unwrap(), 1);
        assert_eq!(partition.indices(Owner::Control), 0..control);
        assert_eq!(partition.indices(Owner::Channel(0)), control..count);
    }
    let partition = Partition::new(Geometry::new(1808, 1514).unwrap(), 8);
    let mut share = Share::new(partition, Owner::Channel(3));
    assert!(share.reserve().is_none() && share.is_idle());
    assert_eq!(partition.owner(5), None);
}

/// Checklist 25: reserving ends, memory does not grow, and completion recovers.
#[test]
fn test_share_exhausted_refuses_until_completion() {
    let mut share = share(0, 1);
    let available = share.available() as usize;
    let first = send(&mut share, available - 1);
    let last = share.reserve().unwrap();
    assert_eq!(share.reserve(), None);
    share.cancel(last).unwrap();
    assert_eq!(share.complete(first), Ok(available as u32 - 1));
    assert!(share.is_idle());
    let all: Vec<_> = (0..available).map(|_| share.reserve().unwrap().index()).collect();
    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), all.len());
}

/// Checklist 21.
#[test]
fn test_share_completion_unknown_or_double_is_refused() {
    let mut share = share(1, 2);
    let packet = send(&mut share, 3);
    let available = share.available();
    for unknown in [0, 1, packet + 1, packet - 1, packet ^ 1 << 32, u64::MAX, u64::MAX << 32] {
        assert_eq!(share.complete(unknown), Err(Refused::UnknownTransaction(unknown)));
    }
    assert_eq!(share.available(), available);
    assert_eq!(share.complete(packet), Ok(3));
    assert_eq!(share.complete(packet), Err(Refused::UnknownTransaction(packet)));
    // The same sub-allocation again: the old id stays unknown.
    let again = send(&mut share, 1);
    assert_eq!(share.complete(packet), Err(Refused::UnknownTransaction(packet)));
    assert_ne!(again, packet);
    assert_eq!(share.complete(again), Ok(1));
    assert_eq!(share.packets(), 0);
}

#[test]
fn test_share_completion_of_member_is_refused() {
    let mut share = share(0, 1);
    let packet: Vec<_> = (0..2).map(|_| share.reserve().unwrap()).collect();
    let id = share.send(&packet).unwrap().word();
    let member = id - u64::from(packet[0].index()) + u64::from(packet[1].index());
    assert_eq!(share.complete(member), Err(Refused::UnknownTransaction(member)));
    assert_eq!(share.complete(id), Ok(2));
}

#[test]
fn test_share_send_of_unreserved_or_repeated_changes_nothing() {
    let mut share = share(0, 1);
    let [a, b] = [share.reserve().unwrap(), share.reserve().unwrap()];
    let refused = |sub: SubAllocation| Err(Refused::NotReserved(sub.index()));
    assert_eq!(share.send(&[]), Err(Refused::EmptyPacket));
    assert_eq!(share.send(&[a, a]), refused(a));
    assert_eq!(share.send(&[a, b, b]), refused(b));
    assert_eq!(share.send(&[a, b, a]), refused(a));
    let id = share.send(&[a, b]).unwrap();
    assert_eq!(share.send(&[a]), refused(a));
    assert_eq!(share.cancel(b), Err(Refused::NotReserved(b.index())));
    assert_eq!(share.complete(id.word()), Ok(2));
    assert!(share.is_idle());
}

#[test]
fn test_share_refuses_sub_allocation_of_another_owner() {
    let [mut mine, mut other] = [share(0, 2), share(1, 2)];
    let foreign = other.reserve().unwrap();
    assert_eq!(mine.cancel(foreign), Err(Refused::NotReserved(foreign.index())));
    let packet = other.send(&[foreign]).unwrap().word();
    assert_eq!(mine.complete(packet), Err(Refused::UnknownTransaction(packet)));
    let partition = Partition::new(geometry(), 2);
    assert_eq!(partition.owner_of(packet), Some(Owner::Channel(1)));
    assert_eq!(other.complete(packet), Ok(1));
}

/// Checklist 44.
#[test]
fn test_share_restored_completes_its_packets_once() {
    let partition = Partition::new(geometry(), 2);
    let owner = Owner::Channel(1);
    let mut share = Share::new(partition, owner);
    let old = send(&mut share, 2);
    share.complete(old).unwrap();
    let packets = [send(&mut share, 1), send(&mut share, 4)];
    let _unsent = share.reserve().unwrap();
    let saved = share.save();
    let mut restored = Share::restore(partition, owner, &saved).unwrap();
    assert_eq!(restored.packets(), 2);
    assert_eq!(restored.available(), share.available() + 1);
    let sort = |mut list: Vec<SavedPacket>| {
        list.iter_mut().for_each(|packet| packet.members.sort_unstable());
        list
    };
    assert_eq!(sort(restored.save()), sort(saved));
    assert!(restored.complete(old).is_err());
    assert_eq!(restored.complete(packets[1]), Ok(4));
    assert_eq!(restored.complete(packets[0]), Ok(1));
    assert!(restored.complete(packets[0]).is_err());
    assert!(restored.is_idle());
}

#[test]
fn test_share_restore_of_impossible_packets_is_refused() {
    let partition = Partition::new(geometry(), 2);
    let packet =
        |transaction, members: &[u32]| SavedPacket { transaction, members: members.to_vec() };
    let id = 1 << 32 | 17;
    for packets in [
        vec![packet(0, &[])],
        vec![packet(1 << 32 | 16, &[])],
        vec![packet(u64::MAX, &[])],
        vec![packet(id, &[16])],
        vec![packet(id, &[17, 17])],
        vec![packet(id, &[u32::MAX])],
        vec![packet(id, &[17]), packet(1 << 32 | 18, &[])],
    ] {
        assert!(Share::restore(partition, Owner::Channel(0), &packets).is_err(), "{packets:?}");
    }
    assert!(Share::restore(partition, Owner::Channel(0), &[packet(id, &[17])]).is_ok());
}
