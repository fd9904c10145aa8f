//! Host sockets on a bus: options, start, report, end.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmbus_host::VmBus;

use crate::counters::SocketReport;
use crate::event_loop::EventLoop;
use crate::limits::{LINGER_TIME, OPEN_TIMEOUT};
use crate::services::Services;
use crate::shared::Shared;

/// Stack of the loop's thread, which keeps no data on it.
const THREAD_STACK: usize = 512 << 10;

/// The host's ends of the sockets.
#[derive(Debug)]
pub struct SocketOptions {
    /// The socket at which host programs connect to the guest. `None`: only the guest connects.
    pub listener: Option<UnixListener>,
    /// The sockets of the services that the guest connects to.
    pub services: Services,
    /// Time in which the guest must open a connection. Default: [`OPEN_TIMEOUT`].
    pub open_timeout: Duration,
    /// Time in which the guest must end a connection that a host program has closed. Default:
    /// [`LINGER_TIME`].
    pub linger_time: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            listener: None,
            services: Services::default(),
            open_timeout: OPEN_TIMEOUT,
            linger_time: LINGER_TIME,
        }
    }
}

/// The sockets of a machine. Dropping them ends all connections.
#[derive(Debug)]
pub struct Sockets {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sockets {
    /// Serves the guest's connections and those of host programs, in a thread.
    ///
    /// # Errors
    /// The host has too few file descriptors, threads or memory, or the bus has host sockets
    /// already.
    pub fn start(options: SocketOptions, bus: &VmBus) -> io::Result<Self> {
        let shared = Arc::new(Shared::new()?);
        let events = EventLoop::new(options, bus.clone(), Arc::clone(&shared))?;
        let thread = thread::Builder::new()
            .name("vsock".to_owned())
            .stack_size(THREAD_STACK)
            .spawn(move || events.run())?;
        // From here on, dropping it ends the thread.
        let sockets = Self { shared, thread: Some(thread) };
        if !bus.set_connect_handler(Arc::clone(&sockets.shared) as _) {
            return Err(io::Error::other("the bus has host sockets already"));
        }
        Ok(sockets)
    }

    /// Returns the counters.
    #[must_use]
    pub fn report(&self) -> SocketReport {
        self.shared.counters.report()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.shared.tell(|inbox| inbox.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported, and its connections are gone.
            let _ = thread.join();
        }
    }
}
