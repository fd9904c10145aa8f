//! The server's thread: sockets, changes of the screen, and time limits.

mod screen;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use synthvm_input::Input;
use synthvm_video::{Screen, ScreenWatch};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::canvas::Canvas;
use crate::encode::{EncodeCache, Encoder};
use crate::mailbox::{Command, Mailbox};
use crate::options::DisplayOptions;
use crate::security::Security;
use crate::socket::{Listener, ViewerSocket};
use crate::viewer::{Ending, Running, Shared, Viewer, Wants};

/// Events of a wait.
const MAX_EVENTS: usize = 64;

/// Numbers of descriptors that are neither listeners nor viewers.
const COMMANDS: u64 = 0;
const CHANGES: u64 = 1;
const FIRST_FREE: u64 = 2;

/// What the thread works with.
pub(crate) struct Setup {
    pub(crate) screen: Screen,
    pub(crate) input: Input,
    pub(crate) options: DisplayOptions,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// The server's thread.
pub(crate) struct EventLoop {
    setup: Setup,
    epoll: Epoll,
    watch: ScreenWatch,
    watches_screen: bool,
    canvas: Canvas,
    encoder: Encoder,
    cache: EncodeCache,
    listeners: BTreeMap<u64, (Listener, Security)>,
    viewers: BTreeMap<u64, Registered>,
    next_number: u64,
    /// The viewer that moved the pointer last.
    mover: Option<u64>,
    /// Whether the guest has reported what it draws since its last mode.
    has_reports: bool,
    next_refresh: Instant,
    /// A reserved descriptor, to accept and close a viewer when no other descriptor is available.
    reserve: Option<File>,
    is_stopping: bool,
}

/// A viewer, and what its descriptor is watched for.
struct Registered {
    viewer: Viewer,
    watched: EventSet,
    has_work: bool,
}

impl EventLoop {
    pub(crate) fn new(setup: Setup) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let watch = setup.screen.watch()?;
        add(&epoll, setup.mailbox.event.as_raw_fd(), COMMANDS, EventSet::IN)?;
        add(&epoll, watch.as_raw_fd(), CHANGES, EventSet::empty())?;
        let preferred = setup.screen.preferred_resolution();
        Ok(Self {
            setup,
            epoll,
            watch,
            watches_screen: false,
            canvas: Canvas::new(preferred.width, preferred.height),
            encoder: Encoder::default(),
            cache: EncodeCache::default(),
            listeners: BTreeMap::new(),
            viewers: BTreeMap::new(),
            next_number: FIRST_FREE,
            mover: None,
            has_reports: false,
            next_refresh: Instant::now(),
            reserve: reserve(),
            is_stopping: false,
        })
    }

