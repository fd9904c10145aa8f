//! The thread that serves all connections: waits for events, gives each connection its turn.

mod clients;
mod connection;
mod requests;
mod scheduling;
mod token;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmbus_host::{ConnectRequest, VmBus};
use vmbus_log::LogRateLimiter;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::limits::SPACE_POLL;
use crate::pump::Scratch;
use crate::services::Services;
use crate::shared::Shared;
use crate::sockets::SocketOptions;

use clients::Client;
use connection::Connection;
use scheduling::Scheduling;
use token::Token;

/// Events of one wait.
const MAX_EVENTS: usize = 128;

/// Events of a socket, each reported once: the loop remembers them.
const SOCKET_EVENTS: EventSet =
    EventSet::IN.union(EventSet::READ_HANG_UP).union(EventSet::EDGE_TRIGGERED);

/// Events of a socket that was full. Otherwise each read of the host program would wake the loop.
const FULL_SOCKET_EVENTS: EventSet = SOCKET_EVENTS.union(EventSet::OUT);

/// The state of the thread.
pub(crate) struct EventLoop {
    shared: Arc<Shared>,
    bus: VmBus,
    epoll: Epoll,
    services: Services,
    listener: Option<UnixListener>,
    open_timeout: Duration,
    linger_time: Duration,
    /// The time until which nothing is accepted, because no descriptor was left.
    accepts_from: Option<Instant>,
    next_id: u64,
    connections: HashMap<u64, Connection>,
    /// Connections with work, each at most once.
    ready: VecDeque<u64>,
    /// Connections that the guest must open, by the end of its time.
    offered: VecDeque<(Instant, u64)>,
    /// Requests of the guest whose service's queue is full, by the end of their time.
    retries: VecDeque<(Instant, ConnectRequest)>,
    /// The time of the next attempt at them.
    retry_at: Option<Instant>,
    /// Host programs that have not sent their request, oldest first.
    clients: VecDeque<Client>,
    /// Connections to guests that do not signal free space.
    polled: Vec<u64>,
    /// Connections that the guest must end, by the end of its time.
    lingering: VecDeque<(Instant, u64)>,
    log: LogRateLimiter,
}

impl EventLoop {
    pub(crate) fn new(options: SocketOptions, bus: VmBus, shared: Arc<Shared>) -> io::Result<Self> {
        let SocketOptions { listener, services, open_timeout, linger_time } = options;
        let epoll = Epoll::new()?;
        let events = Self {
            shared,
            bus,
            epoll,
            services,
            listener,
            open_timeout,
            linger_time,
            accepts_from: None,
            next_id: 0,
            connections: HashMap::new(),
            ready: VecDeque::new(),
            offered: VecDeque::new(),
            retries: VecDeque::new(),
            retry_at: None,
            clients: VecDeque::new(),
            polled: Vec::new(),
            lingering: VecDeque::new(),
            log: LogRateLimiter::default(),
        };
        events.watch(events.shared.wake.as_raw_fd(), EventSet::IN, Token::Wake)?;
        if let Some(listener) = &events.listener {
            listener.set_nonblocking(true)?;
            events.watch(listener.as_raw_fd(), EventSet::IN, Token::Listener)?;
        }
        Ok(events)
    }

    /// Serves connections until the machine ends.
    pub(crate) fn run(mut self) {
        let mut events = vec![EpollEvent::default(); MAX_EVENTS];
        let mut scratch = Scratch::default();
        let mut scheduling = Scheduling::of_this_thread();
        let shared = Arc::clone(&self.shared);
        loop {
            let has_clients = self.wait(&mut events, &mut scheduling);
            if shared.inbox().stop {
                return self.end();
            }
            // Events of sockets are kept while a device is paused; the end of the pause wakes the
            // loop.
            let Some(_work) = shared.pause.work() else { continue };
            self.take_inbox();
            self.retry_requests();
            if has_clients {
                self.accept_clients();
            }
            self.expire();
            self.give_turns(&mut scratch, &mut scheduling);
        }
    }

    /// Waits for events. Returns whether host programs may wait to be accepted.
    fn wait(&mut self, events: &mut [EpollEvent], scheduling: &mut Scheduling) -> bool {
        let start = Instant::now();
        let timeout = self.timeout(start);
        // Rounded up: a wait that ends too early is followed by another one.
        let millis = timeout
            .map_or(-1, |time| i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        // Only a signal is an error: the descriptor and the list are valid.
        let count = self.epoll.wait(millis, events).unwrap_or_default();
        scheduling.slept(start.elapsed());
        let mut has_clients = self.accepts_from.is_some();
        for event in events.iter().take(count) {
            match Token::from_data(event.data()) {
                Token::Wake => {
                    let _ = self.shared.wake.read();
                }
                Token::Listener => has_clients = true,
                Token::Client(id) => self.client_event(id),
                Token::Socket(id) => self.socket_event(id, event.events()),
                Token::Doorbell(id) => self.make_ready(id),
            }
        }
        has_clients
    }

    /// Returns the time until the loop has work without an event.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.shared.pause.is_paused() {
            return None;
        }
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let ends = [
            self.offered.front().map(|(end, _)| *end),
            self.clients.front().map(Client::deadline),
            self.lingering.front().map(|(end, _)| *end),
            self.accepts_from,
            self.retry_at,
            (!self.polled.is_empty()).then(|| now + SPACE_POLL),
        ];
        ends.into_iter().flatten().min().map(|end| end.saturating_duration_since(now))
    }

    fn take_inbox(&mut self) {
        let (requests, opened, removed) = {
            let mut inbox = self.shared.inbox();
            (
                self.next_requests(&mut inbox.requests),
                std::mem::take(&mut inbox.opened),
                std::mem::take(&mut inbox.removed),
            )
        };
        for request in requests {
            self.connect(request, None);
        }
        for (id, channel) in opened {
            self.opened(id, channel);
        }
        for id in removed {
            self.removed(id);
        }
    }

    /// Ends the offers and the programs that are out of time, and polls for free space.
    fn expire(&mut self) {
        let now = Instant::now();
        self.expire_offers(now);
        self.expire_lingering(now);
        self.expire_clients(now);
        for id in std::mem::take(&mut self.polled) {
            self.make_ready(id);
        }
    }

    /// The machine ends: drops the last channels that the bus has passed on.
    fn end(self) {
        let opened = std::mem::take(&mut self.shared.inbox().opened);
        drop(opened);
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Ends the events of a descriptor.
    fn unwatch(&self, descriptor: RawFd) {
        // It fails only if the descriptor is not watched.
        let _ = self.epoll.ctl(ControlOperation::Delete, descriptor, EpollEvent::default());
    }

    fn watch(&self, descriptor: RawFd, events: EventSet, token: Token) -> io::Result<()> {
        let event = EpollEvent::new(events, token.to_data());
        self.epoll.ctl(ControlOperation::Add, descriptor, event)
    }

    /// Changes the events of a watched descriptor. Those that it has already are reported again.
    fn rewatch(&self, descriptor: RawFd, events: EventSet, token: Token) -> io::Result<()> {
        let event = EpollEvent::new(events, token.to_data());
        self.epoll.ctl(ControlOperation::Modify, descriptor, event)
    }
}
