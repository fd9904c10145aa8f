//! RESET_LUN, RESET_ADAPTER, RESET_BUS: completed after all earlier requests of the channel.
//!
//! A reset aborts nothing, as an aborted write would leave the disk's contents undefined. A reset
//! waits for the requests that its own channel had in flight when it arrived. Later requests run in
//! the meantime.

use crate::protocol::Reply;

/// Maximum number of resets that wait. Guests send one at a time; further ones complete
/// immediately.
const MAX_WAITING: usize = 16;

/// Pending resets. Each request carries the epoch in which it began; each reset ends an epoch.
#[derive(Debug, Default)]
pub(super) struct Resets {
    epoch: u32,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// The reset waits for requests of this and earlier epochs.
    epoch: u32,
    left: usize,
    transaction_id: u64,
    reply: Reply,
}

impl Resets {
    /// Returns the epoch of a request that begins now.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Begins a reset behind `in_flight` requests. Returns false if it must complete immediately.
    pub(super) fn begin(&mut self, transaction_id: u64, reply: Reply, in_flight: usize) -> bool {
        if in_flight == 0 || self.waiting.len() == MAX_WAITING {
            return false;
        }
        self.waiting.push(Waiting { epoch: self.epoch, left: in_flight, transaction_id, reply });
        self.epoch = self.epoch.wrapping_add(1);
        true
    }

    /// Counts the end of a request of `epoch`. Calls `answer` for each reset that waited for no
    /// other request.
    pub(super) fn ended(&mut self, epoch: u32, mut answer: impl FnMut(u64, Reply)) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.retain_mut(|reset| {
            // Wrapping comparison: epochs in flight are never far apart.
            let came_before = reset.epoch.wrapping_sub(epoch) < u32::MAX / 2;
            reset.left -= usize::from(came_before);
            if reset.left == 0 {
                answer(reset.transaction_id, reset.reply);
            }
            reset.left != 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Version;

    fn ended(resets: &mut Resets, epoch: u32) -> Vec<u64> {
        let mut answered = Vec::new();
        resets.ended(epoch, |id, _| answered.push(id));
        answered
    }

    fn reply() -> Reply {
        Reply::enumerate_bus(Version::Win10).unwrap()
    }

    #[test]
    fn test_reset_waits_for_earlier_requests_only() {
        let mut resets = Resets::default();
        assert!(!resets.begin(1, reply(), 0));
        let before = resets.epoch();
        assert!(resets.begin(2, reply(), 2));
        let after = resets.epoch();
        assert!(ended(&mut resets, before).is_empty());
        assert!(ended(&mut resets, after).is_empty());
        assert_eq!(ended(&mut resets, before), [2]);
        assert!(ended(&mut resets, after).is_empty());
    }

    #[test]
    fn test_resets_that_follow_each_other_end_in_order() {
        let mut resets = Resets { epoch: u32::MAX, waiting: Vec::new() };
        assert!(resets.begin(1, reply(), 1));
        assert!(resets.begin(2, reply(), 2));
        assert_eq!(ended(&mut resets, u32::MAX), [1]);
        assert_eq!(ended(&mut resets, 0), [2]);
    }

    #[test]
    fn test_resets_beyond_the_limit_are_answered_immediately() {
        let mut resets = Resets::default();
        assert!((0..MAX_WAITING as u64).all(|id| resets.begin(id, reply(), 1)));
        assert!(!resets.begin(99, reply(), 1));
    }
}
