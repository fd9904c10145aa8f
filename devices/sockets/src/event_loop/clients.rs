//! Host programs that connect to the guest: accepted, asked for the service.

use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use vmbus_protocol::Guid;
use vmm_sys_util::epoll::EventSet;

use super::connection::Proposal;
use super::{EventLoop, Token};
use crate::limits::{ACCEPT_PAUSE, CLIENT_TIMEOUT, MAX_CLIENTS, ROUND_REQUESTS};
use crate::protocol::{Initiator, MAX_LINE, Target, parse_request, reply};
use crate::unix;

/// A host program that has not sent its request.
pub(super) struct Client {
    id: u64,
    socket: UnixStream,
    deadline: Instant,
    /// It has sent bytes that were not examined.
    is_readable: bool,
}

impl Client {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// The outcome of reading a request.
enum Request {
    Target(Target),
    Incomplete,
    Bad,
}

impl EventLoop {
    pub(super) fn client_event(&mut self, id: u64) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.is_readable = true;
        }
    }

    /// Accepts the programs that wait, as many as one round takes.
    pub(super) fn accept_clients(&mut self) {
        let now = Instant::now();
        if self.accepts_from.is_some_and(|from| from > now) {
            return;
        }
        if let Some(listener) = &self.listener
            && self.accepts_from.take().is_some()
        {
            let _ = self.watch(listener.as_raw_fd(), EventSet::IN, Token::Listener);
        }
        for _ in 0..ROUND_REQUESTS {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, _)) => self.add_client(socket, now),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    // The program is gone already.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => {
                        self.log_failure(&error);
                        self.shared.counters.failed.add(1);
                        return self.pause_accepting(now + ACCEPT_PAUSE);
                    }
                },
            }
        }
    }

    /// Accepts nothing until `from`: the event of the listener would wake the loop in vain.
    fn pause_accepting(&mut self, from: Instant) {
        if let Some(listener) = &self.listener {
            self.unwatch(listener.as_raw_fd());
            self.accepts_from = Some(from);
        }
    }

    fn add_client(&mut self, socket: UnixStream, now: Instant) {
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.pop_front();
            self.shared.counters.bad_requests.add(1);
        }
        let id = self.new_id();
        let watched = socket.set_nonblocking(true).and_then(|()| {
            let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
            self.watch(socket.as_raw_fd(), events, Token::Client(id))
        });
        if let Err(error) = watched {
            self.shared.counters.failed.add(1);
            return self.log_failure(&error);
        }
        let deadline = now + CLIENT_TIMEOUT;
        self.clients.push_back(Client { id, socket, deadline, is_readable: true });
    }

    /// Reads the requests that have arrived, and disconnects programs that are out of time.
    pub(super) fn expire_clients(&mut self, now: Instant) {
        for mut client in std::mem::take(&mut self.clients) {
            let request = if std::mem::take(&mut client.is_readable) {
                read_request(&mut client.socket)
            } else {
                Request::Incomplete
            };
            match request {
                Request::Target(target) => self.connect_guest(target, client.socket),
                Request::Incomplete if client.deadline > now => self.clients.push_back(client),
                Request::Incomplete | Request::Bad => self.shared.counters.bad_requests.add(1),
            }
        }
    }

    fn connect_guest(&mut self, target: Target, socket: UnixStream) {
        // The socket is registered again with other events when the guest has accepted.
        self.unwatch(socket.as_raw_fd());
        let Some(endpoint) = random_guid().filter(|_| self.has_space()) else {
            return self.shared.counters.failed.add(1);
        };
        let proposal = Proposal {
            initiator: Initiator::Host,
            service: target.service(),
            endpoint,
            socket,
            reply: Some(reply(target, endpoint)),
        };
        if self.propose(proposal).is_err() {
            // The guest has not started its driver, or the bus is full.
            self.shared.counters.failed.add(1);
        }
    }
}

/// Reads a request and leaves the bytes behind it.
fn read_request(socket: &mut UnixStream) -> Request {
    let mut bytes = [0; MAX_LINE];
    let bytes = match unix::peek(socket, &mut bytes) {
        Ok(0) => return Request::Bad,
        Ok(count) => &mut bytes[..count],
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Request::Incomplete,
        Err(_) => return Request::Bad,
    };
    match parse_request(bytes) {
        Ok(Some((target, line))) => match socket.read_exact(&mut bytes[..line]) {
            Ok(()) => Request::Target(target),
            Err(_) => Request::Bad,
        },
        Ok(None) => Request::Incomplete,
        Err(_) => Request::Bad,
    }
}

/// Returns a random endpoint of the host. `None`: the system has no random numbers.
fn random_guid() -> Option<Guid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(Guid::from_bytes(bytes))
}
