//! The clients of a serial port: any number of them up to a limit, beside the port's own host end.
//!
//! Each client sees all output from its arrival on, and before it the latest output, so that it
//! knows where it is. Each client may send input. A vCPU never waits for a client: output that a
//! slow client has not read when it leaves the scrollback is skipped for that client.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::warn;
use vmm_sys_util::eventfd::EventFd;

use super::pump::{Pumped, pump};
use super::replay::replay;
use super::{Output, SerialPort, SharedOutput};

/// Bytes of output that are kept: as much as a boot prints.
const SCROLLBACK_BYTES: usize = 64 << 10;

/// The most clients of a port.
const MAX_CLIENTS: usize = 16;

/// A port's clients. Clones are handles.
#[derive(Clone, Debug)]
pub struct SerialHub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when there are arrivals, or output for a client that has seen all.
    wake: EventFd,
}

#[derive(Debug, Default)]
struct State {
    output: Scrollback,
    /// Clients that the event loop has not taken over, each with the bytes to send first and the
    /// position of the first byte after them.
    arrivals: Vec<(UnixStream, Vec<u8>, u64)>,
    /// Number of clients, including the arrivals.
    clients: usize,
    /// The event loop has sent all output, and waits to be woken for more.
    caught_up: bool,
}

/// The latest output.
#[derive(Debug, Default)]
struct Scrollback {
    bytes: VecDeque<u8>,
    /// Position of the first byte in all output.
    start: u64,
}

impl Scrollback {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(SCROLLBACK_BYTES);
        self.bytes.drain(..excess);
        self.start += excess as u64;
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Copies bytes from a position on, or from the oldest byte if that is newer. Returns the
    /// position after them.
    fn copy(&self, position: u64, limit: usize, to: &mut Vec<u8>) -> u64 {
        let from = position.clamp(self.start, self.end());
        let offset = usize::try_from(from - self.start).unwrap_or(usize::MAX);
        let before = to.len();
        to.extend(self.bytes.iter().skip(offset).take(limit));
        from + (to.len() - before) as u64
    }
}

impl SerialHub {
    /// Returns a port's clients; there are none.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub(crate) fn new() -> io::Result<Self> {
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(SerialHub(Arc::new(Shared { state: Mutex::default(), wake })))
    }

    /// Adds a client. It gets the latest output, and everything from now on. Does not wait.
    ///
    /// # Errors
    /// There are 16 clients, or the stream cannot be made non-blocking.
    pub fn attach(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut state = self.0.lock();
        if state.clients >= MAX_CLIENTS {
            return Err(io::Error::other(format!("the port has {MAX_CLIENTS} clients already")));
        }
        let mut old = Vec::new();
        let next = state.output.copy(0, SCROLLBACK_BYTES, &mut old);
        let is_whole = state.output.start == 0;
        state.clients += 1;
        state.arrivals.push((stream, replay(&old, is_whole), next));
        drop(state);
        let _ = self.0.wake.write(1);
        Ok(())
    }

    /// Returns whether one more client can be added.
    pub fn has_room(&self) -> bool {
        self.0.lock().clients < MAX_CLIENTS
    }

    /// Returns an output that goes to the clients, and to `inner`, the port's own host end.
    pub(crate) fn output(&self, inner: SharedOutput) -> SharedOutput {
        Arc::new(Mutex::new(HubOutput { hub: self.clone(), inner }))
    }

    /// Returns the handler of the clients, for the event loop.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub(crate) fn server(&self, port: Arc<SerialPort>) -> io::Result<HubServer> {
        let drained = port.watch_drained()?;
        Ok(HubServer { hub: self.clone(), port, drained, clients: BTreeMap::new() })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct HubOutput {
    hub: SerialHub,
    inner: SharedOutput,
}

impl Output for HubOutput {
    fn write(&mut self, bytes: &[u8]) {
        let mut state = self.hub.0.lock();
        state.output.push(bytes);
        let wake = state.clients > 0 && std::mem::take(&mut state.caught_up);
        drop(state);
        if wake {
            let _ = self.hub.0.wake.write(1);
        }
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
    }
}

/// A client of a port.
struct Client {
    stream: UnixStream,
    /// Bytes to send before those of the scrollback.
    first: Vec<u8>,
    /// Position of the next byte of output to send.
    next: u64,
    /// The client sends no more input, but may still read.
    input_ended: bool,
}

impl Client {
    /// Sends as much as the client takes. Returns whether it has seen all output.
    fn send(&mut self, hub: &SerialHub) -> io::Result<bool> {
        loop {
            if self.first.is_empty() {
                let state = hub.0.lock();
                self.next = state.output.copy(self.next, 4096, &mut self.first);
            }
            if self.first.is_empty() {
                return Ok(true);
            }
            match self.stream.write(&self.first) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => drop(self.first.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The handler of a port's clients, for the event loop.
pub(crate) struct HubServer {
    hub: SerialHub,
    port: Arc<SerialPort>,
    /// Signalled when the guest has read all input.
    drained: Arc<EventFd>,
    clients: BTreeMap<RawFd, Client>,
}

impl HubServer {
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let arrivals = std::mem::take(&mut self.hub.0.lock().arrivals);
        for (stream, first, next) in arrivals {
            let fd = stream.as_raw_fd();
            match ops.add(Events::new_raw(fd, EventSet::IN | EventSet::OUT)) {
                Ok(()) => {
                    let client = Client { stream, first, next, input_ended: false };
                    self.clients.insert(fd, client);
                }
                Err(error) => {
                    warn!(?error, "serial port: cannot watch a client");
                    self.hub.0.lock().clients -= 1;
                }
            }
        }
    }

    /// Moves bytes of one client in both directions.
    fn serve(&mut self, fd: RawFd, events: EventSet, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(&fd) else { return };
        if !client.input_ended && pump(&self.port, fd, |_| {}) == Pumped::Ended {
            client.input_ended = true;
        }
        let hung_up = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        let watched = match client.send(&self.hub) {
            Ok(caught_up) if !hung_up => {
                let mut wanted = EventSet::empty();
                // A full port is read by the guest first.
                wanted.set(EventSet::IN, !client.input_ended && self.port.room() > 0);
                wanted.set(EventSet::OUT, !caught_up);
                ops.modify(Events::new_raw(fd, wanted)).is_ok()
            }
            _ => false,
        };
        if !watched {
            // Removed from the watch before its descriptor is closed and reused.
            let _ = ops.remove(Events::empty_raw(fd));
            self.clients.remove(&fd);
            self.hub.0.lock().clients -= 1;
        }
    }

    fn serve_all(&mut self, ops: &mut EventOps<'_>) {
        // Before the clients are served: output that comes later wakes the loop again.
        self.hub.0.lock().caught_up = true;
        for fd in self.clients.keys().copied().collect::<Vec<_>>() {
            self.serve(fd, EventSet::empty(), ops);
        }
    }
}

impl MutEventSubscriber for HubServer {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.hub.0.wake.as_raw_fd() {
            let _ = self.hub.0.wake.read();
            self.accept(ops);
            self.serve_all(ops);
        } else if events.fd() == self.drained.as_raw_fd() {
            let _ = self.drained.read();
            self.serve_all(ops);
        } else {
            self.serve(events.fd(), events.event_set(), ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let watched = ops
            .add(Events::new(&self.hub.0.wake, EventSet::IN))
            .and_then(|()| ops.add(Events::new(&*self.drained, EventSet::IN)));
        if let Err(error) = watched {
            warn!(?error, "serial port: clients cannot attach");
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
