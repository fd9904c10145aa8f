//! A warm card allocates nothing per packet. A separate program, as it has an allocator of its own.

mod guest;

use std::sync::Arc;

use guest::queues::flow;
use guest::*;
use synthvm_net::{Backend, Loop, NullNet};
use vmbus_heap::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Sends frames on all channels and receives all that come. Returns the allocations of the host in
/// rounds 100 to 300, and the frames received in them.
fn allocations(backend: Arc<dyn Backend>, channels: u16) -> (u64, usize) {
    let mut guest = match channels {
        1 => NetGuest::start(backend),
        _ => NetGuest::start_with_channels(backend, channels),
    };
    let (mut count, mut frames) = (0, 0);
    for round in 0..300_u16 {
        for index in 0..usize::from(channels) {
            for number in 0..4 {
                let message = packet(&flow(round * 4 + number), &[]);
                let section = u32::from(number) + 4 * (index as u32 % 2);
                guest.channel.poke(SEND, u64::from(section) * 6144, &message);
                let nvsp = full(&words(&[107, 0, section, message.len() as u32]));
                assert!(guest.channel(index).try_send(u64::from(round), &nvsp, &[]));
            }
        }
        let before = vmbus_heap::allocations();
        guest.inline.serve();
        let after = vmbus_heap::allocations();
        count += if round < 100 { 0 } else { after - before };
        for index in 0..usize::from(channels) {
            for packet in guest.take(index) {
                if let Some((_, ranges)) = &packet.transfer {
                    frames += if round < 100 { 0 } else { ranges.len() };
                    complete_on(guest.channel(index), &packet);
                }
            }
        }
    }
    (count, frames)
}

/// One test, so that no other one allocates meanwhile.
#[test]
fn test_warm_card_allocates_nothing_per_packet() {
    let endless = || Arc::new(NullNet::new(1).repeating(&flow(1)));
    let cases: [(Arc<dyn Backend>, u16); 5] = [
        (Arc::new(Loop::new(1)), 1),
        (endless(), 1),
        (Arc::new(Loop::new(1)), 4),
        (Arc::new(Loop::new(4)), 4),
        (endless(), 4),
    ];
    for (number, (backend, channels)) in cases.into_iter().enumerate() {
        let (count, frames) = allocations(backend, channels);
        assert_eq!(count, 0, "case {number}");
        assert!(frames >= 800, "case {number}: {frames} frames");
    }
}
