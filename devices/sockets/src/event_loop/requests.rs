//! Connections of the guest to services of the host.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use vmbus_host::ConnectRequest;

use super::EventLoop;
use super::connection::Proposal;
use crate::limits::{CONNECT_TIMEOUT, RETRY_INTERVAL, ROUND_REQUESTS};
use crate::protocol::Initiator;
use crate::unix;

impl EventLoop {
    /// Takes the requests of one round. The loop is woken again for the rest.
    pub(super) fn next_requests(
        &self,
        requests: &mut VecDeque<ConnectRequest>,
    ) -> Vec<ConnectRequest> {
        let taken = requests.drain(..requests.len().min(ROUND_REQUESTS)).collect();
        if !requests.is_empty() {
            let _ = self.shared.wake.write(1);
        }
        taken
    }

    /// Connects to the service, and offers the connection. `end`: the end of the time for a
    /// service whose queue is full; `None` at the first attempt.
    pub(super) fn connect(&mut self, request: ConnectRequest, end: Option<Instant>) {
        if !self.has_space() {
            self.shared.counters.failed.add(1);
            return self.bus.refuse_connect(request);
        }
        let socket = match self.connect_service(&request) {
            Ok(socket) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let now = Instant::now();
                let end = end.unwrap_or(now + CONNECT_TIMEOUT);
                if end > now {
                    self.retry_at.get_or_insert(now + RETRY_INTERVAL);
                    return self.retries.push_back((end, request));
                }
                self.shared.counters.failed.add(1);
                return self.bus.refuse_connect(request);
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                        self.shared.counters.no_listener.add(1);
                    }
                    _ => {
                        self.shared.counters.failed.add(1);
                        self.log_failure(&error);
                    }
                }
                return self.bus.refuse_connect(request);
            }
        };
        let ConnectRequest { endpoint, service, .. } = request;
        let initiator = Initiator::Guest;
        if self.propose(Proposal { initiator, service, endpoint, socket, reply: None }).is_err() {
            // The endpoint is in use, the bus is full, or another guest has connected.
            self.shared.counters.failed.add(1);
            self.bus.refuse_connect(request);
        }
    }

    /// Tries the requests again whose service's queue was full.
    pub(super) fn retry_requests(&mut self) {
        if self.retry_at.take_if(|at| *at <= Instant::now()).is_none() {
            return;
        }
        for (end, request) in std::mem::take(&mut self.retries) {
            self.connect(request, Some(end));
        }
    }

    fn connect_service(&self, request: &ConnectRequest) -> io::Result<UnixStream> {
        let mut result = Err(ErrorKind::NotFound.into());
        for path in self.services.paths_of(request.service) {
            result = unix::connect(&path);
            let is_absent = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            if !is_absent {
                break;
            }
        }
        result
    }
}
