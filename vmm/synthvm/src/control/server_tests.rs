use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use synthvm_dynamic_memory::Sizes;
use synthvm_net::LinkState;
use synthvm_services::ServiceError;
use synthvm_services::protocol::ServiceKind;

use super::*;
use crate::config::{ByteSize, DiskConfig, DvdConfig, LimitsConfig};
use crate::control::{
    Client, DiskPlace, Hold, MAX_REQUEST_BYTES, Request, Responder, StopReason, StopSignals,
};
use crate::display::{PointerRequest, ScreenSize};
use crate::dynamic_memory::MemoryReport;
use crate::inspect::{DiskReport, InspectReport};
use crate::services::ServiceRequest;

/// A machine that records its requests.
#[derive(Default)]
struct Recorder {
    told: Mutex<Vec<String>>,
    disks: usize,
    /// Locked while an image is slow to open.
    opening: Mutex<()>,
    /// Requests to the guest, which the test answers.
    asked: Mutex<Vec<Responder>>,
}

impl Recorder {
    fn note(&self, what: String) -> Result<(), String> {
        self.told.lock().unwrap().push(what);
        Ok(())
    }
}

impl ControlTarget for Recorder {
    fn inspect(&self) -> InspectReport {
        let disk = DiskReport { path: "x".repeat(1000), ..Default::default() };
        InspectReport { disks: vec![disk; self.disks], ..Default::default() }
    }

    fn power_button(&self) -> Result<(), String> {
        self.note("power-button".into())
    }

    fn power_off(&self) -> Result<(), String> {
        self.note("power-off".into())
    }

    fn new_generation(&self) -> Result<(), String> {
        self.note("new-generation".into())
    }

    fn reset(&self) -> Result<(), String> {
        Err("not now".into())
    }

    fn stop(&self, reason: StopReason) -> Result<(), String> {
        self.note(format!("{reason:?}"))
    }

    fn service(&self, _: ServiceRequest, responder: Responder) {
        self.asked.lock().unwrap().push(responder);
    }

    fn pause(&self) -> Result<(), String> {
        self.note("pause".into())
    }

    fn resume(&self) -> Result<(), String> {
        self.note("resume".into())
    }

    fn check_stream(&self, kind: StreamKind) -> Result<(), String> {
        match kind {
            StreamKind::Serial(port @ 1..=2) => self.note(format!("check {port}")),
            StreamKind::Serial(_) => Err("no such port".into()),
            StreamKind::Screen => Err("no screen".into()),
        }
    }

