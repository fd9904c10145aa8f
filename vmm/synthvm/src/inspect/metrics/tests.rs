use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    CaptureReport, ChannelReport, DiskReport, NetworkDrops, NetworkQueueReport, NetworkReport,
    RingsReport, ThrottleReport, VcpuReport,
};
use super::*;
use synthvm_sockets::SocketReport;
use synthvm_storvsp::DiskStats;

/// The metrics of a text: their types, and their samples by name and labels.
#[derive(Debug, Default)]
struct Parsed {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Reads text in Prometheus' text format, and refuses all that its specification or its naming
/// conventions forbid.
fn parse(text: &str) -> Parsed {
    assert!(text.ends_with('\n') && !text.contains("\n\n"), "lines");
    let mut parsed = Parsed::default();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(helped.insert(name.to_owned()), "{name} in two places");
            assert!(!help.is_empty() && help.ends_with('.'), "{line}");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, current, "TYPE follows HELP");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(name.starts_with("synthvm_"), "{name}");
            let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(name.bytes().all(is_letter), "{name}");
            parsed.kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap();
            assert_eq!(name, current, "samples follow their TYPE: {line}");
            assert!(parsed.kinds.contains_key(name), "{line}");
            check_labels(&series[name.len()..]);
            let value: f64 = value.parse().expect(line);
            let doubled = parsed.samples.insert(series.to_owned(), value);
            assert_eq!(doubled, None, "{series} twice");
        }
    }
    assert_eq!(helped, parsed.kinds.keys().cloned().collect());
    parsed
}

fn check_labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).expect(text);
    let mut rest = inner;
    let mut names = BTreeSet::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect(text);
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{text}");
        assert!(names.insert(name), "{name} twice in {text}");
        let mut bytes = after.bytes().enumerate();
        let end = loop {
            match bytes.next().expect(text) {
                (_, b'\\') => {
                    let (_, escaped) = bytes.next().expect(text);
                    assert!([b'\\', b'"', b'n'].contains(&escaped), "{text}");
                }
                (end, b'"') => break end,
                _ => {}
            }
        };
        match after[end + 1..].strip_prefix(',') {
            Some(next) => rest = next,
            None => {
                assert_eq!(&after[end + 1..], "", "{text}");
                return;
            }
        }
    }
}

fn report() -> InspectReport {
    let worker = vmbus_host::WorkerCounters::default();
    worker.taken.add(3);
    let channel = |subchannel| ChannelReport {
        class: "network".into(),
        instance: "i".into(),
        subchannel,
        state: "open".into(),
        rings: Some(RingsReport::default()),
        signals_sent: 7,
        worker: Some(worker.snapshot()),
        ..Default::default()
    };
    let queue = NetworkQueueReport {
        sent_packets: 5,
        received_bytes: 900,
        drops: NetworkDrops { receive_overflow: 2, ..Default::default() },
        ..Default::default()
    };
    let card = |id: &str| NetworkReport {
        id: id.into(),
        backend: "tap,name=tap0".into(),
        mac: "02:00:00:00:00:01".into(),
        queues: vec![queue, NetworkQueueReport::default()],
        capture: Some(CaptureReport { recorded: 11, dropped: 1 }),
        ..Default::default()
    };
    let disk = |id: &str| DiskReport {
        id: id.into(),
        stats: DiskStats { reads: 4, ..Default::default() },
        throttle: Some(ThrottleReport { delayed_us: 1_500_000, ..Default::default() }),
        ..Default::default()
    };
    let mut report = InspectReport {
        vcpus: vec![VcpuReport::default(), VcpuReport { index: 1, ..Default::default() }],
        channels: vec![channel(0), channel(1)],
        disks: vec![disk("0:0"), disk("quo\"te\\")],
        networks: vec![card("net0"), card("lan")],
        vsock: Some(SocketReport {
            open: 2,
            unanswered: 3,
            bytes_to_host: 8,
            ..Default::default()
        }),
        ..Default::default()
    };
    report.machine.uptime_ms = 1_250;
    report.vcpus[1].exits.io = 9;
    report
}

#[test]
fn test_metrics_of_a_full_report_are_in_the_format_and_have_its_values() {
    let parsed = parse(&metrics(&report()));
    let expected = [
        ("synthvm_uptime_seconds", 1.25),
        ("synthvm_vcpu_exits_total{vcpu=\"1\",reason=\"io\"}", 9.0),
        ("synthvm_vmbus_connected", 0.0),
        (
            "synthvm_channel_signals_total{class=\"network\",instance=\"i\",subchannel=\"1\",result=\"sent\"}",
            7.0,
        ),
        (
            "synthvm_worker_packets_total{class=\"network\",instance=\"i\",subchannel=\"0\",direction=\"incoming\"}",
            3.0,
        ),
        ("synthvm_disk_operations_total{disk=\"0:0\",operation=\"read\"}", 4.0),
        ("synthvm_disk_throttled_seconds_total{disk=\"quo\\\"te\\\\\"}", 1.5),
        ("synthvm_net_packets_total{card=\"net0\",queue=\"0\",direction=\"tx\"}", 5.0),
        ("synthvm_net_bytes_total{card=\"lan\",queue=\"0\",direction=\"rx\"}", 900.0),
        (
            "synthvm_net_drops_total{card=\"net0\",queue=\"0\",direction=\"rx\",reason=\"overflow\"}",
            2.0,
        ),
        ("synthvm_net_captured_packets_total{card=\"net0\",result=\"recorded\"}", 11.0),
        ("synthvm_net_link_up{card=\"net0\"}", 1.0),
        ("synthvm_vsock_connections{state=\"open\"}", 2.0),
        ("synthvm_vsock_refused_total{reason=\"unanswered\"}", 3.0),
        ("synthvm_vsock_bytes_total{direction=\"to-host\"}", 8.0),
    ];
    for (series, value) in expected {
        assert_eq!(parsed.samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn test_metrics_of_an_empty_report_are_in_the_format() {
    let parsed = parse(&metrics(&InspectReport::default()));
    assert!(parsed.samples.contains_key("synthvm_memory_bytes"));
    assert!(!parsed.kinds.contains_key("synthvm_net_packets_total"), "no head without samples");
}

#[test]
fn test_metrics_names_have_their_units_last() {
    for name in parse(&metrics(&report())).kinds.keys() {
        let stem = name.trim_end_matches("_total");
        let unit = ["bytes", "seconds"].into_iter().find(|unit| stem.contains(unit));
        assert!(unit.is_none_or(|unit| stem.ends_with(unit)), "{name}");
    }
}
