//! A listening Unix socket as a port's host end: one client at a time; clients may disconnect and
//! reconnect.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::warn;

use super::pump::{Pumped, pump};
use super::{Output, SerialPort};
use crate::unix_socket::{ListeningSocket, SocketError};

/// Bytes of output kept for an absent or slow client: as much as a boot prints. The oldest bytes
/// are dropped first.
const BACKLOG: usize = 64 << 10;
/// Milliseconds that a vCPU waits for a connected client whose buffers are full, before bytes are
/// dropped.
const PATIENCE_MS: libc::c_int = 1000;

/// The sending half; the port's [`Output`].
#[derive(Default)]
pub(crate) struct SocketOutput {
    client: Option<Arc<UnixStream>>,
    backlog: VecDeque<u8>,
    /// The client did not read for [`PATIENCE_MS`]. No vCPU waits for it again until it has read
    /// some bytes.
    stalled: bool,
    /// A vCPU waits for the client, with the lock of this output held.
    waits: Arc<AtomicBool>,
}

impl Output for SocketOutput {
    fn write(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
        self.flush();
        if self.backlog.len() > BACKLOG && self.client.is_some() && !self.stalled {
            self.wait();
            self.flush();
        }
        let excess = self.backlog.len().saturating_sub(BACKLOG);
        self.backlog.drain(..excess);
    }
}

