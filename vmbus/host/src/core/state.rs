//! Reports of the core, for `synthvm inspect` and for tests.

use vmbus_gpadl::Gpadl;
use vmbus_protocol::{Guid, Version};

use super::Core;
use super::channel::{Channel, ChannelKey, ChannelState, Phase};
use super::connection::ConnectionState;

/// Messages since the machine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageCounts {
    /// Messages that the guest posted.
    pub received: u64,
    /// Messages from the guest that were ignored.
    pub ignored: u64,
    /// Messages for the guest.
    pub sent: u64,
}

/// The state of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelReport {
    /// The channel's key in the host.
    pub key: ChannelKey,
    /// The channel's number in the guest, if the guest knows it.
    pub relid: Option<u32>,
    /// Device class.
    pub class: Guid,
    /// Device instance.
    pub instance: Guid,
    /// 0 for a primary.
    pub subchannel: u16,
    /// State of the channel.
    pub state: ChannelState,
    /// VP of its events, when open.
    pub target_vp: Option<u32>,
    /// GPADL of its rings and the page where the host→guest ring starts, when open.
    pub ring: Option<(u32, u32)>,
    /// Handles of its accepted GPADLs.
    pub gpadls: Vec<u32>,
}

/// One accepted GPADL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpadlReport {
    /// Handle.
    pub id: u32,
    /// Channel.
    pub relid: u32,
    /// Ranges.
    pub ranges: usize,
    /// Pages listed.
    pub pages: usize,
    /// Bytes described.
    pub bytes: usize,
    /// Runs after merging.
    pub runs: usize,
    /// Views alive.
    pub views: u32,
    /// A teardown waits for the views.
    pub going: bool,
}

impl Core {
    /// Returns the state of the connection.
    #[must_use]
    pub fn connection(&self) -> (ConnectionState, Option<Version>) {
        (self.connection.state(), self.connection.version())
    }

    /// Returns the message counts.
    #[must_use]
    pub fn message_counts(&self) -> MessageCounts {
        self.counts
    }

    /// Returns the number of page lists being received.
    #[must_use]
    pub fn gpadls_arriving(&self) -> usize {
        self.gpadls.arriving()
    }

    /// Returns the number of GPADLs, complete or not, charged against the quotas, and the pages
    /// that their headers declared.
    #[must_use]
    pub fn gpadl_charges(&self) -> (usize, usize) {
        self.gpadls.charges()
    }

    /// Returns a snapshot to be reported later. Takes one step for each channel and each GPADL.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (connection, version) = self.connection();
        Snapshot {
            connection,
            version,
            messages: self.counts,
            channels: self.channels.iter().map(channel_report).collect(),
            gpadls: self.gpadls.iter().cloned().collect(),
            gpadls_arriving: self.gpadls.arriving(),
        }
    }

    /// Returns every channel, in the order of relids, those without one last.
    #[must_use]
    pub fn channel_reports(&self) -> Vec<ChannelReport> {
        self.snapshot().into_reports().0
    }

    /// Returns every accepted GPADL, by channel and handle.
    #[must_use]
    pub fn gpadl_reports(&self) -> Vec<GpadlReport> {
        self.gpadls.iter().map(gpadl_report).collect()
    }

    /// Returns whether the core waits for the channel's device to close it.
    #[must_use]
    pub fn is_closing(&self, key: ChannelKey) -> bool {
        self.channels.get(key).is_some_and(|channel| matches!(channel.phase, Phase::Closing { .. }))
    }

    /// Returns the accepted GPADLs, with those that are being torn down.
    pub fn accepted_gpadls(&self) -> impl Iterator<Item = &Gpadl> {
        self.gpadls.iter()
    }

    /// Returns the GPADL itself, for reading a ring's control pages while the core keeps it.
    #[must_use]
    pub fn gpadl(&self, relid: u32, id: u32) -> Option<&Gpadl> {
        self.gpadls.get(relid, id)
    }
}

/// A snapshot of the core. Holds GPADLs, but no view of one, so that no teardown waits for it.
#[derive(Debug)]
pub struct Snapshot {
    /// State of the connection.
    pub connection: ConnectionState,
    /// Negotiated version, when connected.
    pub version: Option<Version>,
    /// Message counts.
    pub messages: MessageCounts,
    /// Number of page lists being received.
    pub gpadls_arriving: usize,
    /// Channel reports, without their GPADLs.
    channels: Vec<ChannelReport>,
    /// Accepted GPADLs, in the order of (relid, handle).
    gpadls: Vec<Gpadl>,
}

impl Snapshot {
    /// Returns every channel in the order of relids, those without one last, and every accepted
    /// GPADL, by channel and handle. Takes one step for each GPADL, and `n log n` for channels.
    #[must_use]
    pub fn into_reports(mut self) -> (Vec<ChannelReport>, Vec<GpadlReport>) {
        self.channels.sort_by_key(|report| (report.relid.is_none(), report.relid, report.key));
        // Both are in the order of relids: each GPADL is visited once.
        let mut gpadls = self.gpadls.iter().map(Gpadl::key).peekable();
        for channel in &mut self.channels {
            let Some(relid) = channel.relid else { break };
            step();
            while let Some(key) = gpadls.next_if(|key| key.relid <= relid) {
                step();
                if key.relid == relid {
                    channel.gpadls.push(key.id);
                }
            }
        }
        let reports = self.gpadls.iter().inspect(|_| step()).map(gpadl_report).collect();
        (self.channels, reports)
    }
}

