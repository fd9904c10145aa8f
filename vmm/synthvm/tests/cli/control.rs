//! Tests of `synthvm inspect` and `synthvm control` against a simulated machine.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use synthvm::config::{ByteSize, DiskConfig, DvdConfig, LimitsConfig};
use synthvm::control::{
    ControlServer, ControlTarget, DiskPlace, Responder, StopReason, StreamKind,
};
use synthvm::display::{PointerRequest, ScreenSize};
use synthvm::dynamic_memory::MemoryReport;
use synthvm::inspect::{
    ConnectionReport, ConnectionState, DiskReport, InspectReport, NetworkReport,
};
use synthvm::services::{GuestStatus, ServiceRequest};
use synthvm_dynamic_memory::Sizes;
use synthvm_net::LinkState;
use synthvm_services::ServiceError;
use synthvm_services::protocol::ServiceKind;
use synthvm_storvsp::DiskStats;

use crate::support::Scratch;

/// A simulated machine, which ends after a number of reports.
struct Talker {
    told: Mutex<Vec<String>>,
    reports: AtomicU64,
    most_reports: u64,
    end: AtomicBool,
}

impl ControlTarget for Talker {
    fn inspect(&self) -> InspectReport {
        let told = self.reports.fetch_add(1, Ordering::SeqCst) + 1;
        self.end.fetch_or(told >= self.most_reports, Ordering::SeqCst);
        let disk = DiskReport {
            id: "0:0".into(),
            path: "a.img".into(),
            stats: DiskStats { requests: 100 * told, ..Default::default() },
            ..Default::default()
        };
        InspectReport {
            connection: ConnectionReport {
                version: Some("5.3".into()),
                state: ConnectionState::Connected,
            },
            disks: vec![disk],
            networks: vec![NetworkReport { id: "net0".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    fn power_button(&self) -> Result<(), String> {
        self.told.lock().unwrap().push("power-button".into());
        Ok(())
    }

    fn power_off(&self) -> Result<(), String> {
        self.told.lock().unwrap().push("power-off".into());
        Ok(())
    }

    fn new_generation(&self) -> Result<(), String> {
        self.told.lock().unwrap().push("new-generation".into());
        Ok(())
    }

    fn reset(&self) -> Result<(), String> {
        Err("the guest is going down already".into())
    }

    fn stop(&self, reason: StopReason) -> Result<(), String> {
        self.told.lock().unwrap().push(format!("stop {reason:?}"));
        Ok(())
    }

    fn pause(&self) -> Result<(), String> {
        Err("cannot pause".into())
    }

    fn resume(&self) -> Result<(), String> {
        Err("cannot resume".into())
    }

    fn check_stream(&self, _: StreamKind) -> Result<(), String> {
        Err("no streams".into())
    }

    fn open_stream(&self, _: StreamKind, _: UnixStream) -> Result<(), String> {
        Err("no streams".into())
    }

    fn web_link(&self) -> Result<String, String> {
        Ok("http://127.0.0.1:1/enter/1".into())
    }

    fn add_disk(&self, disk: DiskConfig) -> Result<DiskPlace, String> {
        self.told.lock().unwrap().push(format!("add {disk:?}"));
        Ok(DiskPlace { id: disk.id.unwrap_or_else(|| "1:2".into()), controller: 1, lun: 2 })
    }

    fn add_dvd(&self, dvd: DvdConfig) -> Result<DiskPlace, String> {
        self.told.lock().unwrap().push(format!("add dvd {:?}", dvd.path));
        Ok(DiskPlace { id: dvd.id.unwrap_or_else(|| "1:3".into()), controller: 1, lun: 3 })
    }

    fn remove_disk(&self, id: &str) -> Result<(), String> {
        Err(format!("there is no disk `{id}`; there are 0:0, data"))
    }

    fn resize_disk(&self, id: &str, size: u64) -> Result<(), String> {
        self.told.lock().unwrap().push(format!("resize {id} {size}"));
        Ok(())
    }

    fn throttle_disk(&self, id: &str, limits: &LimitsConfig) -> Result<(), String> {
        self.told.lock().unwrap().push(format!("throttle {id} {:?}", limits.iops));
        Ok(())
    }

    fn insert_disc(&self, id: &str, path: &Path) -> Result<(), String> {
        {
            self.told.lock().unwrap().push(format!("insert {id} {}", path.display()));
            Ok(())
        }
    }

    fn eject_disc(&self, id: &str, force: bool) -> Result<(), String> {
        {
            self.told.lock().unwrap().push(format!("eject {id} {force}"));
            Ok(())
        }
    }

    fn set_link(&self, id: &str, link: LinkState) -> Result<(), String> {
        if id != "net0" {
            return Err(format!("there is no network card `{id}`; there are net0"));
        }
        self.told.lock().unwrap().push(format!("link {id} {link:?}"));
        Ok(())
    }

    fn screenshot(&self, path: &Path) -> Result<ScreenSize, String> {
        self.told.lock().unwrap().push(format!("screenshot {}", path.display()));
        Ok(ScreenSize { width: 640, height: 480 })
    }

    fn send_keys(&self, keys: &str) -> Result<(), String> {
        self.told.lock().unwrap().push(format!("keys {keys}"));
        Ok(())
    }

    fn type_text(&self, text: &str) -> Result<(), String> {
        self.told.lock().unwrap().push(format!("type {text}"));
        Ok(())
    }

    fn point(&self, pointer: &PointerRequest) -> Result<(), String> {
        self.told.lock().unwrap().push(format!("point {pointer:?}"));
        Ok(())
    }

    fn service(&self, request: ServiceRequest, responder: Responder) {
        self.told.lock().unwrap().push(format!("{request:?}"));
        match request {
            ServiceRequest::TimeSync {} => {
                responder.answer(Err::<(), _>(ServiceError::NoDriver(ServiceKind::TimeSync)));
            }
            ServiceRequest::Status {} => responder.answer(Ok(GuestStatus::default())),
            ServiceRequest::KvpGet { .. } => responder.answer(Ok(Some("a value"))),
            _ => responder.answer(Ok(())),
        }
    }

    fn memory(&self) -> Result<MemoryReport, String> {
        let (assigned, demand) = (768 << 20, Some(300 << 20));
        Ok(MemoryReport {
            sizes: Sizes { assigned, demand, ..Default::default() },
            ..Default::default()
        })
    }

    fn set_memory(&self, size: Option<ByteSize>) -> Result<(), String> {
        self.told.lock().unwrap().push(format!("memory {size:?}"));
        if size == Some(ByteSize::from_mib(1)) { Err("too small".into()) } else { Ok(()) }
    }
}

struct Machine {
    scratch: Scratch,
    talker: Arc<Talker>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    fn start(most_reports: u64) -> Self {
        let scratch = Scratch::new();
        let path: PathBuf = scratch.path().join("sock");
        let talker = Arc::new(Talker {
            told: Mutex::default(),
            reports: AtomicU64::new(0),
            most_reports,
            end: AtomicBool::new(false),
        });
        let socket = synthvm_machine::unix_socket::ListeningSocket::bind(&path).unwrap();
        let target = Arc::clone(&talker);
        let thread = std::thread::spawn(move || {
            let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new().unwrap();
            let watched = Arc::clone(&target);
            manager.add_subscriber(Box::new(ControlServer::new(socket, target).unwrap()));
            while !watched.end.load(Ordering::SeqCst) {
                manager.run_with_timeout(10).unwrap();
            }
        });
        Machine { scratch, talker, thread: Some(thread) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.talker.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn test_inspect_prints_tables_or_json_of_the_same_report() {
    let machine = Machine::start(u64::MAX);
    let text = machine.scratch.accepts(&["inspect", "sock"]);
    assert!(text.contains("VMBus connected, version 5.3") && text.contains("a.img"), "{text}");
    let json = machine.scratch.accepts(&["inspect", "sock", "--json"]);
    let report: InspectReport = serde_json::from_str(&json).unwrap();
    assert_eq!(report.disks[0].stats.requests, 200);
}

#[test]
fn test_inspect_watch_continues_until_the_machine_ends_and_shows_rates() {
    let machine = Machine::start(2);
    let text = machine.scratch.accepts(&["inspect", "sock", "--watch"]);
    assert_eq!(text.matches("VMBus connected").count(), 2, "{text}");
    assert_eq!(
        text.matches("REQ/S").count(),
        1,
        "the first look has nothing to compare with:\n{text}"
    );
}

#[test]
fn test_metrics_are_printed_as_text() {
    let machine = Machine::start(u64::MAX);
    let text = machine.scratch.accepts(&["metrics", "sock"]);
    for line in [
        "# TYPE synthvm_disk_requests_total counter",
        "synthvm_disk_requests_total{disk=\"0:0\"} 100",
        "synthvm_net_link_up{card=\"net0\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in:\n{text}");
    }
    machine.scratch.refuses(&["metrics"], 2, &["SOCK"]);
}

#[test]
fn test_net_link_reaches_the_machine_and_refusals_come_back() {
    let machine = Machine::start(u64::MAX);
    assert_eq!(machine.scratch.accepts(&["net", "sock", "net0", "down"]), "");
    assert_eq!(machine.scratch.accepts(&["net", "sock", "net0", "up"]), "");
    assert_eq!(*machine.talker.told.lock().unwrap(), ["link net0 Down", "link net0 Up"]);
    let parts = ["sock: there is no network card `x`; there are net0"];
    machine.scratch.refuses(&["net", "sock", "x", "down"], 1, &parts);
    machine.scratch.refuses(&["net", "sock", "net0", "off"], 2, &["off", "up|down"]);
    machine.scratch.refuses(&["net", "sock", "net0"], 2, &["up"]);
}

#[test]
fn test_display_commands_reach_the_machine_with_an_absolute_path() {
    let machine = Machine::start(u64::MAX);
    let scratch = &machine.scratch;
    scratch.accepts(&["screenshot", "sock", "a.png"]);
    scratch.accepts(&["send-keys", "sock", "ctrl-alt-del", "enter"]);
    scratch.accepts(&["type", "sock", "-hello"]);
    scratch.accepts(&["pointer", "sock", "3", "4", "--buttons", "left,right", "--wheel", "-1"]);
    let path = scratch.path().canonicalize().unwrap().join("a.png");
    let told = machine.talker.told.lock().unwrap().clone();
    assert_eq!(told[0], format!("screenshot {}", path.display()));
    assert_eq!(told[1..3], ["keys ctrl-alt-del enter", "type -hello"]);
    assert!(told[3].contains("x: 3, y: 4, buttons: [Left, Right], wheel: -1"), "{told:?}");
    scratch.refuses(&["send-keys", "sock"], 2, &["KEYS"]);
    scratch.refuses(&["pointer", "sock", "-1", "4"], 2, &["-1"]);
    scratch.refuses(&["pointer", "sock", "1", "4", "--buttons", "top"], 2, &["top", "middle"]);
}

#[test]
fn test_requests_to_the_guest_reach_it_and_its_refusals_have_a_status_of_their_own() {
    let machine = Machine::start(u64::MAX);
    let scratch = &machine.scratch;
    scratch.accepts(&["shutdown", "sock", "--reason", "late"]);
    scratch.accepts(&["restart", "sock", "--force"]);
    scratch.accepts(&["kvp", "set", "sock", "key", "-1"]);
    assert_eq!(scratch.accepts(&["kvp", "get", "sock", "key"]), "a value\n");
    scratch.accepts(&["freeze", "sock"]);
    scratch.accepts(&["thaw", "sock"]);
    let told = machine.talker.told.lock().unwrap().clone();
    assert_eq!(told[0], r#"Shutdown { mode: PowerOff, force: false, reason: "late" }"#);
    assert_eq!(told[1], r#"Shutdown { mode: Restart, force: true, reason: "" }"#);
    assert_eq!(told[2], r#"KvpSet { pool: External, key: "key", value: "-1" }"#);
    assert_eq!(told[3], r#"KvpGet { pool: Guest, key: "key" }"#);
    assert_eq!(told[4..], ["Freeze { seconds: 60, hold: false }", "Thaw"]);
    assert!(scratch.accepts(&["status", "sock"]).contains("Heartbeat: unknown"));

    scratch.refuses(&["time-sync", "sock"], 8, &["time-sync", "hv_utils"]);
    // This guest says that it is not frozen when the command has ended.
    scratch.refuses(&["freeze", "sock", "--", "true"], 8, &["--timeout"]);
    scratch.refuses(&["freeze", "sock", "--timeout", "901"], 2, &["--timeout", "901"]);
    scratch.refuses(&["ip", "set", "sock", "--address", "10.0.0.7"], 2, &["--subnet"]);
    scratch.refuses(&["copy-to", "sock", "missing", "/tmp/"], 4, &["missing"]);
    scratch.refuses(&["copy-to", "sock", "."], 2, &["GUEST-PATH"]);
}

#[test]
fn test_memory_commands_reach_the_machine_and_show_its_state() {
    let machine = Machine::start(u64::MAX);
    let scratch = &machine.scratch;
    let text = scratch.accepts(&["memory", "status", "sock"]);
    assert!(text.contains("768 MiB") && text.contains("300 MiB"), "{text}");
    let json = scratch.accepts(&["memory", "status", "sock", "--json"]);
    assert!(json.contains("\"assigned\": 805306368"), "{json}");
    scratch.accepts(&["memory", "set", "sock", "512M"]);
    scratch.accepts(&["memory", "set", "sock"]);
    let told = machine.talker.told.lock().unwrap().clone();
    assert_eq!(told, ["memory Some(ByteSize(536870912))", "memory None"]);
    scratch.refuses(&["memory", "set", "sock", "1M"], 1, &["too small"]);
    scratch.refuses(&["memory", "set", "sock", "half"], 2, &["half"]);
    scratch.refuses(&["memory", "sock"], 2, &["sock"]);
}

#[test]
fn test_control_verbs_reach_the_machine_and_refusals_come_back() {
    let machine = Machine::start(u64::MAX);
    assert_eq!(machine.scratch.accepts(&["control", "sock", "ping"]), "");
    machine.scratch.accepts(&["control", "sock", "power-button"]);
    machine.scratch.accepts(&["control", "sock", "new-generation"]);
    machine.scratch.accepts(&["control", "sock", "stop"]);
    let told = ["power-button", "new-generation", "stop Requested"];
    assert_eq!(*machine.talker.told.lock().unwrap(), told);
    machine.scratch.refuses(
        &["control", "sock", "reset"],
        1,
        &["sock: the guest is going down already"],
    );
}

#[test]
fn test_client_without_a_machine_says_what_to_do() {
    let scratch = Scratch::new();
    scratch.refuses(&["inspect", "sock"], 1, &["sock", "--control"]);
    drop(std::os::unix::net::UnixListener::bind(scratch.path().join("dead")).unwrap());
    scratch.refuses(&["control", "dead", "stop"], 1, &["dead", "has ended"]);
    scratch.write("file", "");
    scratch.refuses(&["inspect", "file"], 1, &["file"]);
}

#[test]
fn test_disk_verbs_reach_the_machine_and_say_what_came_of_it() {
    let machine = Machine::start(u64::MAX);
    let path = machine.scratch.path().canonicalize().unwrap().join("b,c.img");
    let told = machine.scratch.accepts(&["disk", "add", "sock", "b,,c.img,readonly,id=data"]);
    assert_eq!(told, format!("{} is disk data: controller 1, LUN 2\n", path.display()));
    assert_eq!(machine.scratch.accepts(&["disk", "resize", "sock", "data", "2G"]), "");
    let heard = machine.talker.told.lock().unwrap().clone();
    assert!(
        heard[0].contains("readonly: true") && heard[0].contains(&path.display().to_string()),
        "{heard:?}"
    );
    assert_eq!(heard[1], "resize data 2147483648");
    machine.scratch.accepts(&["disk", "insert", "sock", "dvd", "b.iso"]);
    machine.scratch.accepts(&["disk", "eject", "sock", "dvd", "--force"]);
    machine.scratch.accepts(&["disk", "throttle", "sock", "data", "iops=500,bps=20M"]);
    machine.scratch.refuses(
        &["disk", "throttle", "sock", "data", "bps=0"],
        2,
        &["bps", "block the guest"],
    );
    machine.scratch.refuses(&["disk", "throttle", "sock", "data", "iops=0"], 2, &["iops", "0"]);
    let iso = machine.scratch.path().canonicalize().unwrap().join("b.iso");
    let heard = machine.talker.told.lock().unwrap().clone();
    assert_eq!(
        heard[2..],
        [
            format!("insert dvd {}", iso.display()),
            "eject dvd true".to_owned(),
            "throttle data Some(500)".to_owned()
        ]
    );
    machine.scratch.refuses(
        &["disk", "remove", "sock", "x"],
        1,
        &["sock: there is no disk `x`; there are 0:0, data"],
    );
}

#[test]
fn test_drive_is_added_with_a_disc_or_empty() {
    let machine = Machine::start(u64::MAX);
    let iso = machine.scratch.path().canonicalize().unwrap().join("b.iso");
    let told = machine.scratch.accepts(&["disk", "add", "sock", "--dvd", "b.iso,id=dvd"]);
    assert_eq!(told, format!("{} is DVD drive dvd: controller 1, LUN 3\n", iso.display()));
    for words in
        [&["disk", "add", "sock", "--dvd"][..], &["disk", "add", "sock", "--dvd", "controller=1"]]
    {
        let told = machine.scratch.accepts(words);
        assert_eq!(told, "an empty drive is DVD drive 1:3: controller 1, LUN 3\n");
    }
    let heard = machine.talker.told.lock().unwrap().clone();
    assert_eq!(
        heard,
        [format!("add dvd {:?}", Some(&iso)), "add dvd None".into(), "add dvd None".into()]
    );
    for (words, parts) in [
        (&["disk", "add", "sock"][..], &["PATH"][..]),
        (&["disk", "add", "sock", "a.img", "--dvd", "a.iso"], &["--dvd"]),
        (&["disk", "add", "sock", "--dvd", "a.iso,readonly"], &["readonly", "controller"]),
    ] {
        machine.scratch.refuses(words, 2, parts);
    }
}

#[test]
fn test_disk_command_line_that_is_wrong_says_how_it_goes() {
    let scratch = Scratch::new();
    scratch.refuses(&["disk", "add", "sock", "a.img,colour=red"], 2, &["colour", "readonly"]);
    scratch.refuses(&["disk", "add", "sock", "a.img,lun=64"], 2, &["a LUN is 0 to 63"]);
    scratch.refuses(&["disk", "add", "sock", "a.img,serial="], 2, &["serial"]);
    scratch.refuses(&["disk", "resize", "sock", "0:0", "1GB"], 2, &["1GiB"]);
    scratch.refuses(&["disk", "resize", "sock", "0:0"], 2, &["SIZE"]);
    scratch.refuses(&["disk", "grow", "sock"], 2, &["grow"]);
    scratch.refuses(&["disk", "remove", "sock", "0:0"], 1, &["sock", "--control"]);
}