    /// Greets, and then answers with capitals until the client ends its input.
    fn open_stream(&self, kind: StreamKind, mut stream: UnixStream) -> Result<(), String> {
        self.note(format!("{kind:?}"))?;
        std::thread::spawn(move || {
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"old output\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        Ok(())
    }

    fn web_link(&self) -> Result<String, String> {
        Ok("http://127.0.0.1:1/enter/1".into())
    }

    fn add_disk(&self, disk: DiskConfig) -> Result<DiskPlace, String> {
        self.note(format!("add {}", disk.path.display()))?;
        // Waits as long as the test holds the lock.
        drop(self.opening.lock().unwrap());
        Ok(DiskPlace { id: "0:3".into(), controller: 0, lun: 3 })
    }

    fn add_dvd(&self, dvd: DvdConfig) -> Result<DiskPlace, String> {
        Err(format!("no space for {:?}", dvd.path))
    }

    fn remove_disk(&self, id: &str) -> Result<(), String> {
        self.note(format!("remove {id}"))
    }

    fn resize_disk(&self, id: &str, size: u64) -> Result<(), String> {
        self.note(format!("resize {id} {size}"))
    }

    fn throttle_disk(&self, id: &str, limits: &LimitsConfig) -> Result<(), String> {
        self.note(format!("throttle {id} {limits:?}"))
    }

    fn insert_disc(&self, id: &str, path: &Path) -> Result<(), String> {
        self.note(format!("insert {id} {}", path.display()))
    }

    fn eject_disc(&self, id: &str, force: bool) -> Result<(), String> {
        self.note(format!("eject {id} {force}"))
    }

    fn set_link(&self, id: &str, link: LinkState) -> Result<(), String> {
        self.note(format!("link {id} {link:?}"))
    }

    fn screenshot(&self, path: &Path) -> Result<ScreenSize, String> {
        self.note(format!("screenshot {}", path.display()))?;
        Ok(ScreenSize { width: 640, height: 480 })
    }

    fn send_keys(&self, keys: &str) -> Result<(), String> {
        self.note(format!("keys {keys}"))
    }

    fn type_text(&self, text: &str) -> Result<(), String> {
        self.note(format!("type {text}"))
    }

    fn point(&self, pointer: &PointerRequest) -> Result<(), String> {
        self.note(format!("point {} {}", pointer.x, pointer.y))
    }

    fn memory(&self) -> Result<MemoryReport, String> {
        Ok(MemoryReport {
            sizes: Sizes { assigned: 7, ..Default::default() },
            ..Default::default()
        })
    }

    fn set_memory(&self, size: Option<ByteSize>) -> Result<(), String> {
        self.note(format!("memory {size:?}"))
    }
}

/// A directory of its own for each test, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "synthvm-control-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server on its own event loop, stopped on drop.
struct Running {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(path: &Path, target: Arc<Recorder>) -> Self {
        let socket = ListeningSocket::bind(path).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new().unwrap();
            manager.add_subscriber(Box::new(ControlServer::new(socket, target).unwrap()));
            while !watched.load(Ordering::Relaxed) {
                manager.run_with_timeout(10).unwrap();
            }
        });
        Running { end, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn say(stream: &mut BufReader<UnixStream>, line: &str) -> String {
    stream.get_mut().write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    answer
}

fn connect(path: &Path) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    BufReader::new(stream)
}

#[test]
fn test_server_answers_each_request_by_what_the_machine_says() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder { disks: 2, ..Default::default() });
    let _running = Running::start(&scratch.socket(), Arc::clone(&target));
    let mut client = Client::connect(&scratch.socket()).unwrap();
    assert_eq!(client.inspect().unwrap(), target.inspect());
    client.request(&Request::Ping {}).unwrap();
    client.request(&Request::PowerButton {}).unwrap();
    client.request(&Request::NewGeneration {}).unwrap();
    client.request(&Request::Stop {}).unwrap();
    let refused = client.request(&Request::Reset {}).unwrap_err().to_string();
    assert!(refused.ends_with("sock: not now"), "{refused}");
    assert_eq!(*target.told.lock().unwrap(), ["power-button", "new-generation", "Requested"]);
}

#[test]
fn test_server_request_not_understood_is_answered_and_the_next_one_works() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.socket(), Arc::default());
    let mut stream = connect(&scratch.socket());
    for bad in [
        "nonsense\n",
        "{\"do\":\"explode\"}\n",
        "{}\n",
        "{\"do\":\"ping\",\"x\":1}\n",
        "\u{0}\n",
        "[[[[\n",
    ] {
        let answer = say(&mut stream, bad);
        assert!(answer.starts_with("{\"ok\":false,\"error\":\"not understood"), "{bad}: {answer}");
    }
    assert_eq!(say(&mut stream, "\n \r\n{\"do\":\"ping\"}\r\n"), "{\"ok\":true,\"value\":null}\n");
}

#[test]
fn test_server_pipelined_requests_are_all_answered_in_order_after_a_half_close() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.socket(), Arc::default());
    let mut stream = connect(&scratch.socket());
    let requests = "{\"do\":\"ping\"}\nbad\n".repeat(500) + "{\"do\":\"ping\"}";
    stream.get_mut().write_all(requests.as_bytes()).unwrap();
    stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let done: Vec<bool> = answers.lines().map(|line| line.starts_with("{\"ok\":true")).collect();
    let expected: Vec<bool> = (0..1001).map(|index| index % 2 == 0).collect();
    assert_eq!(done, expected);
}

