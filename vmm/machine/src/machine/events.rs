//! The event loop: one thread for all work outside vCPUs and disks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::{EventManager, MutEventSubscriber, RemoteEndpoint};
use tracing::error;

/// A handler that the event loop calls.
pub type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// The event loop's thread. Dropping it ends the thread and drops its subscribers.
pub struct EventLoop {
    endpoint: RemoteEndpoint<Subscriber>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptor or thread is available.
    pub fn start() -> io::Result<EventLoop> {
        let mut manager = EventManager::<Subscriber>::new().map_err(io::Error::other)?;
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::SeqCst) {
                if let Err(error) = manager.run() {
                    error!("event loop: {error}");
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .stack_size(512 << 10)
            .spawn(run)?;
        Ok(EventLoop { endpoint, stop, thread: Some(thread) })
    }

    /// Passes a subscriber to the loop. Returns after the subscriber's `init`.
    ///
    /// # Errors
    /// The loop has ended.
    pub fn add(&self, subscriber: Subscriber) -> io::Result<()> {
        self.endpoint
            .call_blocking(move |manager| -> Result<(), event_manager::Error> {
                manager.add_subscriber(subscriber);
                Ok(())
            })
            .map_err(io::Error::other)
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.endpoint.kick();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
