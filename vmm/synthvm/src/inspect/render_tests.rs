use super::super::{
    ConnectionReport, ConnectionState, DiskReport, ExitCounts, GpadlReport, PanicReport,
    RingsReport, ThrottleReport, VcpuReport,
};
use super::*;
use synthvm_sockets::SocketReport;
use synthvm_storvsp::DiskStats;
use vmbus_host::WorkerCounters;

fn report() -> InspectReport {
    let ring = |used| RingReport {
        size: 16384,
        used,
        pending_send_size: 0,
        masked: used == 0,
        corrupt: false,
    };
    InspectReport {
        connection: ConnectionReport {
            version: Some("5.3".into()),
            state: ConnectionState::Connected,
        },
        vcpus: vec![VcpuReport {
            index: 0,
            exits: ExitCounts { io: 1_000_000_000, post_message: 12, ..Default::default() },
        }],
        channels: vec![ChannelReport {
            relid: 3,
            class: "scsi".into(),
            subchannel: 0,
            instance: "00000000-0000-8899-0000-000000000000".into(),
            state: "open".into(),
            target_vp: Some(1),
            rings: Some(RingsReport { incoming: ring(1), outgoing: ring(0) }),
            signals_sent: 5_000_000,
            signals_suppressed: 7,
            gpadls: vec![0xe1e10],
            worker: None,
        }],
        gpadls: vec![GpadlReport {
            id: 0xe1e10,
            relid: 3,
            ranges: 1,
            pages: 8,
            mapping: "mirrored".into(),
            ..Default::default()
        }],
        disks: vec![DiskReport {
            id: "0:0".into(),
            path: "/a.img".into(),
            stats: DiskStats { requests: 10, bytes: 40960, ..Default::default() },
            ..Default::default()
        }],
        panic: Some(PanicReport {
            parameters: [1, 2, 3, 4, 5],
            message: Some("oops\u{1b}[2J".into()),
        }),
        ..Default::default()
    }
}

#[test]
fn test_render_fits_100_columns_and_shows_every_part() {
    let text = render(&report(), None, Style::Plain);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    for part in [
        "VMBus connected, version 5.3",
        "POST_MESSAGE",
        "scsi",
        "[#.........]",
        "[..........]",
        "0xe1e10",
        "/a.img",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(text.contains("guest panicked: 0x1 0x2 0x3 0x4 0x5") && !text.contains('\u{1b}'));
}

#[test]
fn test_render_shows_leaked_address_space_where_there_is_some() {
    let mut leaking = report();
    assert!(!render(&leaking, None, Style::Plain).contains("unmap"));
    leaking.machine.leaked_bytes = 2 << 20;
    let text = render(&leaking, None, Style::Plain);
    assert!(text.contains("the host refused to unmap 2.0M of address space"), "{text}");
}

#[test]
fn test_render_shows_what_limits_held_up_where_there_are_limits() {
    let mut limited = report();
    assert!(!render(&limited, None, Style::Plain).contains("Delayed by limits"));
    let throttle =
        ThrottleReport { delayed_requests: 7, delayed_bytes: 4096, delayed_us: 1_234_567 };
    limited.disks[0].throttle = Some(throttle);
    let text = render(&limited, None, Style::Plain);
    let line = text.lines().last().unwrap();
    assert!(
        text.contains("Delayed by limits") && line.contains(" 7 ") && line.contains("1.235 s"),
        "{text}"
    );
}

#[test]
fn test_render_tells_disks_that_were_removed_and_what_is_pending() {
    let mut stalled = report();
    stalled.disks[0].removed = true;
    stalled.disks[0].stats.in_flight = 17;
    let text = render(&stalled, None, Style::Plain);
    let line = text.lines().find(|line| line.contains("/a.img (removed, busy)")).unwrap();
    assert!(text.contains("PENDING") && line.contains(" 17 "), "{text}");
}

#[test]
fn test_render_shows_the_workers_of_open_channels() {
    let mut open = report();
    assert!(!render(&open, None, Style::Plain).contains("Workers"));
    let counters = WorkerCounters::default();
    counters.taken.add(1000);
    counters.sent.add(900);
    counters.batches.add(80);
    counters.sleeps.add(70);
    counters.polled.add(60);
    counters.moderated.add(50);
    open.channels[0].worker = Some(counters.snapshot());
    let text = render(&open, None, Style::Plain);
    let line = text.lines().skip_while(|line| !line.starts_with("Workers")).nth(2).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells, ["3", "1000", "900", "80", "12.5", "70", "60", "50"], "{text}");
}