#[test]
fn test_server_connection_becomes_a_stream_after_its_answer() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let _running = Running::start(&scratch.socket(), Arc::clone(&target));
    let client = Client::connect(&scratch.socket()).unwrap();
    let mut stream = client.into_stream(&Request::OpenSerial { port: 2 }).unwrap();
    stream.write_all(b"{\"do\":\"stop\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old output\n{\"DO\":\"STOP\"}\n", "no request any more");
    assert_eq!(*target.told.lock().unwrap(), ["check 2", "Serial(2)"]);
}

#[test]
fn test_server_streams_are_no_clients_any_more() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.socket(), Arc::default());
    let streams: Vec<_> = (0..=MAX_CLIENTS)
        .map(|_| {
            let client = Client::connect(&scratch.socket()).unwrap();
            client.into_stream(&Request::OpenSerial { port: 1 }).unwrap()
        })
        .collect();
    Client::connect(&scratch.socket()).unwrap().request(&Request::Ping {}).unwrap();
    drop(streams);
}

#[test]
fn test_server_stream_that_is_refused_leaves_a_client() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.socket(), Arc::default());
    let mut stream = connect(&scratch.socket());
    for (request, error) in [
        ("{\"do\":\"open-screen\"}\n", "no screen"),
        ("{\"do\":\"open-serial\",\"port\":3}\n", "no such port"),
    ] {
        let answer = say(&mut stream, request);
        assert!(answer.contains(error), "{answer}");
    }
    assert!(say(&mut stream, "{\"do\":\"pause\"}\n").contains("true"));
    // Bytes before the answer have two meanings.
    let early = "{\"do\":\"open-serial\"}\n{\"do\":\"ping\"}\n";
    let answer = say(&mut stream, early);
    assert!(answer.contains("wait for the answer"), "{answer}");
}

#[test]
fn test_server_line_one_past_the_limit_ends_that_client_only() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.socket(), Arc::default());
    let mut other = connect(&scratch.socket());
    let ping = "{\"do\":\"ping\"}";
    let request = |length: usize| format!("{ping}{}\n", " ".repeat(length - ping.len() - 1));
    let mut stream = connect(&scratch.socket());
    assert!(say(&mut stream, &request(MAX_REQUEST_BYTES)).contains("\"ok\":true"));
    // The server may close the connection before the last byte is written.
    let _ = stream.get_mut().write_all(request(MAX_REQUEST_BYTES + 1).as_bytes());
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    assert!(answer.contains("at most 65536 bytes"), "{answer}");
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap_or(0), 0, "hung up");
    assert!(say(&mut other, &format!("{ping}\n")).contains("\"ok\":true"));
}

#[test]
fn test_server_client_that_never_reads_does_not_hold_up_another() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder { disks: 300, ..Default::default() });
    let _running = Running::start(&scratch.socket(), target);
    let slow = connect(&scratch.socket());
    slow.get_ref().set_nonblocking(true).unwrap();
    // As many requests as the sockets accept, with an answer of about 300 KiB each.
    while slow.get_ref().write(b"{\"do\":\"inspect\"}\n").is_ok() {}
    for _ in 0..20 {
        assert_eq!(Client::connect(&scratch.socket()).unwrap().inspect().unwrap().disks.len(), 300);
    }
}

#[test]
fn test_server_client_beyond_the_limit_is_hung_up_on_until_one_leaves() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.socket(), Arc::default());
    let ping = "{\"do\":\"ping\"}\n";
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&scratch.socket())).collect();
    for client in &mut clients {
        assert!(say(client, ping).contains("\"ok\":true"));
    }
    let mut rest = Vec::new();
    assert_eq!(connect(&scratch.socket()).read_to_end(&mut rest).unwrap_or(0), 0);
    clients.pop();
    // The server may learn of the departure after the next client: it may close another connection,
    // but only a limited number.
    let served = (0..10_000).any(|_| {
        let mut client = connect(&scratch.socket());
        let mut answer = String::new();
        client.get_mut().write_all(ping.as_bytes()).is_ok()
            && client.read_line(&mut answer).is_ok_and(|read| read > 0)
    });
    assert!(served);
}

