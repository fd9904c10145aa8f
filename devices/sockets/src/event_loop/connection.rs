//! Connections: offered, opened, served, ended.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, warn};
use vmbus_host::{Channel, ChannelKey, OfferError};
use vmbus_protocol::Guid;
use vmm_sys_util::epoll::EventSet;

use super::{EventLoop, FULL_SOCKET_EVENTS, SOCKET_EVENTS, Scheduling, Token};
use crate::device::ConnectionDevice;
use crate::limits::MAX_CONNECTIONS;
use crate::protocol::{Initiator, offer};
use crate::pump::{Pump, Scratch, Turn};

/// A connection that the guest has been offered.
pub(super) struct Connection {
    stage: Stage,
    /// It is in the queue of connections with work.
    is_ready: bool,
    /// The loop gets the event that the socket takes bytes.
    awaits_space: bool,
    /// It is in the queue of connections that the guest must end.
    is_lingering: bool,
}

enum Stage {
    /// The guest has not opened the channel yet.
    Offered {
        key: ChannelKey,
        socket: UnixStream,
        /// The line that tells a host program that the guest has accepted.
        reply: Option<String>,
    },
    Open(Box<Pump<Channel>>),
}

impl Connection {
    fn new(stage: Stage) -> Self {
        Self { stage, is_ready: false, awaits_space: false, is_lingering: false }
    }
}

/// A connection to be offered.
pub(super) struct Proposal {
    pub(super) initiator: Initiator,
    pub(super) service: Guid,
    pub(super) endpoint: Guid,
    pub(super) socket: UnixStream,
    pub(super) reply: Option<String>,
}

impl EventLoop {
    /// Returns true if another connection is possible.
    pub(super) fn has_space(&self) -> bool {
        self.connections.len() + self.retries.len() < MAX_CONNECTIONS
    }

    /// Offers a connection to the guest.
    ///
    /// # Errors
    /// The bus refuses it. The socket is closed.
    pub(super) fn propose(&mut self, proposal: Proposal) -> Result<(), OfferError> {
        let Proposal { initiator, service, endpoint, socket, reply } = proposal;
        let id = self.new_id();
        let offer = offer(initiator, service, endpoint);
        let device = ConnectionDevice::new(offer, id, Arc::clone(&self.shared));
        let key = self.bus.offer(Box::new(device))?;
        let stage = Stage::Offered { key, socket, reply };
        self.connections.insert(id, Connection::new(stage));
        self.offered.push_back((Instant::now() + self.open_timeout, id));
        self.shared.counters.pending.add(1);
        Ok(())
    }

    /// Takes a channel that the guest has opened.
    pub(super) fn opened(&mut self, id: u64, channel: Channel) {
        // Without the connection, the guest was too late: dropping the channel rescinds it.
        let Some(connection) = self.connections.remove(&id) else { return };
        let Stage::Offered { mut socket, reply, .. } = connection.stage else { return };
        let counters = &self.shared.counters;
        counters.pending.sub(1);
        let counter = if reply.is_some() { &counters.from_host } else { &counters.from_guest };
        // The program's socket is new, so the line fits.
        let is_told = reply.is_none_or(|reply| socket.write_all(reply.as_bytes()).is_ok());
        if !is_told {
            return;
        }
        let doorbell = channel.doorbell().as_raw_fd();
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let watched = self
            .watch(doorbell, events, Token::Doorbell(id))
            .and_then(|()| self.watch(socket.as_raw_fd(), SOCKET_EVENTS, Token::Socket(id)));
        if let Err(error) = watched {
            counters.failed.add(1);
            self.unwatch(doorbell);
            self.log.log(|suppressed| warn!(%error, suppressed, "a socket connection was reset"));
            return;
        }
        counter.add(1);
        counters.open.add(1);
        let stage = Stage::Open(Box::new(Pump::new(channel, socket)));
        self.connections.insert(id, Connection::new(stage));
        self.make_ready(id);
    }

    /// Forgets a connection that the bus has dropped. Without an open channel, the guest has
    /// released the offer.
    pub(super) fn removed(&mut self, id: u64) {
        let is_offered =
            |connection: &Connection| matches!(connection.stage, Stage::Offered { .. });
        if self.connections.get(&id).is_some_and(is_offered) {
            self.connections.remove(&id);
            self.shared.counters.pending.sub(1);
            self.shared.counters.unanswered.add(1);
        }
    }