#[test]
fn test_render_with_an_earlier_report_shows_rates() {
    let mut earlier = report();
    earlier.disks[0].stats.requests = 0;
    let now = report();
    let text = render(&now, Some((&earlier, Duration::from_secs(2))), Style::Plain);
    let disk = text.lines().find(|line| line.contains("/a.img")).unwrap();
    assert!(text.contains("REQ/S") && disk.split_whitespace().any(|cell| cell == "5"), "{disk}");
    assert!(!render(&now, None, Style::Plain).contains("REQ/S"));
}

#[test]
fn test_render_shows_calls_on_fixed_buffers_where_a_disk_has_them() {
    let mut report = report();
    assert!(!render(&report, None, Style::Plain).contains("FIXED"));
    report.disks[0].fixed_buffers = true;
    report.disks[0].fixed_calls = 77;
    let text = render(&report, None, Style::Plain);
    let disk = text.lines().find(|line| line.contains("/a.img")).unwrap();
    assert!(text.contains("FIXED") && disk.split_whitespace().any(|cell| cell == "77"), "{disk}");
}

#[test]
fn test_bar_is_empty_only_for_an_empty_ring_and_full_for_a_full_one() {
    let ring = |used, size| bar(&RingReport { size, used, ..Default::default() });
    assert_eq!(ring(0, 100), "[..........]");
    assert_eq!(ring(1, u32::MAX), "[#.........]");
    assert_eq!(ring(100, 100), "[##########]");
    assert_eq!(ring(200, 100), "[##########]");
    assert_eq!(ring(5, 0), "[..........]");
}

#[test]
fn test_report_json_has_the_shape_that_others_rely_on() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["connection"], serde_json::json!({"version": "5.3", "state": "connected"}));
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(
        keys(&json["vcpus"][0]["exits"]),
        ["io", "mmio", "msr", "other", "post_message", "signal_event"]
    );
    let channel = [
        "class",
        "gpadls",
        "instance",
        "relid",
        "rings",
        "signals_sent",
        "signals_suppressed",
        "state",
        "subchannel",
        "target_vp",
        "worker",
    ];
    assert_eq!(keys(&json["channels"][0]), channel);
    assert_eq!(
        keys(&json["gpadls"][0]),
        ["bytes", "id", "mapping", "pages", "ranges", "relid", "runs", "views"]
    );
    assert_eq!(json["disks"][0]["fixed_buffers"], false);
    for key in ["requests", "bytes", "copied_bytes", "fixed_calls", "errors"] {
        assert!(json["disks"][0][key].is_u64(), "{key}");
    }
    assert_eq!(serde_json::from_value::<InspectReport>(json).unwrap(), report());
}

#[test]
fn test_render_drive_tells_disc_tray_and_lock() {
    let drive = |has_medium, tray_open, locked| {
        let path = if has_medium { "/a.iso" } else { "" }.into();
        image(&DiskReport {
            kind: UnitKind::Dvd,
            path,
            has_medium,
            tray_open,
            locked,
            readonly: true,
            ..Default::default()
        })
    };
    assert_eq!(drive(true, false, false), "/a.iso (DVD)");
    assert_eq!(drive(true, false, true), "/a.iso (DVD, locked)");
    assert_eq!(drive(false, true, false), "(DVD, tray open)");
    assert_eq!(drive(false, false, true), "(DVD, empty)");
}

#[test]
fn test_render_shows_sockets_only_of_a_machine_that_has_them() {
    let mut report = report();
    assert!(!render(&report, None, Style::Plain).contains("Sockets"));
    report.vsock = Some(SocketReport {
        open: 21,
        no_listener: 30,
        failed: 4,
        bad_requests: 5,
        bytes_to_guest: 3 << 20,
        ..Default::default()
    });
    let text = render(&report, None, Style::Plain);
    let table: Vec<_> = text.lines().skip_while(|line| *line != "Sockets").collect();
    let cells: Vec<_> = table[2].split_whitespace().collect();
    assert_eq!(cells[0], "21", "{text}");
    assert!(cells.contains(&"39") && cells.contains(&"3.0M"), "{text}");
}