#[test]
fn test_client_without_a_machine_says_what_to_do() {
    let scratch = Scratch::new();
    let error = Client::connect(&scratch.socket()).unwrap_err().to_string();
    assert!(error.contains("--control"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap());
    let error = Client::connect(&scratch.socket()).unwrap_err().to_string();
    assert!(error.contains("has ended"), "{error}");
}

#[test]
fn test_client_of_a_machine_that_accepts_none_gets_an_error() {
    let scratch = Scratch::new();
    let socket = ListeningSocket::bind(&scratch.socket()).unwrap();
    // SAFETY: listen takes a descriptor and a number; the descriptor is an open socket.
    assert_eq!(unsafe { libc::listen(socket.listener().as_raw_fd(), 0) }, 0);
    let connect = || Client::connect_within(&scratch.socket(), Duration::from_millis(1));
    let waiting: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
    assert!(!waiting.is_empty());
    let error = connect().unwrap_err().to_string();
    assert!(error.contains("accepts no clients"), "{error}");
}

fn signals(grace: u64) -> (StopSignals, Arc<Recorder>) {
    let target = Arc::new(Recorder::default());
    (StopSignals::new(Duration::from_secs(grace), Arc::clone(&target) as _).unwrap(), target)
}

#[test]
fn test_stop_first_signal_asks_the_guest_and_the_second_stops() {
    let (mut stop, target) = signals(3600);
    stop.on_signal(libc::SIGTERM);
    assert_eq!(*target.told.lock().unwrap(), ["power-off"]);
    stop.on_signal(libc::SIGINT);
    assert_eq!(*target.told.lock().unwrap(), ["power-off", "Signal(2)"]);
}

#[test]
fn test_stop_signal_that_is_blocked_is_read_from_the_descriptor() {
    crate::control::block_stop_signals().unwrap();
    let (mut stop, target) = signals(3600);
    // SAFETY: raise takes a number; the signal is blocked in this thread, and is sent only to it.
    assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
    stop.take_signals();
    assert_eq!(*target.told.lock().unwrap(), ["power-off"]);
    stop.take_signals();
    assert_eq!(target.told.lock().unwrap().len(), 1, "a signal counts once");
}

#[test]
fn test_stop_at_the_end_of_the_grace_period_names_the_first_signal() {
    let (mut stop, target) = signals(3600);
    stop.on_signal(libc::SIGTERM);
    stop.on_timer();
    assert_eq!(*target.told.lock().unwrap(), ["power-off", "Signal(15)"]);
}

#[test]
fn test_stop_without_grace_stops_immediately() {
    let (mut stop, target) = signals(0);
    stop.on_signal(libc::SIGTERM);
    assert_eq!(*target.told.lock().unwrap(), ["Signal(15)"]);
}

#[test]
fn test_server_request_that_waits_for_a_file_delays_no_other_client() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let _running = Running::start(&scratch.socket(), Arc::clone(&target));
    let slow = target.opening.lock().unwrap();
    let (mut first, mut second) = (connect(&scratch.socket()), connect(&scratch.socket()));
    // Three requests together: the answers keep their order although the first takes longest.
    let lines = b"{\"do\":\"disk-add\",\"disk\":{\"path\":\"/a.img\"}}\n{\"do\":\"reset\"}\n{\"do\":\"disk-remove\",\"id\":\"x\"}\n";
    first.get_mut().write_all(lines).unwrap();
    assert!(say(&mut second, "{\"do\":\"power-button\"}\n").contains("\"ok\":true"));
    drop(slow);
    let mut answers = [const { String::new() }; 3];
    for answer in &mut answers {
        first.read_line(answer).unwrap();
    }
    assert!(answers[0].contains("\"lun\":3"), "{answers:?}");
    assert!(answers[1].contains("not now"), "{answers:?}");
    assert!(answers[2].contains("\"ok\":true"), "{answers:?}");
    let mut told = target.told.lock().unwrap().clone();
    assert_eq!(told.pop().as_deref(), Some("remove x"));
    told.sort();
    assert_eq!(told, ["add /a.img", "power-button"]);
}

