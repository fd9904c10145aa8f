//! Metrics of disks and network cards.

use std::time::Duration;

use synthvm_net::LinkState;

use super::super::{DiskReport, InspectReport, NetworkQueueReport, NetworkReport};
use super::text::{Kind, Text};

/// Adds all disks and DVD drives.
pub(super) fn disks(text: &mut Text, report: &InspectReport) {
    let mut operations = text.family(
        "synthvm_disk_operations_total",
        Kind::Counter,
        "Operations of a disk, by their kind; discards and zeroes count ranges.",
    );
    for disk in &report.disks {
        for (operation, count) in [
            ("read", disk.stats.reads),
            ("write", disk.stats.writes),
            ("flush", disk.stats.flushes),
            ("discard", disk.stats.discards),
            ("zero", disk.stats.zeroes),
        ] {
            operations.sample(&[("disk", &disk.id), ("operation", operation)], count);
        }
    }
    type Value = fn(&DiskReport) -> u64;
    let values: [(&str, Kind, &str, Value); 10] = [
        ("synthvm_disk_requests_total", Kind::Counter, "Requests of every kind.", |disk| {
            disk.stats.requests
        }),
        ("synthvm_disk_bytes_total", Kind::Counter, "Bytes read and written.", |disk| {
            disk.stats.bytes
        }),
        (
            "synthvm_disk_copied_bytes_total",
            Kind::Counter,
            "Bytes copied between guest memory and image.",
            |disk| disk.stats.copied_bytes,
        ),
        ("synthvm_disk_discarded_bytes_total", Kind::Counter, "Bytes discarded.", |disk| {
            disk.stats.discarded_bytes
        }),
        ("synthvm_disk_zeroed_bytes_total", Kind::Counter, "Bytes zeroed without data.", |disk| {
            disk.stats.zeroed_bytes
        }),
        (
            "synthvm_disk_fixed_calls_total",
            Kind::Counter,
            "Calls to the host's kernel with registered memory.",
            |disk| disk.fixed_calls,
        ),
        ("synthvm_disk_refused_total", Kind::Counter, "Invalid requests, refused.", |disk| {
            disk.stats.refused
        }),
        ("synthvm_disk_errors_total", Kind::Counter, "Requests that failed.", |disk| {
            disk.stats.errors
        }),
        (
            "synthvm_disk_moderated_total",
            Kind::Counter,
            "Interrupts that the disk's controller delayed, for all its disks.",
            |disk| disk.held_back,
        ),
        ("synthvm_disk_in_flight", Kind::Gauge, "Requests that the image has not finished.", |d| {
            d.stats.in_flight
        }),
    ];
    for (name, kind, help, value) in values {
        let mut family = text.family(name, kind, help);
        for disk in &report.disks {
            family.sample(&[("disk", &disk.id)], value(disk));
        }
    }
    throttles(text, report);
}

fn throttles(text: &mut Text, report: &InspectReport) {
    let limited = || report.disks.iter().filter_map(|disk| Some((disk, disk.throttle?)));
    let mut family = text.family(
        "synthvm_disk_throttled_requests_total",
        Kind::Counter,
        "Requests delayed by a disk's limits.",
    );
    for (disk, throttle) in limited() {
        family.sample(&[("disk", &disk.id)], throttle.delayed_requests);
    }
    let mut family = text.family(
        "synthvm_disk_throttled_bytes_total",
        Kind::Counter,
        "Bytes of the requests delayed by a disk's limits.",
    );
    for (disk, throttle) in limited() {
        family.sample(&[("disk", &disk.id)], throttle.delayed_bytes);
    }
    let mut family = text.family(
        "synthvm_disk_throttled_seconds_total",
        Kind::Counter,
        "Time of all delays by a disk's limits.",
    );
    for (disk, throttle) in limited() {
        let delay = Duration::from_micros(throttle.delayed_us).as_secs_f64();
        family.sample(&[("disk", &disk.id)], delay);
    }
}

