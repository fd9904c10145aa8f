//! A report of the state of a bus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmbus_protocol::Version;
use vmbus_ring::RingSnapshot;

use crate::core::{
    ChannelKey, ChannelReport, ConnectionState, GpadlReport, MessageCounts, Snapshot,
};
use crate::device::ChannelShared;
use crate::worker::WorkerStats;

/// Connection, channels and GPADLs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BusReport {
    /// State of the connection.
    pub connection: ConnectionState,
    /// Negotiated version, when connected.
    pub version: Option<Version>,
    /// Message counts since the machine was made.
    pub messages: MessageCounts,
    /// Every channel, in the order of relids.
    pub channels: Vec<OpenReport>,
    /// Every accepted GPADL.
    pub gpadls: Vec<GpadlReport>,
    /// Number of page lists being received.
    pub gpadls_arriving: usize,
}

/// The report of a channel, with more fields if it is open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenReport {
    /// The channel.
    pub channel: ChannelReport,
    /// Guest→host ring.
    pub incoming: Option<RingSnapshot>,
    /// Host→guest ring.
    pub outgoing: Option<RingSnapshot>,
    /// Interrupts raised for the channel.
    pub signals_sent: u64,
    /// Interrupts that the ring protocol made unnecessary.
    pub signals_suppressed: u64,
    /// Counters of the channel's worker, if it is open.
    pub worker: Option<WorkerStats>,
}

impl BusReport {
    /// Builds a report without the state's lock. `open`: the channels that devices have.
    pub(crate) fn new(snapshot: Snapshot, open: &BTreeMap<ChannelKey, Arc<ChannelShared>>) -> Self {
        let (connection, version, messages) =
            (snapshot.connection, snapshot.version, snapshot.messages);
        let gpadls_arriving = snapshot.gpadls_arriving;
        let (channels, gpadls) = snapshot.into_reports();
        let channels = channels.into_iter().map(|channel| {
            let shared = open.get(&channel.key);
            let count =
                |counter: fn(&ChannelShared) -> u64| shared.map_or(0, |shared| counter(shared));
            OpenReport {
                incoming: shared.and_then(|shared| shared.incoming.snapshot()),
                outgoing: shared.and_then(|shared| shared.outgoing.snapshot()),
                signals_sent: count(|shared| shared.signals_sent.load(Ordering::Relaxed)),
                signals_suppressed: count(|shared| {
                    shared.signals_suppressed.load(Ordering::Relaxed)
                }),
                worker: shared.map(|shared| shared.worker.snapshot()),
                channel,
            }
        });
        Self {
            connection,
            version,
            messages,
            channels: channels.collect(),
            gpadls,
            gpadls_arriving,
        }
    }
}