impl SocketOutput {
    fn flush(&mut self) {
        let Some(client) = &self.client else { return };
        while !self.backlog.is_empty() {
            let (bytes, _) = self.backlog.as_slices();
            match (&mut &**client).write(bytes) {
                Ok(written) => {
                    self.backlog.drain(..written);
                    self.stalled = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The event loop sees the hang-up and drops the client; the bytes stay for the next
                // client.
                Err(_) => return,
            }
        }
    }

    fn wait(&mut self) {
        let Some(client) = &self.client else { return };
        let mut poll = libc::pollfd { fd: client.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        self.waits.store(true, Ordering::SeqCst);
        // SAFETY: one live entry.
        self.stalled = unsafe { libc::poll(&raw mut poll, 1, PATIENCE_MS) } == 0;
        // Before the flush that follows: it sees the space of every event that the event loop
        // leaves to this thread.
        self.waits.store(false, Ordering::SeqCst);
    }
}

/// The listening and receiving half, for the event loop. Dropping it removes the socket's file.
pub(crate) struct SocketServer {
    socket: ListeningSocket,
    output: Arc<Mutex<SocketOutput>>,
    port: Option<Arc<SerialPort>>,
    client: Option<Arc<UnixStream>>,
    /// See [`SocketOutput::waits`].
    waits: Arc<AtomicBool>,
}

impl SocketServer {
    /// Listens at `path`, where only this user may connect. Replaces a socket on which no program
    /// listens.
    ///
    /// # Errors
    /// The errors of [`ListeningSocket::bind`].
    pub(crate) fn bind(path: &Path) -> Result<SocketServer, SocketError> {
        let socket = ListeningSocket::bind(path)?;
        let waits = Arc::<AtomicBool>::default();
        let output = SocketOutput { waits: Arc::clone(&waits), ..SocketOutput::default() };
        let output = Arc::new(Mutex::new(output));
        Ok(SocketServer { socket, output, port: None, client: None, waits })
    }

    /// Returns the sending half, for the port.
    pub(crate) fn output(&self) -> Arc<Mutex<SocketOutput>> {
        Arc::clone(&self.output)
    }

    /// Sets the port of the receiving half. Must be called before the server is added to the event
    /// loop.
    pub(crate) fn connect(&mut self, port: Arc<SerialPort>) {
        self.port = Some(port);
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        while let Ok((stream, _)) = self.socket.listener().accept() {
            if self.client.is_some() || stream.set_nonblocking(true).is_err() {
                // Dropping the stream shows a second client immediately that the port is in use.
                continue;
            }
            let watch =
                EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
            if let Err(error) = ops.add(Events::new(&stream, watch)) {
                warn!("serial socket {}: {error}", self.socket.path().display());
                continue;
            }
            let stream = Arc::new(stream);
            self.client = Some(Arc::clone(&stream));
            let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
            output.client = Some(stream);
            output.stalled = false;
            output.flush();
        }
    }

    fn serve(&mut self, ops: &mut EventOps<'_>) {
        let (Some(client), Some(port)) = (&self.client, &self.port) else { return };
        flush(&self.output, &self.waits);
        if pump(port, client.as_raw_fd(), |_| {}) == Pumped::Ended {
            let _ = ops.remove(Events::empty(&**client));
            self.client = None;
            self.output.lock().unwrap_or_else(PoisonError::into_inner).client = None;
            // A client may be waiting in the listener's queue.
            self.accept(ops);
        }
    }
}

/// Flushes the output when the client takes bytes again, which no later event announces. A vCPU
/// that waits for the client holds the lock for long, and flushes afterwards: it is left to it.
/// Any other holder may have found the client full before this event, and never looks again, so the
/// event loop waits for it: it holds the lock for a few system calls that do not block.
fn flush(output: &Mutex<SocketOutput>, waits: &AtomicBool) {
    if !waits.load(Ordering::SeqCst) {
        output.lock().unwrap_or_else(PoisonError::into_inner).flush();
    }
}

impl MutEventSubscriber for SocketServer {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.socket.listener().as_raw_fd() {
            self.accept(ops);
            return;
        }
        if let Some(port) =
            self.port.as_ref().filter(|port| port.drained().as_raw_fd() == events.fd())
        {
            let _ = port.drained().read();
        }
        self.serve(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(self.socket.listener(), EventSet::IN)) {
            warn!(
                "serial socket {}: {error}; clients cannot connect",
                self.socket.path().display()
            );
        }
        if let Some(port) = &self.port {
            let _ = ops.add(Events::new(port.drained(), EventSet::IN));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    fn connected(output: &mut SocketOutput) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        output.client = Some(Arc::new(ours));
        output.flush();
        theirs
    }

    #[test]
    fn test_output_before_the_first_client_is_kept_for_it() {
        let mut output = SocketOutput::default();
        output.write(b"boot");
        let mut client = connected(&mut output);
        output.write(b"ed");
        let mut bytes = [0; 6];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"booted");
    }

    #[test]
    fn test_output_without_client_keeps_the_newest_bytes_only() {
        let mut output = SocketOutput::default();
        for _ in 0..BACKLOG {
            output.write(b"ab");
        }
        output.write(b"z");
        assert_eq!(output.backlog.len(), BACKLOG);
        assert_eq!(output.backlog.back(), Some(&b'z'));
    }

    #[test]
    fn test_output_client_that_went_away_keeps_bytes_for_the_next() {
        let mut output = SocketOutput::default();
        drop(connected(&mut output));
        output.write(b"x");
        let mut next = connected(&mut output);
        let mut byte = [0];
        next.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    /// A vCPU holds the lock when the client's event comes, and has found the client full before.
    #[test]
    fn test_client_that_takes_bytes_while_a_vcpu_holds_the_output_gets_all_of_them() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let output =
            Mutex::new(SocketOutput { client: Some(Arc::new(ours)), ..Default::default() });
        let waits = Arc::clone(&output.lock().unwrap().waits);
        let (holds, is_held) = std::sync::mpsc::channel();
        let (came, has_come) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let output = &output;
            let vcpu = scope.spawn(move || {
                let mut output = output.lock().unwrap();
                output.backlog.extend(b"bytes");
                holds.send(()).unwrap();
                // Until the event loop has handled the event or waits for the lock: it gets no
                // second event.
                let _ = has_come.recv_timeout(std::time::Duration::from_millis(50));
            });
            is_held.recv().unwrap();
            flush(output, &waits);
            let _ = came.send(());
            vcpu.join().unwrap();
        });
        assert!(output.lock().unwrap().backlog.is_empty());
        let mut bytes = [0; 5];
        theirs.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"bytes");
    }

    #[test]
    fn test_event_loop_does_not_wait_for_a_vcpu_that_waits_for_the_client() {
        let output = Mutex::new(SocketOutput::default());
        let waits = AtomicBool::new(true);
        let held = output.lock().unwrap();
        // This thread holds the lock: the call would never return.
        flush(&output, &waits);
        drop(held);
    }

    #[test]
    fn test_serial_socket_is_private_and_replaces_nothing_but_a_dead_socket() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("com1");
        drop(UnixListener::bind(&path).unwrap());
        let server = SocketServer::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(SocketServer::bind(&path).is_err(), "a program listens there");
        drop(server);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(SocketServer::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn test_serial_socket_at_its_end_leaves_the_file_of_another_program_alone() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("com1");
        let server = SocketServer::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(server);
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
    }
}
