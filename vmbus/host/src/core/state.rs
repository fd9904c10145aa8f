//! What the core says of itself, for `synthvm inspect` and for tests.

use vmbus_gpadl::Gpadl;
use vmbus_protocol::{Guid, Version};

use super::Core;
use super::channel::{Channel, ChannelKey, ChannelState, Phase};
use super::connection::ConnectionState;

/// Messages since the machine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Messages that the guest posted.
    pub received: u64,
    /// Of them, those that changed nothing.
    pub ignored: u64,
    /// Messages for the guest.
    pub sent: u64,
}

/// One channel as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelReport {
    /// Its name inside the host.
    pub key: ChannelKey,
    /// Its number in the guest, when the guest knows it.
    pub relid: Option<u32>,
    /// Device class.
    pub class: Guid,
    /// Device instance.
    pub instance: Guid,
    /// 0 for a primary.
    pub subchannel: u16,
    /// Where it stands.
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
    /// Who is at the other end.
    #[must_use]
    pub fn connection(&self) -> (ConnectionState, Option<Version>) {
        (self.connection.state(), self.connection.version())
    }

    /// Message counts.
    #[must_use]
    pub fn message_counts(&self) -> MessageCounts {
        self.counts
    }

    /// GPADLs whose page list is still arriving.
    #[must_use]
    pub fn gpadls_arriving(&self) -> usize {
        self.gpadls.arriving()
    }

    /// What GPADLs, complete or not, are charged against the quotas: their number, and the pages that their headers declared.
    #[must_use]
    pub fn gpadl_charges(&self) -> (usize, usize) {
        self.gpadls.charges()
    }

    /// Every channel, in the order of relids, those without one last.
    #[must_use]
    pub fn channel_reports(&self) -> Vec<ChannelReport> {
        let mut reports: Vec<_> = self.channels.iter().map(|channel| self.channel_report(channel)).collect();
        reports.sort_by_key(|report| (report.relid.is_none(), report.relid, report.key));
        reports
    }

    /// Every accepted GPADL, by channel and handle.
    #[must_use]
    pub fn gpadl_reports(&self) -> Vec<GpadlReport> {
        self.gpadls.iter().map(gpadl_report).collect()
    }

    /// The GPADL itself, for looking at a ring's control pages while the core cannot let go of it.
    #[must_use]
    pub fn gpadl(&self, relid: u32, id: u32) -> Option<&Gpadl> {
        self.gpadls.get(relid, id)
    }

    fn channel_report(&self, channel: &Channel) -> ChannelReport {
        let request = match channel.phase {
            Phase::Open { request, .. } => Some(request),
            Phase::Unoffered
            | Phase::Offered
            | Phase::Opening { .. }
            | Phase::Closing { .. }
            | Phase::Draining { .. }
            | Phase::Revoked
            | Phase::Released => None,
        };
        let gpadls = self
            .gpadls
            .iter()
            .map(Gpadl::key)
            .filter(|key| Some(key.relid) == channel.relid)
            .map(|key| key.id);
        ChannelReport {
            key: channel.key,
            relid: channel.relid,
            class: channel.offer.class,
            instance: channel.offer.instance,
            subchannel: channel.subchannel,
            state: channel.state(),
            target_vp: request.map(|request| request.target_vp),
            ring: request.map(|request| (request.ring_gpadl, request.downstream_page)),
            gpadls: gpadls.collect(),
        }
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
        going: gpadl.is_going(),
    }
}