    /// Serves until the last handle is dropped.
    ///
    /// # Errors
    /// The system's, of waiting for events.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); MAX_EVENTS];
        while !self.is_stopping {
            let timeout = self.prepare_wait()?;
            let count = match self.epoll.wait(timeout, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                self.handle(event.data(), event.event_set());
            }
            self.drop_expired();
            self.refresh_if_due();
            self.progress();
        }
        for registered in self.viewers.values_mut() {
            registered.viewer.leave(&self.setup.input);
        }
        Ok(())
    }

    /// Watches the screen as long as a viewer waits for its changes, and returns the milliseconds
    /// until something is due; -1: never.
    fn prepare_wait(&mut self) -> io::Result<i32> {
        if self.viewers.values().any(|one| one.has_work) {
            return Ok(0);
        }
        let now = Instant::now();
        let is_wanted = self.is_update_wanted();
        let is_early = self.next_refresh > now;
        let watches_screen = is_wanted && !is_early;
        if watches_screen != self.watches_screen {
            let set = if watches_screen { EventSet::IN } else { EventSet::empty() };
            modify(&self.epoll, self.watch.as_raw_fd(), CHANGES, set)?;
            self.watches_screen = watches_screen;
        }
        let refresh = (is_wanted && is_early).then_some(self.next_refresh);
        let poll = (is_wanted && self.must_poll()).then(|| self.next_poll());
        let DisplayOptions { login_timeout, stall_timeout, .. } = self.setup.options;
        let deadlines = self
            .viewers
            .values()
            .filter_map(|one| one.viewer.deadline(login_timeout, stall_timeout));
        let Some(first) = deadlines.chain(refresh).chain(poll).min() else { return Ok(-1) };
        // Rounded up, so that it is due when the wait ends.
        let left = first.saturating_duration_since(now) + Duration::from_micros(999);
        Ok(i32::try_from(left.as_millis()).unwrap_or(i32::MAX))
    }

    fn handle(&mut self, number: u64, events: EventSet) {
        match number {
            COMMANDS => {
                for command in self.setup.mailbox.take() {
                    self.command(command);
                }
            }
            CHANGES => {}
            _ if self.listeners.contains_key(&number) => self.accept(number),
            _ => self.read(number, events),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::AddViewer(socket, security) => self.add_viewer(socket, security),
            Command::Listen(listener, security) => {
                let number = self.number();
                let watched = listener
                    .prepare()
                    .and_then(|()| add(&self.epoll, listener.as_raw_fd(), number, EventSet::IN));
                match watched {
                    Ok(()) => drop(self.listeners.insert(number, (listener, security))),
                    Err(error) => tracing::error!(%error, "display server: cannot listen"),
                }
            }
            Command::Stop => self.is_stopping = true,
        }
    }

    fn accept(&mut self, number: u64) {
        let Some((listener, security)) = self.listeners.get(&number) else { return };
        match listener.accept() {
            Ok(socket) => {
                let security = security.clone();
                self.add_viewer(socket, security);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "display server: cannot accept a viewer");
                drop(self.reserve.take());
                drop(listener.accept());
                self.reserve = reserve();
            }
        }
    }

    fn add_viewer(&mut self, socket: ViewerSocket, security: Security) {
        let counters = &self.setup.mailbox.counters;
        counters.connections.add(1);
        let limit = self.setup.options.max_viewers;
        if self.viewers.len() >= limit {
            counters.turned_away.add(1);
            tracing::warn!(
                "display server: {limit} viewers are connected already; another connection was \
                 closed"
            );
            return;
        }
        let number = self.number();
        let watched = EventSet::IN;
        let viewer = Viewer::new(socket, security).and_then(|viewer| {
            add(&self.epoll, viewer.fd(), number, watched)?;
            Ok(viewer)
        });
        match viewer {
            Ok(viewer) => {
                self.viewers.insert(number, Registered { viewer, watched, has_work: true });
                self.count_viewers();
            }
            Err(error) => tracing::warn!(%error, "display server: cannot serve a viewer"),
        }
    }

    fn read(&mut self, number: u64, events: EventSet) {
        let Some(registered) = self.viewers.get(&number) else { return };
        if !events.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) {
            return;
        }
        if !registered.viewer.is_running() {
            // The viewer learns the size of the screen when it has logged in.
            self.refresh();
        }
        let result = self.with(number, Viewer::read);
        let is_mover = |registered: &mut Registered| {
            registered.viewer.running().is_some_and(Running::take_moved)
        };
        if self.viewers.get_mut(&number).is_some_and(is_mover) {
            self.mover = Some(number);
        }
        match result {
            Some(Err(ending)) => self.remove(number, &ending),
            Some(Ok(())) => {
                if let Some(registered) = self.viewers.get_mut(&number) {
                    registered.has_work = true;
                }
            }
            None => {}
        }
    }

    /// Lets each viewer that can progress do so.
    fn progress(&mut self) {
        for number in self.viewers.keys().copied().collect::<Vec<_>>() {
            match self.with(number, Viewer::progress) {
                Some(Ok(wants)) => self.watch_viewer(number, wants),
                Some(Err(ending)) => self.remove(number, &ending),
                None => {}
            }
        }
        if self.viewers.len() < 2 {
            self.cache.clear();
        }
    }

    fn watch_viewer(&mut self, number: u64, wants: Wants) {
        let Some(registered) = self.viewers.get_mut(&number) else { return };
        registered.has_work = wants.progress;
        let mut set = EventSet::empty();
        set.set(EventSet::IN, wants.read);
        set.set(EventSet::OUT, wants.write);
        if set == registered.watched {
            return;
        }
        registered.watched = set;
        if let Err(error) = modify(&self.epoll, registered.viewer.fd(), number, set) {
            self.remove(number, &Ending::Socket(error));
        }
    }

    fn remove(&mut self, number: u64, ending: &Ending) {
        let Some(mut registered) = self.viewers.remove(&number) else { return };
        match ending {
            Ending::Left => {}
            Ending::Socket(error) => tracing::debug!(%error, "display server: a viewer is gone"),
            Ending::Malformed(error) => {
                self.setup.mailbox.counters.malformed.add(1);
                tracing::warn!(%error, "display server: a viewer was dropped");
            }
        }
        registered.viewer.leave(&self.setup.input);
        let fd = registered.viewer.fd();
        let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        self.count_viewers();
    }

    fn drop_expired(&mut self) {
        let now = Instant::now();
        let DisplayOptions { login_timeout, stall_timeout, .. } = self.setup.options;
        let is_expired = |registered: &Registered| {
            let deadline = registered.viewer.deadline(login_timeout, stall_timeout);
            deadline.is_some_and(|deadline| deadline <= now)
        };
        let expired: Vec<u64> = self
            .viewers
            .iter()
            .filter(|(_, registered)| is_expired(registered))
            .map(|(number, _)| *number)
            .collect();
        for number in expired {
            self.setup.mailbox.counters.dropped.add(1);
            tracing::warn!("display server: a viewer that did not read or log in was dropped");
            self.remove(number, &Ending::Left);
        }
    }

    fn with<T>(
        &mut self,
        number: u64,
        call: impl FnOnce(&mut Viewer, &mut Shared<'_>) -> T,
    ) -> Option<T> {
        let has_others = self.viewers.len() > 1;
        let registered = self.viewers.get_mut(&number)?;
        let mut shared = Shared {
            screen: &self.setup.screen,
            input: &self.setup.input,
            canvas: &self.canvas,
            encoder: &mut self.encoder,
            cache: has_others.then_some(&mut self.cache),
            counters: &self.setup.mailbox.counters,
            name: &self.setup.options.name,
        };
        Some(call(&mut registered.viewer, &mut shared))
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn count_viewers(&self) {
        self.setup.mailbox.counters.viewers.set(self.viewers.len());
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn add(epoll: &Epoll, fd: RawFd, number: u64, set: EventSet) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(set, number))
}

fn modify(epoll: &Epoll, fd: RawFd, number: u64, set: EventSet) -> io::Result<()> {
    epoll.ctl(ControlOperation::Modify, fd, EpollEvent::new(set, number))
}
