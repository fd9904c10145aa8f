//! The server over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use synthvm_web_console::{Action, Description, Libraries, Machine, StartError, WebConsole};

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 48;

/// A machine whose serial port is in the test's hands.
#[derive(Default)]
struct Ports(Mutex<Vec<UnixStream>>);

impl Machine for Ports {
    fn describe(&self) -> Result<Description, String> {
        Ok(Description::default())
    }

    fn perform(&self, _: &Action) -> Result<(), String> {
        Ok(())
    }

    fn open_screen(&self) -> Result<UnixStream, String> {
        Err("the machine has no display".to_owned())
    }

    fn open_serial(&self) -> Result<UnixStream, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        self.0.lock().unwrap().push(theirs);
        Ok(ours)
    }
}

fn start(machine: &Arc<Ports>) -> WebConsole {
    let address = "127.0.0.1:0".parse().unwrap();
    WebConsole::start(address, Libraries::default(), Arc::clone(machine) as _).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends a request, and returns its connection.
fn ask(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = connect(address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn answer(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut text = String::new();
    ask(address, path, headers).read_to_string(&mut text).unwrap();
    text
}

/// Logs in. Returns the folder of the session, and the headers of its WebSockets.
fn log_in(console: &WebConsole) -> (String, String) {
    let link = console.new_link().unwrap();
    let path = link.strip_prefix(&format!("http://{}", console.address())).unwrap();
    let text = answer(console.address(), path, "");
    let cookie = text.split("Set-Cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let folder = text.split("Path=").nth(1).unwrap().split(';').next().unwrap();
    let headers = format!(
        "Cookie: {cookie}\r\nOrigin: http://{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        console.address()
    );
    (folder.to_owned(), headers)
}

#[test]
fn test_start_on_an_address_of_other_machines_is_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
        let address = address.parse().unwrap();
        let result = WebConsole::start(address, Libraries::default(), Arc::<Ports>::default());
        assert!(matches!(result, Err(StartError::NotLoopback(_))), "{address}");
    }
    let machine = Arc::default();
    let first = start(&machine);
    let result = WebConsole::start(first.address(), Libraries::default(), machine);
    assert!(matches!(result, Err(StartError::Listen { .. })), "in use");
}

#[test]
fn test_serial_websocket_carries_bytes_both_ways() {
    let machine = Arc::<Ports>::default();
    let console = start(&machine);
    let (folder, headers) = log_in(&console);
    let mut socket = ask(console.address(), &format!("{folder}serial"), &headers);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let mut port = machine.0.lock().unwrap().pop().unwrap();
    port.write_all(b"login: ").unwrap();
    let mut frame = [0; 9];
    socket.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x82\x07login: ");
    // Masked with zeros.
    socket.write_all(b"\x82\x84\0\0\0\0root").unwrap();
    let mut typed = [0; 4];
    port.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"root");

    drop(console);
    assert_eq!(socket.read(&mut frame).unwrap_or(0), 0, "the server's end ends the connection");
    assert_eq!(port.read(&mut typed).unwrap_or(0), 0);
}

#[test]
fn test_screen_of_a_machine_without_display_is_refused_with_the_reason() {
    let console = start(&Arc::default());
    let (folder, headers) = log_in(&console);
    let text = answer(console.address(), &format!("{folder}screen"), &headers);
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("no display"), "{text}");
}

#[test]
fn test_connections_beyond_the_limit_are_closed_until_one_leaves() {
    let console = start(&Arc::default());
    let mut held: Vec<TcpStream> =
        (0..MAX_CONNECTIONS).map(|_| connect(console.address())).collect();
    // Accepted after those before it, and closed.
    assert_eq!(connect(console.address()).read(&mut [0]).unwrap_or(0), 0);
    held.pop();
    // The thread of the connection that left may need a moment: another try may come too early, but
    // only a limited number.
    let served = (0..10_000).any(|_| {
        let mut stream = connect(console.address());
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", console.address());
        let mut status = [0; 12];
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_exact(&mut status).is_ok()
            && &status == b"HTTP/1.1 403"
    });
    assert!(served);
}