    /// Rescinds the connections that the guest has not opened in time.
    pub(super) fn expire_offers(&mut self, now: Instant) {
        while let Some((end, id)) = self.offered.front().copied() {
            let key = match self.connections.get(&id) {
                Some(Connection { stage: Stage::Offered { key, .. }, .. }) => Some(*key),
                // It was opened in time, or is gone.
                _ => None,
            };
            if key.is_some() && end > now {
                return;
            }
            self.offered.pop_front();
            if let Some(key) = key {
                self.bus.rescind(key);
                self.removed(id);
            }
        }
    }

    /// Gives the guest time to end a connection that the host program has closed.
    fn linger(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.is_lingering, true)
        {
            self.lingering.push_back((Instant::now() + self.linger_time, id));
        }
    }

    /// Drops the connections that the guest has not ended in time.
    pub(super) fn expire_lingering(&mut self, now: Instant) {
        while let Some((end, id)) = self.lingering.front().copied() {
            if end > now && self.connections.contains_key(&id) {
                return;
            }
            self.lingering.pop_front();
            self.close(id);
        }
    }

    pub(super) fn socket_event(&mut self, id: u64, events: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Stage::Open(pump) = &mut connection.stage else { return };
        if pump.socket_events(events) {
            self.make_ready(id);
        } else if connection.awaits_space && !pump.is_socket_full() {
            // The host program has read, although the socket was not full.
            connection.awaits_space = false;
            let socket = pump.socket().as_raw_fd();
            // Without the change, the event comes again.
            let _ = self.rewatch(socket, SOCKET_EVENTS, Token::Socket(id));
        }
    }

    /// Asks for the event that the socket of a connection takes bytes, if it was full. Returns
    /// false if that is not possible.
    fn await_space(&mut self, id: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return true };
        let Stage::Open(pump) = &connection.stage else { return true };
        if connection.awaits_space || !pump.is_socket_full() {
            return true;
        }
        connection.awaits_space = true;
        let socket = pump.socket().as_raw_fd();
        match self.rewatch(socket, FULL_SOCKET_EVENTS, Token::Socket(id)) {
            Ok(()) => true,
            Err(error) => {
                self.shared.counters.failed.add(1);
                self.log
                    .log(|suppressed| warn!(%error, suppressed, "a socket connection was reset"));
                false
            }
        }
    }

    pub(super) fn make_ready(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.is_ready, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Gives each connection with work one turn.
    pub(super) fn give_turns(&mut self, scratch: &mut Scratch, scheduling: &mut Scheduling) {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.is_ready = false;
            let Stage::Open(pump) = &mut connection.stage else { continue };
            let turn = pump.turn(scratch, &self.shared.counters);
            if let Some(load) = pump.take_load() {
                scheduling.record(load);
            }
            let (must_poll, relid) = (pump.must_poll(), pump.rings().relid());
            match turn {
                Ok(Turn::Idle | Turn::More | Turn::Lingering) if !self.await_space(id) => {
                    self.close(id);
                }
                Ok(Turn::Idle) if must_poll => self.polled.push(id),
                Ok(Turn::Idle) => {}
                Ok(Turn::Lingering) => self.linger(id),
                Ok(Turn::More) => self.make_ready(id),
                Ok(Turn::Ended) => self.close(id),
                Err(fault) => {
                    self.shared.counters.broken.add(1);
                    self.log.log(|suppressed| {
                        warn!(relid, %fault, suppressed, "the guest broke a socket connection");
                    });
                    self.close(id);
                }
            }
        }
    }

    /// Drops an open connection: the guest sees its end, and so does the host program.
    fn close(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Stage::Open(mut pump) = connection.stage {
            // The bus keeps the doorbell and gives it to the next channel, so that closing this
            // descriptor does not end its events.
            self.unwatch(pump.rings().doorbell().as_raw_fd());
            self.shared.counters.open.sub(1);
            debug!(id, "socket connection closed");
        }
    }

    /// Logs that the host has no descriptor or memory for a connection.
    pub(super) fn log_failure(&self, error: &io::Error) {
        let hint = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                "no file descriptor is left; raise the limit of the process (ulimit -n)"
            }
            _ => "the host could not make it",
        };
        self.log.log(|suppressed| warn!(%error, suppressed, hint, "no socket connection"));
    }
}