#[test]
fn test_server_client_that_leaves_before_its_answer_affects_no_other() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let _running = Running::start(&scratch.socket(), Arc::clone(&target));
    let slow = target.opening.lock().unwrap();
    let mut leaving = connect(&scratch.socket());
    leaving.get_mut().write_all(b"{\"do\":\"disk-add\",\"disk\":{\"path\":\"/a.img\"}}\n").unwrap();
    // Answered after the server has received the request above, which came first.
    let mut staying = connect(&scratch.socket());
    while target.told.lock().unwrap().is_empty() {
        assert!(say(&mut staying, "{\"do\":\"ping\"}\n").contains("\"ok\":true"));
    }
    drop(leaving);
    drop(slow);
    let answer = say(&mut staying, "{\"do\":\"disk-resize\",\"id\":\"0:3\",\"size\":\"1G\"}\n");
    assert!(answer.contains("\"ok\":true"), "{answer}");
    assert_eq!(*target.told.lock().unwrap(), ["add /a.img", "resize 0:3 1073741824"]);
}

/// Runs the event loop until it has no events. Returns the number of wakeups.
fn run_until_idle(manager: &mut EventManager<Box<dyn MutEventSubscriber>>) -> usize {
    (0..1000)
        .find(|_| manager.run_with_timeout(0).unwrap() == 0)
        .expect("the event loop is woken again and again for nothing")
}

/// Returns a server on an event loop that the test runs.
fn manual(path: &Path, target: &Arc<Recorder>) -> EventManager<Box<dyn MutEventSubscriber>> {
    let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new().unwrap();
    let socket = ListeningSocket::bind(path).unwrap();
    manager.add_subscriber(Box::new(ControlServer::new(socket, Arc::clone(target) as _).unwrap()));
    manager
}

#[test]
fn test_server_client_that_hangs_up_while_it_waits_does_not_spin_the_event_loop() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let mut manager = manual(&scratch.socket(), &target);
    let slow = target.opening.lock().unwrap();
    let mut leaving = connect(&scratch.socket());
    // The second request has not started when the client leaves.
    let lines =
        b"{\"do\":\"disk-add\",\"disk\":{\"path\":\"/a.img\"}}\n{\"do\":\"power-button\"}\n";
    leaving.get_mut().write_all(lines).unwrap();
    run_until_idle(&mut manager);
    drop(leaving);
    assert!(run_until_idle(&mut manager) <= 3);
    drop(slow);
    // Requests on files run one after another: the previous one has ended when this one is
    // answered.
    let mut other = connect(&scratch.socket());
    other.get_mut().write_all(b"{\"do\":\"disk-remove\",\"id\":\"x\"}\n").unwrap();
    other.get_ref().set_nonblocking(true).unwrap();
    let mut answer = String::new();
    while other.read_line(&mut answer).is_err() {
        manager.run_with_timeout(10).unwrap();
    }
    assert!(answer.contains("\"ok\":true"), "{answer}");
    assert_eq!(*target.told.lock().unwrap(), ["add /a.img", "remove x"]);
}

#[test]
fn test_server_client_that_only_stops_sending_gets_its_answer_and_does_not_spin_the_event_loop() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let mut manager = manual(&scratch.socket(), &target);
    let slow = target.opening.lock().unwrap();
    let mut client = connect(&scratch.socket());
    client.get_mut().write_all(b"{\"do\":\"disk-add\",\"disk\":{\"path\":\"/a.img\"}}\n").unwrap();
    client.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    run_until_idle(&mut manager);
    drop(slow);
    client.get_ref().set_nonblocking(true).unwrap();
    let mut answer = String::new();
    while client.read_line(&mut answer).is_err() {
        manager.run_with_timeout(10).unwrap();
    }
    assert!(answer.contains("\"lun\":3"), "{answer}");
}

