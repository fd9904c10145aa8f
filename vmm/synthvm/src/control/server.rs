//! The server of the control socket: a subscriber of the event loop.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use synthvm_machine::unix_socket::ListeningSocket;

use super::connection::{Connection, Turn, Wants};
use super::jobs::Jobs;
use super::{ControlTarget, StreamKind};

/// Limit of clients at a time. The connection of one more is closed immediately.
pub const MAX_CLIENTS: usize = 16;

/// The server of a control socket. Register it with an `event_manager::EventManager`; it never
/// blocks.
pub struct ControlServer {
    socket: ListeningSocket,
    jobs: Jobs,
    clients: BTreeMap<RawFd, Connection>,
    /// A reserved descriptor, to accept and close a client when no other descriptor is available.
    /// Otherwise the client would stay in the queue and wake the event loop repeatedly.
    reserve: Option<File>,
}

impl ControlServer {
    /// Returns a server of `target` on `socket`.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub fn new(socket: ListeningSocket, target: Arc<dyn ControlTarget>) -> io::Result<Self> {
        Ok(ControlServer {
            socket,
            jobs: Jobs::new(target)?,
            clients: BTreeMap::new(),
            reserve: reserve(),
        })
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let stream = match self.socket.listener().accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!(%error, "control socket: cannot accept a client");
                drop(self.reserve.take());
                drop(self.socket.listener().accept());
                self.reserve = reserve();
                return;
            }
        };
        if self.clients.len() >= MAX_CLIENTS {
            tracing::warn!(
                "control socket: {MAX_CLIENTS} clients are connected already; another connection \
                was closed"
            );
            return;
        }
        let Ok(client) = Connection::new(stream) else { return };
        let fd = client.fd();
        match ops.add(Events::new_raw(fd, EventSet::IN)) {
            Ok(()) => drop(self.clients.insert(fd, client)),
            Err(error) => tracing::warn!(?error, "control socket: cannot watch a client"),
        }
    }

    fn serve(&mut self, fd: RawFd, events: EventSet, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(&fd) else { return };
        let hung_up = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        let watched = match client.turn(&self.jobs) {
            // epoll reports a hang-up even without interest in it, repeatedly: a connection that is
            // neither read nor written would spin the event loop until its answer is ready.
            Turn::Waits(_) if hung_up && client.is_waiting() => false,
            Turn::Waits(wants) => ops.modify(Events::new_raw(fd, event_set(wants))).is_ok(),
            Turn::Becomes(kind) => return self.hand_over(fd, kind, ops),
            Turn::Over => false,
        };
        if !watched {
            // Removed from the watch before its descriptor is closed and reused for another client.
            let _ = ops.remove(Events::empty_raw(fd));
            self.clients.remove(&fd);
        }
    }
}

impl ControlServer {
    /// Passes a client's connection to the machine. It is no client of the socket any more.
    fn hand_over(&mut self, fd: RawFd, kind: StreamKind, ops: &mut EventOps<'_>) {
        let _ = ops.remove(Events::empty_raw(fd));
        let Some(client) = self.clients.remove(&fd) else { return };
        if let Err(error) = self.jobs.target().open_stream(kind, client.into_stream()) {
            tracing::warn!("control socket: {error}");
        }
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn event_set(wants: Wants) -> EventSet {
    let mut set = EventSet::empty();
    set.set(EventSet::IN, wants.read);
    set.set(EventSet::OUT, wants.write);
    set
}

impl MutEventSubscriber for ControlServer {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.socket.listener().as_raw_fd() {
            self.accept(ops);
        } else if events.fd() == self.jobs.fd() {
            self.jobs.heard();
            // There are few clients, and the call has no effect on one that still waits.
            for fd in self.clients.keys().copied().collect::<Vec<_>>() {
                self.serve(fd, EventSet::empty(), ops);
            }
        } else {
            self.serve(events.fd(), events.event_set(), ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let watched = ops
            .add(Events::new(self.socket.listener(), EventSet::IN))
            .and_then(|()| ops.add(Events::new_raw(self.jobs.fd(), EventSet::IN)));
        if let Err(error) = watched {
            tracing::error!(?error, "control socket: cannot be watched");
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