/// Adds all network cards. The direction is the guest's: it sends by "tx".
pub(super) fn networks(text: &mut Text, report: &InspectReport) {
    let mut info = text.family("synthvm_net_info", Kind::Gauge, "A network card; always 1.");
    for card in &report.networks {
        let labels = [("card", card.id.as_str()), ("backend", &card.backend), ("mac", &card.mac)];
        info.sample(&labels, 1);
    }
    let mut up = text.family("synthvm_net_link_up", Kind::Gauge, "1 while the link is up.");
    for card in &report.networks {
        up.sample(&[("card", &card.id)], u64::from(card.link == LinkState::Up));
    }
    type Value = fn(&NetworkQueueReport) -> u64;
    type Family = (&'static str, &'static str, &'static str, [(&'static str, Value); 2]);
    let pairs: [Family; 3] = [
        (
            "synthvm_net_packets_total",
            "direction",
            "Frames of a queue; one that is to be segmented counts once.",
            [("tx", |queue| queue.sent_packets), ("rx", |queue| queue.received_packets)],
        ),
        (
            "synthvm_net_bytes_total",
            "direction",
            "Bytes of the frames of a queue.",
            [("tx", |queue| queue.sent_bytes), ("rx", |queue| queue.received_bytes)],
        ),
        (
            "synthvm_net_signals_total",
            "result",
            "Interrupts to the guest by a queue's channel.",
            [("sent", |queue| queue.signals_sent), ("suppressed", |q| q.signals_suppressed)],
        ),
    ];
    for (name, label, help, values) in pairs {
        let mut family = text.family(name, Kind::Counter, help);
        for (card, index, queue) in queues(report) {
            for (word, value) in values {
                let labels = [("card", card.id.as_str()), ("queue", &index), (label, word)];
                family.sample(&labels, value(queue));
            }
        }
    }
    let mut drops =
        text.family("synthvm_net_drops_total", Kind::Counter, "Dropped frames, by the reason.");
    for (card, index, queue) in queues(report) {
        for (direction, reason, count) in queue.drops.by_reason() {
            let labels = [
                ("card", card.id.as_str()),
                ("queue", &index),
                ("direction", direction),
                ("reason", reason),
            ];
            drops.sample(&labels, count);
        }
    }
    let mut full = text.family(
        "synthvm_net_backend_full_total",
        Kind::Counter,
        "Times that a frame of the guest waited for space in the backend.",
    );
    for (card, index, queue) in queues(report) {
        full.sample(&[("card", &card.id), ("queue", &index)], queue.backend_full);
    }
    let gauges: [(&str, &str, Value); 2] = [
        (
            "synthvm_net_receive_sections",
            "Sections of the guest's receive buffer for a queue's frames.",
            |queue| queue.sections.into(),
        ),
        (
            "synthvm_net_receive_sections_in_use",
            "Sections with frames that the guest has not completed.",
            |queue| queue.sections_in_use.into(),
        ),
    ];
    for (name, help, value) in gauges {
        let mut family = text.family(name, Kind::Gauge, help);
        for (card, index, queue) in queues(report) {
            family.sample(&[("card", &card.id), ("queue", &index)], value(queue));
        }
    }
    let mut captured = text.family(
        "synthvm_net_captured_packets_total",
        Kind::Counter,
        "Frames in the capture file, and frames that it lacks as it was too slow.",
    );
    for card in &report.networks {
        let Some(capture) = card.capture else { continue };
        for (result, count) in [("recorded", capture.recorded), ("dropped", capture.dropped)] {
            captured.sample(&[("card", &card.id), ("result", result)], count);
        }
    }
}

/// Returns each queue, with its card and the label of its index.
fn queues(
    report: &InspectReport,
) -> impl Iterator<Item = (&NetworkReport, String, &NetworkQueueReport)> {
    report.networks.iter().flat_map(|card| {
        let queues = card.queues.iter().enumerate();
        queues.map(move |(index, queue)| (card, index.to_string(), queue))
    })
}