#[test]
fn test_server_requests_on_files_one_past_the_limit_are_refused_and_others_still_work() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let mut manager = manual(&scratch.socket(), &target);
    let slow = target.opening.lock().unwrap();
    let line = b"{\"do\":\"disk-add\",\"disk\":{\"path\":\"/a.img\"}}\n";
    let send = |manager: &mut _| {
        let mut client = connect(&scratch.socket());
        client.get_mut().write_all(line).unwrap();
        run_until_idle(manager);
        client
    };
    drop(send(&mut manager));
    // One request runs, so the queue has space for as many as there may be clients.
    while target.told.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    (0..MAX_CLIENTS).for_each(|_| drop(send(&mut manager)));
    let mut refused = send(&mut manager);
    let mut answer = String::new();
    refused.read_line(&mut answer).unwrap();
    assert!(answer.contains("too many requests"), "{answer}");
    refused.get_mut().write_all(b"{\"do\":\"power-button\"}\n").unwrap();
    run_until_idle(&mut manager);
    assert_eq!(*target.told.lock().unwrap(), ["add /a.img", "power-button"]);
    drop(slow);
}

/// A request to the guest.
const THAW: &str = "{\"do\":\"service\",\"request\":{\"do\":\"thaw\"}}\n";

/// Sends a request to the guest, and returns its responder.
fn ask_guest(stream: &mut BufReader<UnixStream>, target: &Recorder) -> Responder {
    stream.get_mut().write_all(THAW.as_bytes()).unwrap();
    loop {
        if let Some(responder) = target.asked.lock().unwrap().pop() {
            return responder;
        }
        std::thread::yield_now();
    }
}

#[test]
fn test_server_answer_of_the_guest_comes_later_and_delays_only_its_client() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let _running = Running::start(&scratch.socket(), Arc::clone(&target));
    let mut first = connect(&scratch.socket());
    let responder = ask_guest(&mut first, &target);
    let mut other = connect(&scratch.socket());
    assert_eq!(say(&mut other, "{\"do\":\"ping\"}\n"), "{\"ok\":true,\"value\":null}\n");
    let error = ServiceError::NoAnswer(ServiceKind::Vss);
    responder.answer(Err::<(), _>(error));
    let mut answer = String::new();
    first.read_line(&mut answer).unwrap();
    assert!(answer.ends_with("\"cause\":\"guest\"}\n"), "{answer}");
    // A responder that is dropped is an answer, too.
    drop(ask_guest(&mut first, &target));
    answer.clear();
    first.read_line(&mut answer).unwrap();
    assert!(answer.contains("\"ok\":false") && !answer.contains("cause"), "{answer}");
}

#[test]
fn test_server_hold_ends_when_its_client_disconnects_before_or_after_the_answer() {
    let scratch = Scratch::new();
    let target = Arc::new(Recorder::default());
    let _running = Running::start(&scratch.socket(), Arc::clone(&target));
    let (sender, ended) = std::sync::mpsc::channel();
    let hold = |name: &'static str| {
        let sender = sender.clone();
        Hold::new(move || sender.send(name).unwrap_or_default())
    };
    let mut client = connect(&scratch.socket());
    ask_guest(&mut client, &target).answer_held((), hold("after"));
    let mut answer = String::new();
    client.read_line(&mut answer).unwrap();
    assert!(ended.try_recv().is_err(), "the client is still there");
    drop(client);
    let limit = Duration::from_secs(60);
    assert_eq!(ended.recv_timeout(limit), Ok("after"));

    let mut client = connect(&scratch.socket());
    let responder = ask_guest(&mut client, &target);
    drop(client);
    responder.answer_held((), hold("before"));
    assert_eq!(ended.recv_timeout(limit), Ok("before"));
}
