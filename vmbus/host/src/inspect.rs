//! How a bus stands at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmbus_protocol::Version;
use vmbus_ring::RingSnapshot;

use crate::core::{ChannelKey, ChannelReport, ConnectionState, Core, GpadlReport, MessageCounts};
use crate::device::ChannelShared;

/// Connection, channels and GPADLs.
#[derive(Clone, Debug)]
pub struct BusReport {
    /// Who is at the other end.
    pub connection: ConnectionState,
    /// Negotiated version, when connected.
    pub version: Option<Version>,
    /// Message counts since the machine was made.
    pub messages: MessageCounts,
    /// Every channel, in the order of relids.
    pub channels: Vec<OpenReport>,
    /// Every accepted GPADL.
    pub gpadls: Vec<GpadlReport>,
    /// GPADLs whose page list is still arriving.
    pub gpadls_arriving: usize,
}

/// A channel, and what only an open one has.
#[derive(Clone, Debug)]
pub struct OpenReport {
    /// The channel.
    pub channel: ChannelReport,
    /// Guest→host ring.
    pub incoming: Option<RingSnapshot>,
    /// Host→guest ring.
    pub outgoing: Option<RingSnapshot>,
    /// Interrupts raised for it.
    pub signals_sent: u64,
    /// Interrupts that the rules made unnecessary.
    pub signals_suppressed: u64,
}

impl BusReport {
    pub(crate) fn new(core: &Core, open: &BTreeMap<ChannelKey, Arc<ChannelShared>>) -> Self {
        let (connection, version) = core.connection();
        let channels = core.channel_reports().into_iter().map(|channel| {
            let shared = open.get(&channel.key);
            let count = |counter: fn(&ChannelShared) -> u64| shared.map_or(0, |shared| counter(shared));
            OpenReport {
                incoming: shared.and_then(|shared| shared.incoming.snapshot()),
                outgoing: shared.and_then(|shared| shared.outgoing.snapshot()),
                signals_sent: count(|shared| shared.signals_sent.load(Ordering::Relaxed)),
                signals_suppressed: count(|shared| shared.signals_suppressed.load(Ordering::Relaxed)),
                channel,
            }
        });
        Self {
            connection,
            version,
            messages: core.message_counts(),
            channels: channels.collect(),
            gpadls: core.gpadl_reports(),
            gpadls_arriving: core.gpadls_arriving(),
        }
    }
}
