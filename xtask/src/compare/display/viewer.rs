//! The viewer, which is that of the display server's own tests: it decodes each update.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use guest_report::animation::{Scene, frame_of};
use serde::{Deserialize, Serialize};

use super::cases::Case;
use client::{COPY_RECT, Client, DESKTOP_SIZE};

pub(super) use client::{RAW, ZRLE};

#[path = "../../../../devices/display/tests/common/client.rs"]
#[allow(dead_code, reason = "this uses a part of the client")]
mod client;

/// Timeout for an update.
const UPDATE_LIMIT: Duration = Duration::from_secs(60);

/// The symbol of the key that is pressed.
const KEY: u32 = b'a' as u32;

/// What a viewer has seen of an animation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Number of frames that it has seen as a whole.
    pub(super) frames: f64,
    /// Frames a second, from the first to the last.
    pub(super) per_second: f64,
    /// Bytes from the server.
    pub(super) bytes: f64,
    /// The median of the time from a key to its frame in milliseconds, if keys were pressed.
    pub(super) delay_ms: Option<f64>,
}

/// A viewer of a machine.
pub(super) struct Viewer {
    client: Client,
    bytes: Arc<AtomicU64>,
}

impl Viewer {
    /// Connects to a socket. The guest has set its mode already.
    pub(super) fn connect(socket: &Path, case: &Case) -> Result<Viewer, String> {
        let connected = UnixStream::connect(socket).and_then(|stream| {
            stream.set_read_timeout(Some(UPDATE_LIMIT))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| format!("{}: {error}", socket.display()))?;
        let bytes = Arc::new(AtomicU64::new(0));
        let mut client = Client::connect(Counted { stream, bytes: Arc::clone(&bytes) });
        let copies = if case.copies { &[COPY_RECT][..] } else { &[] };
        client.set_encodings(&[&[case.encoding, DESKTOP_SIZE], copies].concat());
        client.request(false);
        client.update();
        Ok(Viewer { client, bytes })
    }

    /// Watches an animation until its last frame, and presses keys where it waits for them. Panics
    /// if the server ends the connection, or sends something that the client does not decode.
    pub(super) fn watch(mut self, scene: Scene, first: u16, frames: u16) -> Seen {
        let before = self.bytes.load(Ordering::Relaxed);
        let last = first + frames - 1;
        let (mut times, mut delays) = (Vec::new(), Vec::new());
        let mut shown = None;
        let mut pressed = Instant::now();
        self.client.request(true);
        if scene == Scene::Key {
            self.press();
        }
        while shown != Some(last) {
            self.client.update();
            let (width, height) = (self.client.width, self.client.height);
            let now = frame_of(scene, width, height, &self.client.pixels);
            // Earlier animations have lower numbers.
            let now = now.filter(|number| (first..=last).contains(number));
            self.client.request(true);
            if now.is_some() && now != shown {
                shown = now;
                times.push(Instant::now());
                if scene == Scene::Key {
                    delays.push(pressed.elapsed().as_secs_f64() * 1e3);
                    if now != Some(last) {
                        pressed = Instant::now();
                        self.press();
                    }
                }
            }
        }
        delays.sort_by(f64::total_cmp);
        let span = times[times.len() - 1] - times[0];
        Seen {
            frames: times.len() as f64,
            per_second: (times.len() - 1) as f64 / span.as_secs_f64(),
            bytes: (self.bytes.load(Ordering::Relaxed) - before) as f64,
            delay_ms: delays.get(delays.len() / 2).copied(),
        }
    }

    fn press(&mut self) {
        self.client.key(KEY, true);
        self.client.key(KEY, false);
    }
}

/// A connection that counts the bytes that it reads.
struct Counted {
    stream: UnixStream,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
