//! Conversion of the parts' own reports to the machine's report.

use std::collections::BTreeMap;

use synthvm_block::ThrottleStats;
use synthvm_machine::VcpuExits;
use synthvm_storvsp::SCSI_CONTROLLER;
use synthvm_tpm::TpmState;
use vmbus_host::core::{ChannelState, ConnectionState as Contact};
use vmbus_host::{BusReport, OpenReport};
use vmbus_protocol::guid;
use vmbus_ring::{Mode, RingSnapshot};

use crate::networks::CardReport;

use super::{
    ChannelReport, ConnectionReport, ConnectionState, DiskReport, ExitCounts, GpadlReport,
    InspectReport, MessageCounts, NetworkReport, RingReport, RingsReport, ThrottleReport,
    TpmReport, VcpuReport,
};

impl InspectReport {
    /// Sets the bus's part of the report.
    pub(crate) fn set_bus(&mut self, bus: &BusReport) {
        let state = match bus.connection {
            Contact::Disconnected => ConnectionState::Disconnected,
            Contact::Resetting => ConnectionState::Resetting,
            Contact::Connected => ConnectionState::Connected,
        };
        self.connection =
            ConnectionReport { version: bus.version.map(|version| version.to_string()), state };
        let messages = &bus.messages;
        self.messages = MessageCounts {
            received: messages.received,
            sent: messages.sent,
            refused: messages.ignored,
        };
        self.channels = bus.channels.iter().map(channel).collect();
        let rings = ring_modes(&bus.channels);
        self.gpadls = bus.gpadls.iter().map(|gpadl| gpadl_report(gpadl, &rings)).collect();
    }

    /// Sets the network cards' part of the report. The bus's part must be there.
    pub(crate) fn set_networks(&mut self, cards: Vec<CardReport>) {
        let cards = cards.into_iter();
        self.networks = cards.map(|card| NetworkReport::new(card, &self.channels)).collect();
    }

    /// Sets the vCPUs' counters, in the order of their VP indices.
    pub(crate) fn set_vcpus(&mut self, exits: &[VcpuExits]) {
        let report =
            |(index, exits): (u32, &VcpuExits)| VcpuReport { index, exits: exit_counts(exits) };
        self.vcpus = (0..).zip(exits).map(report).collect();
    }
}

fn exit_counts(exits: &VcpuExits) -> ExitCounts {
    ExitCounts {
        post_message: exits.post_message,
        signal_event: exits.signal_event,
        io: exits.io,
        mmio: exits.mmio,
        msr: exits.msr,
        other: exits.halt.saturating_add(exits.interrupted).saturating_add(exits.other),
    }
}

fn channel(report: &OpenReport) -> ChannelReport {
    let channel = &report.channel;
    let class = match channel.class {
        class if class == SCSI_CONTROLLER => "scsi".to_owned(),
        class if class == guid::class::NETWORK => "network".to_owned(),
        class => class.to_string(),
    };
    let rings = match (&report.incoming, &report.outgoing) {
        (Some(incoming), Some(outgoing)) => {
            Some(RingsReport { incoming: ring(incoming), outgoing: ring(outgoing) })
        }
        _ => None,
    };
    ChannelReport {
        relid: channel.relid.unwrap_or(0),
        class,
        instance: channel.instance.to_string(),
        subchannel: channel.subchannel,
        state: state_name(channel.state).to_owned(),
        target_vp: channel.target_vp,
        rings,
        signals_sent: report.signals_sent,
        signals_suppressed: report.signals_suppressed,
        gpadls: channel.gpadls.clone(),
        worker: report.worker,
    }
}

fn state_name(state: ChannelState) -> &'static str {
    match state {
        ChannelState::Unoffered => "unoffered",
        ChannelState::Closed => "closed",
        ChannelState::Opening => "opening",
        ChannelState::Open => "open",
        ChannelState::Faulted => "faulted",
        ChannelState::Closing => "closing",
        ChannelState::Draining => "draining",
        ChannelState::Revoked => "revoked",
        ChannelState::Released => "released",
    }
}

fn ring(ring: &RingSnapshot) -> RingReport {
    RingReport {
        size: ring.data_size,
        used: ring.used.unwrap_or(0),
        pending_send_size: ring.pending_send_size,
        masked: ring.interrupt_mask != 0,
        corrupt: ring.used.is_none(),
    }
}

fn gpadl_report(gpadl: &vmbus_host::core::GpadlReport, rings: &RingModes) -> GpadlReport {
    GpadlReport {
        id: gpadl.id,
        relid: gpadl.relid,
        ranges: u32::try_from(gpadl.ranges).unwrap_or(u32::MAX),
        pages: wide(gpadl.pages),
        bytes: wide(gpadl.bytes),
        runs: wide(gpadl.runs),
        mapping: mapping(gpadl, rings).to_owned(),
        views: gpadl.views.into(),
    }
}

/// The mapping modes of open channels' rings, by (relid, GPADL).
type RingModes = BTreeMap<(u32, u32), Mode>;

fn ring_modes(channels: &[OpenReport]) -> RingModes {
    let mode_of = |report: &OpenReport| {
        let (gpadl, _) = report.channel.ring?;
        Some(((report.channel.relid?, gpadl), report.incoming.as_ref()?.mode))
    };
    channels.iter().filter_map(mode_of).collect()
}

/// Returns the mapping of a GPADL: that of its ring, or "runs" or "none" for other GPADLs.
fn mapping(gpadl: &vmbus_host::core::GpadlReport, rings: &RingModes) -> &'static str {
    match rings.get(&(gpadl.relid, gpadl.id)) {
        Some(Mode::Mirrored) => "mirrored",
        Some(Mode::Paged) => "paged",
        None if gpadl.views == 0 => "none",
        None => "runs",
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Returns the TPM's part of the report.
pub(crate) fn tpm(report: synthvm_tpm::TpmReport) -> TpmReport {
    let state = match report.state {
        TpmState::Idle => "idle",
        TpmState::Busy => "busy",
        TpmState::Failed => "failed",
    };
    TpmReport { state: state.to_owned(), commands: report.commands, failure: report.failure }
}

/// Returns a disk's part of the report, from its controller's report. `id` is the user's name for
/// the disk, `throttle` the statistics of its limits, if any.
pub(crate) fn disk(
    report: synthvm_storvsp::DiskReport,
    id: String,
    throttle: Option<ThrottleStats>,
) -> DiskReport {
    let throttle = throttle.map(|ThrottleStats { delayed_requests, delayed_bytes, delayed_us }| {
        ThrottleReport { delayed_requests, delayed_bytes, delayed_us }
    });
    DiskReport {
        id,
        path: report.label,
        controller: report.controller,
        lun: report.lun,
        kind: report.kind,
        removed: report.removed,
        has_medium: report.has_medium,
        tray_open: report.tray_open,
        locked: report.locked,
        readonly: report.read_only,
        stats: report.stats,
        fixed_buffers: report.fixed_calls.is_some(),
        fixed_calls: report.fixed_calls.unwrap_or(0),
        held_back: report.held_back,
        throttle,
    }
}
