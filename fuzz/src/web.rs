//! A browser of the console: heads of requests, and the frames of a WebSocket. No file and no
//! WebSocket is given without a session's path and cookie, nor a WebSocket to another origin.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use synthvm_web_console::assets::Assets;
use synthvm_web_console::bridge::{Bridge, Progress, websocket_config};
use synthvm_web_console::http::{COOKIE, Head, Request, parse};
use synthvm_web_console::site::{Answer, Site};
use synthvm_web_console::{Action, Description, Libraries, Machine, control};
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

use crate::input::Input;

/// The address of the console.
const HOST: &str = "127.0.0.1:8006";

/// Bytes of an input that stand for a secret: the path of a session, its cookie, the token of a
/// link.
const PLACEHOLDERS: [u8; 3] = [1, 2, 3];

/// Layout: the kind, the size of pieces, and the bytes of the browser.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, piece) = (input.u8(), usize::from(input.u8()).max(1));
    let bytes = input.bytes(usize::MAX);
    match kind % 3 {
        0 => requests(bytes, piece),
        1 => bridge(bytes, piece),
        _ => buttons(bytes, piece),
    }
}

/// Sends heads of requests, which are separated by zero bytes.
fn requests(bytes: &[u8], piece: usize) {
    let site = Site::new(Assets::new(Libraries::of([])));
    let link = || site.new_link().expect("random bytes");
    let Answer::Response(entered) = site.answer(&plain(&link())) else {
        panic!("a link is no WebSocket");
    };
    let between = |text: &str, start: &str, end: &str| {
        let (_, rest) = text.split_once(start).expect("the start");
        rest.split_once(end).expect("the end").0.to_owned()
    };
    let cookie = between(&entered.headers, &format!("{COOKIE}="), ";");
    let path = between(&entered.headers, "Path=/s/", "/");
    let token = link().trim_start_matches("/enter/").to_owned();
    let mut is_token_used = false;
    for head in bytes.split(|byte| *byte == 0) {
        let mut text = Vec::new();
        for byte in head {
            match PLACEHOLDERS.iter().position(|known| known == byte) {
                Some(at) => text.extend_from_slice([&path, &cookie, &token][at].as_bytes()),
                None => text.push(*byte),
            }
        }
        let Head::Whole(request) = parse_in_pieces(&text, piece) else { continue };
        let has_session = request.path.starts_with(&format!("/s/{path}/"))
            && request.cookies.iter().any(|one| *one == cookie);
        match site.answer(&request) {
            Answer::WebSocket { key, .. } => {
                assert!(has_session, "{request:?}");
                assert_eq!(request.origin, Some(format!("http://{}", request.host)));
                assert_eq!(key.len(), 24);
            }
            Answer::Response(response) if response.status == 200 && !has_session => {
                assert_eq!(request.path, format!("/enter/{token}"));
                assert!(!is_token_used, "a link works once");
                is_token_used = true;
            }
            Answer::Response(response) => {
                assert!(response.bytes().starts_with(b"HTTP/1.1 "));
            }
        }
    }
}

fn plain(path: &str) -> Request {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    match parse(head.as_bytes()) {
        Head::Whole(request) => request,
        other => panic!("{other:?}"),
    }
}

/// Returns what the first pieces that suffice say, which further bytes do not change.
fn parse_in_pieces(text: &[u8], piece: usize) -> Head {
    let whole = parse(text);
    let mut length = 0;
    while length < text.len() {
        length = (length + piece).min(text.len());
        match parse(&text[..length]) {
            Head::Partial => {}
            early => {
                assert_eq!(early, whole, "pieces do not matter");
                break;
            }
        }
    }
    whole
}

/// One end of a connection in memory: its reads return pieces of the input, then the end.
struct End<'a> {
    input: &'a [u8],
    piece: usize,
    is_ready: bool,
    written: usize,
}

impl<'a> End<'a> {
    fn new(input: &'a [u8], piece: usize) -> Self {
        End { input, piece, is_ready: true, written: 0 }
    }
}

impl Read for End<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = self.piece.min(buffer.len()).min(self.input.len());
        buffer[..length].copy_from_slice(&self.input[..length]);
        self.input = &self.input[length..];
        Ok(length)
    }
}

impl Write for End<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.piece.min(bytes.len());
        self.written += length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Carries the messages of a browser to a stream that takes pieces.
fn bridge(bytes: &[u8], piece: usize) {
    let browser = End::new(bytes, piece);
    let websocket = WebSocket::from_raw_socket(browser, Role::Server, Some(websocket_config()));
    let mut taken = 0;
    let stream = Sink { taken: &mut taken, piece };
    let mut bridge = Bridge::new(websocket, stream);
    // Each read and each write of a piece is at most one step, and so is each pause between them.
    let ended = (0..8 * bytes.len() + 64).any(|_| match bridge.progress() {
        Ok(Progress::Ended) | Err(_) => true,
        Ok(Progress::Moved | Progress::Nothing) => false,
    });
    assert!(ended, "the end of the browser ends the bridge");
    drop(bridge);
    assert!(taken <= bytes.len(), "a frame has a head");
}

/// A stream that takes pieces and sends nothing.
struct Sink<'a> {
    taken: &'a mut usize,
    piece: usize,
}

impl Read for Sink<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.piece.min(bytes.len());
        *self.taken += length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A machine that counts the actions that it is asked for.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Machine for Counting {
    fn describe(&self) -> Result<Description, String> {
        Ok(Description::default())
    }

    fn perform(&self, _: &Action) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn open_screen(&self) -> Result<UnixStream, String> {
        Err("none".to_owned())
    }

    fn open_serial(&self) -> Result<UnixStream, String> {
        Err("none".to_owned())
    }
}

/// Serves the page's buttons to any bytes.
fn buttons(bytes: &[u8], piece: usize) {
    let browser = End::new(bytes, piece);
    let websocket = WebSocket::from_raw_socket(browser, Role::Server, Some(websocket_config()));
    let machine = Counting::default();
    // An error is the usual end.
    let _ = control::serve(websocket, &machine);
    // The shortest action is longer than a frame's head.
    assert!(machine.0.into_inner() <= bytes.len() / 10);
}
