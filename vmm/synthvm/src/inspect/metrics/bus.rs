//! Metrics of the bus and of its channels.

use vmbus_host::WorkerStats;

use super::super::{ChannelReport, ConnectionState, InspectReport, RingsReport};
use super::text::{Kind, Text};

/// Adds the bus, its channels, their rings and the guest's shared memory.
pub(super) fn channels(text: &mut Text, report: &InspectReport) {
    let connected = report.connection.state == ConnectionState::Connected;
    text.family("synthvm_vmbus_connected", Kind::Gauge, "1 while the guest is connected.")
        .sample(&[], u64::from(connected));
    let mut messages = text.family(
        "synthvm_vmbus_messages_total",
        Kind::Counter,
        "Control messages; refused ones are received ones too.",
    );
    let counts = &report.messages;
    for (result, count) in
        [("received", counts.received), ("sent", counts.sent), ("refused", counts.refused)]
    {
        messages.sample(&[("result", result)], count);
    }
    text.family("synthvm_gpadls", Kind::Gauge, "Page lists that the guest shares.")
        .sample(&[], report.gpadls.len());
    let bytes = report.gpadls.iter().fold(0_u64, |sum, gpadl| sum.saturating_add(gpadl.bytes));
    text.family("synthvm_gpadl_bytes", Kind::Gauge, "Guest memory in all page lists.")
        .sample(&[], bytes);

    let mut open = text.family("synthvm_channel_open", Kind::Gauge, "1 while a channel is open.");
    for channel in &report.channels {
        let is_open = channel.state == "open";
        open.sample(&Labels::new(channel).with(&[]), u64::from(is_open));
    }
    let mut signals = text.family(
        "synthvm_channel_signals_total",
        Kind::Counter,
        "Interrupts to the guest: sent, and suppressed as the guest polled or had masked them.",
    );
    for channel in &report.channels {
        let labels = Labels::new(channel);
        signals.sample(&labels.with(&[("result", "sent")]), channel.signals_sent);
        signals.sample(&labels.with(&[("result", "suppressed")]), channel.signals_suppressed);
    }
    rings(text, report);
}

fn rings(text: &mut Text, report: &InspectReport) {
    let open = || report.channels.iter().filter_map(|channel| Some((channel, channel.rings?)));
    let both = |rings: RingsReport| [("incoming", rings.incoming), ("outgoing", rings.outgoing)];
    let mut used = text.family(
        "synthvm_ring_used_bytes",
        Kind::Gauge,
        "Bytes of a ring that its reader has not read; incoming is from the guest.",
    );
    for (channel, rings) in open() {
        for (direction, ring) in both(rings) {
            used.sample(&Labels::new(channel).with(&[("direction", direction)]), ring.used);
        }
    }
    let mut size = text.family("synthvm_ring_size_bytes", Kind::Gauge, "Size of a ring.");
    for (channel, rings) in open() {
        for (direction, ring) in both(rings) {
            size.sample(&Labels::new(channel).with(&[("direction", direction)]), ring.size);
        }
    }
}

/// Adds the workers of all open channels.
pub(super) fn workers(text: &mut Text, report: &InspectReport) {
    let open = || report.channels.iter().filter_map(|channel| Some((channel, channel.worker?)));
    let mut packets = text.family(
        "synthvm_worker_packets_total",
        Kind::Counter,
        "Packets that a channel's worker took from the guest and wrote to it.",
    );
    for (channel, worker) in open() {
        let labels = Labels::new(channel);
        packets.sample(&labels.with(&[("direction", "incoming")]), worker.taken);
        packets.sample(&labels.with(&[("direction", "outgoing")]), worker.sent);
    }
    type Value = fn(&WorkerStats) -> u64;
    let counters: [(&str, &str, Value); 4] = [
        ("synthvm_worker_batches_total", "Batches of packets taken.", |worker| worker.batches),
        ("synthvm_worker_sleeps_total", "Times that a worker slept.", |worker| worker.sleeps),
        ("synthvm_worker_polls_total", "Poll windows that found work.", |worker| worker.polled),
        ("synthvm_worker_moderated_total", "Interrupts that were delayed.", |worker| {
            worker.moderated
        }),
    ];
    for (name, help, value) in counters {
        let mut family = text.family(name, Kind::Counter, help);
        for (channel, worker) in open() {
            family.sample(&Labels::new(channel).with(&[]), value(&worker));
        }
    }
}

/// The labels of a channel.
struct Labels<'a> {
    channel: &'a ChannelReport,
    subchannel: String,
}

impl<'a> Labels<'a> {
    fn new(channel: &'a ChannelReport) -> Self {
        Labels { channel, subchannel: channel.subchannel.to_string() }
    }

    fn with<'b>(&'b self, more: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)> {
        let own = [
            ("class", self.channel.class.as_str()),
            ("instance", self.channel.instance.as_str()),
            ("subchannel", self.subchannel.as_str()),
        ];
        [&own[..], more].concat()
    }
}
