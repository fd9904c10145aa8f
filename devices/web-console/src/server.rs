//! Listening, and the threads of connections.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tracing::{debug, warn};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::assets::{Assets, Libraries};
use crate::connection;
use crate::machine::Machine;
use crate::site::Site;

/// The most connections at a time, each with a thread. A page has three WebSockets and loads at
/// most six files at a time.
pub(crate) const MAX_CONNECTIONS: usize = 48;

/// The most WebSockets at a time, so that pages can load while viewers are connected.
pub(crate) const MAX_WEBSOCKETS: usize = 30;

/// Stack of a connection's thread.
const STACK_BYTES: usize = 1 << 20;

/// The browser console of one machine: a listening socket on a loopback address and its
/// connections. Dropping it ends all of them.
pub struct WebConsole {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

/// The console cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Users of other machines could connect.
    #[error(
        "{0} is no loopback address: without TLS and a password, the console listens for this \
         machine's users only; use 127.0.0.1 or [::1], and `ssh -L` from another machine"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be used.
    #[error("{address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// The system lacks a thread, descriptors or random bytes.
    #[error("{0}")]
    System(io::Error),
}

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) site: Site,
    pub(crate) machine: Arc<dyn Machine>,
    connections: Mutex<Connections>,
    stop: EventFd,
}

#[derive(Default)]
struct Connections {
    stopped: bool,
    next: u64,
    websockets: usize,
    open: BTreeMap<u64, TcpStream>,
}

/// Checks that only users of this machine can reach an address.
///
/// # Errors
/// It is not a loopback address.
pub fn check_address(address: SocketAddr) -> Result<(), StartError> {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        IpAddr::V4(ip) => IpAddr::V4(ip),
    };
    if ip.is_loopback() { Ok(()) } else { Err(StartError::NotLoopback(address)) }
}

impl WebConsole {
    /// Starts the console of a machine. Port 0 chooses a free port.
    ///
    /// # Errors
    /// The address is not a loopback address or is in use, or the host lacks descriptors or
    /// threads.
    pub fn start(
        address: SocketAddr,
        libraries: Libraries,
        machine: Arc<dyn Machine>,
    ) -> Result<Self, StartError> {
        check_address(address)?;
        let failed = |cause| StartError::Listen { address, cause };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(StartError::System)?;
        let site = Site::new(Assets::new(libraries));
        let shared = Arc::new(Shared { site, machine, connections: Mutex::default(), stop });
        let epoll = watch(&listener, &shared.stop).map_err(StartError::System)?;
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("web-accept".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || accept(&listener, &epoll, &accepting))
            .map_err(StartError::System)?;
        Ok(WebConsole { shared, address, acceptor: Some(acceptor) })
    }

    /// Returns the address, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a new link to the console. It works once.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new_link(&self) -> io::Result<String> {
        let path = self.shared.site.new_link().map_err(io::Error::other)?;
        Ok(format!("http://{}{path}", self.address))
    }
}

impl Drop for WebConsole {
    fn drop(&mut self) {
        let _ = self.shared.stop.write(1);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let mut connections = self.shared.lock();
        connections.stopped = true;
        // The threads end by themselves. One may wait for a file of the machine, and must not hold
        // up the end of the program, so they are not joined.
        for stream in connections.open.values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a WebSocket for as long as the guard exists. Returns `None` if there are too many.
    pub(crate) fn count_websocket(&self) -> Option<CountedWebSocket<'_>> {
        let mut connections = self.lock();
        if connections.websockets >= MAX_WEBSOCKETS {
            return None;
        }
        connections.websockets += 1;
        Some(CountedWebSocket(self))
    }
}

/// Counts one WebSocket.
pub(crate) struct CountedWebSocket<'a>(&'a Shared);

impl Drop for CountedWebSocket<'_> {
    fn drop(&mut self) {
        self.0.lock().websockets -= 1;
    }
}

fn watch(listener: &TcpListener, stop: &EventFd) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    for fd in [listener.as_raw_fd(), stop.as_raw_fd()] {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, fd as u64))?;
    }
    Ok(epoll)
}

fn accept(listener: &TcpListener, epoll: &Epoll, shared: &Arc<Shared>) {
    let mut events = [EpollEvent::default(); 2];
    loop {
        match epoll.wait(-1, &mut events) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return warn!("browser console: {error}"),
        }
        if shared.stop.read().is_ok() {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => start(stream, shared),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                warn!("browser console: cannot accept a connection: {error}");
                // Without a descriptor the connection stays in the queue, and would wake this
                // thread again immediately.
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

/// Starts the thread of a connection, or closes it if there are too many.
fn start(stream: TcpStream, shared: &Arc<Shared>) {
    let mut connections = shared.lock();
    if connections.open.len() >= MAX_CONNECTIONS || connections.stopped {
        debug!("browser console: {MAX_CONNECTIONS} connections exist; another one was closed");
        return;
    }
    let Ok(handle) = stream.try_clone() else { return };
    let number = connections.next;
    connections.next += 1;
    connections.open.insert(number, handle);
    let serving = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("web".to_owned()).stack_size(STACK_BYTES).spawn(
        move || {
            let _remove = Remove(&serving, number);
            connection::serve(stream, &serving);
        },
    );
    if let Err(error) = thread {
        warn!("browser console: {error}");
        connections.open.remove(&number);
    }
}

/// Removes a connection at the end of its thread.
struct Remove<'a>(&'a Shared, u64);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        self.0.lock().open.remove(&self.1);
    }
}