fn channel_report(channel: &Channel) -> ChannelReport {
    let request =
        if let Phase::Open { request, .. } = channel.phase { Some(request) } else { None };
    ChannelReport {
        key: channel.key,
        relid: channel.relid,
        class: channel.offer.class,
        instance: channel.offer.instance,
        subchannel: channel.subchannel,
        state: channel.state(),
        target_vp: request.map(|request| request.target_vp),
        ring: request.map(|request| (request.ring_gpadl, request.downstream_page)),
        gpadls: Vec::new(),
    }
}

fn gpadl_report(gpadl: &Gpadl) -> GpadlReport {
    let (key, buffer) = (gpadl.key(), gpadl.buffer());
    GpadlReport {
        id: key.id,
        relid: key.relid,
        ranges: buffer.ranges(),
        pages: buffer.pages(),
        bytes: buffer.len(),
        runs: buffer.runs(),
        views: gpadl.views(),
        going: gpadl.is_tearing_down(),
    }
}

/// Counts the cost of a report, in tests.
fn step() {
    #[cfg(all(test, not(loom)))]
    tests::STEPS.set(tests::STEPS.get().saturating_add(1));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use vm_memory::{GuestAddress, GuestMemoryMmap};
    use vmbus_gpadl::{GpadlKey, GuestBuffer, GuestRam, ReleaseSink};
    use vmbus_protocol::limits::MAX_CHANNELS;

    use super::*;

    thread_local! {
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    struct Deaf;

    impl ReleaseSink for Deaf {
        fn gpadl_released(&self, _: GpadlKey) {}
    }

    /// A bus with a channel of each relid, and a GPADL of each channel relid in `gpadls`.
    fn snapshot(
        channels: impl IntoIterator<Item = Option<u32>>,
        gpadls: impl IntoIterator<Item = u32>,
    ) -> Snapshot {
        let report = |(number, relid)| ChannelReport {
            key: ChannelKey(number),
            relid,
            class: Guid::default(),
            instance: Guid::default(),
            subchannel: 0,
            state: ChannelState::Open,
            target_vp: None,
            ring: None,
            gpadls: Vec::new(),
        };
        Snapshot {
            connection: ConnectionState::Connected,
            version: None,
            messages: MessageCounts::default(),
            gpadls_arriving: 0,
            channels: (0..).zip(channels).map(report).collect(),
            gpadls: sorted_gpadls(gpadls),
        }
    }

    /// In the order of relids, as the core keeps them.
    fn sorted_gpadls(relids: impl IntoIterator<Item = u32>) -> Vec<Gpadl> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        let ram = GuestRam::new(memory).unwrap();
        let gpadl = |(id, relid)| {
            let key = GpadlKey { relid, id, serial: id.into() };
            Gpadl::new(key, GuestBuffer::new(ram.clone()), Arc::new(Deaf))
        };
        let mut all: Vec<Gpadl> = (0..).zip(relids).map(gpadl).collect();
        all.sort_by_key(|gpadl| (gpadl.key().relid, gpadl.key().id));
        all
    }

    /// 4,096 GPADLs and 2,047 channels: a step for each, not for each pair.
    #[test]
    fn test_report_costs_one_step_for_each_channel_and_two_for_each_gpadl() {
        let count = u32::try_from(MAX_CHANNELS).unwrap();
        let relid = |number: u32| number * 7 % count + 1;
        let snapshot = snapshot(
            (0..count).map(|number| Some(relid(number))),
            (0..4096).map(|id| id * 13 % count + 1),
        );
        STEPS.set(0);
        let (channels, gpadls) = snapshot.into_reports();
        assert!(STEPS.get() <= MAX_CHANNELS + 2 * 4096, "{} steps", STEPS.get());
        assert_eq!((channels.len(), gpadls.len()), (MAX_CHANNELS, 4096));
        assert!(channels.is_sorted_by_key(|channel| channel.relid));
        let of_channels = channels
            .iter()
            .flat_map(|channel| channel.gpadls.iter().map(move |&id| (channel.relid.unwrap(), id)));
        assert!(of_channels.eq(gpadls.iter().map(|gpadl| (gpadl.relid, gpadl.id))));
    }

    /// GPADLs of relids that no channel has (a reset is in progress) do not end the walk.
    #[test]
    fn test_report_skips_gpadls_of_relids_without_channel() {
        let snapshot = snapshot([None, Some(3), Some(2)], [1, 3, 4, 2]);
        let (channels, gpadls) = snapshot.into_reports();
        let shown: Vec<_> =
            channels.iter().map(|channel| (channel.relid, channel.gpadls.clone())).collect();
        assert_eq!(shown, [(Some(2), vec![3]), (Some(3), vec![1]), (None, vec![])]);
        assert_eq!(gpadls.len(), 4);
    }
}
