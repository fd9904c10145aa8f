//! Streams over AF_VSOCK: programs that connect to the host, and a server for the host's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use guest_report::agent::{RoundTrips, SocketStreams};
use guest_report::pattern;

use crate::{Outcome, context};

/// The address of the host, and of any end (linux/vm_sockets.h).
const HOST: u32 = 2;
const ANY: u32 = u32::MAX;

/// Stack of a thread for one connection.
const STACK: usize = 64 << 10;

/// The server of [`serve`].
static SERVER: Mutex<Option<Server>> = Mutex::new(None);

struct Server {
    /// The thread ends when this is dropped.
    alive: UnixStream,
    thread: JoinHandle<u32>,
}

/// A socket of AF_VSOCK.
struct Socket(File);

/// Opens `count` connections to `port` of the host, which are all open at the same time. Sends the
/// pattern of a seed over each, ends it, and expects the same bytes back.
pub fn exchange(port: u32, count: u32, bytes: usize, seed: u64) -> Outcome<SocketStreams> {
    raise_descriptor_limit();
    let begun = Instant::now();
    let connect = |number| Socket::connect(port).map_err(context(format!("connection {number}")));
    let streams = (0..count).map(connect).collect::<Outcome<Vec<_>>>()?;
    let connected = begun.elapsed().as_secs_f64();
    let mut buffer = vec![0; bytes];
    for (number, stream) in (0..).zip(&streams) {
        pattern::fill(&mut buffer, seed + number, 0);
        (&stream.0).write_all(&buffer).map_err(context(format!("writing to {number}")))?;
        stream.shutdown(libc::SHUT_WR).map_err(context(format!("ending {number}")))?;
    }
    for (number, stream) in (0..).zip(&streams) {
        buffer.clear();
        (&stream.0).read_to_end(&mut buffer).map_err(context(format!("reading from {number}")))?;
        if buffer.len() != bytes {
            return Err(format!("connection {number} returned {} of {bytes} bytes", buffer.len()));
        }
        if let Some(at) = pattern::first_difference(&buffer, seed + number, 0) {
            return Err(format!("connection {number} differs at byte {at}"));
        }
    }
    drop(streams);
    let seconds = begun.elapsed().as_secs_f64();
    Ok(SocketStreams { connected, seconds })
}

/// Permits this process as many descriptors as the kernel does.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads one rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// Connects to `port` of the host, where nothing may listen. Returns the error.
pub fn refused(port: u32) -> Outcome<String> {
    match Socket::connect(port) {
        Ok(_) => Err(format!("a program listens at port {port}")),
        Err(error) => Ok(error.to_string()),
    }
}

/// Sends bytes to `port` of the host and waits until they are back, `count` times.
pub fn round_trips(port: u32, count: u32, bytes: usize) -> Outcome<RoundTrips> {
    let stream = Socket::connect(port).map_err(context("connecting"))?;
    crate::round_trips::measure(&stream.0, count, bytes)
}

/// Serves connections of the host at `port` until [`stop`]: each one's bytes are returned after
/// their end.
pub fn serve(port: u32) -> Outcome<()> {
    let listener = Socket::listen(port).map_err(context("listening"))?;
    let (alive, ended) = UnixStream::pair().map_err(context("a pair of sockets"))?;
    let thread = thread::spawn(move || accept_all(&listener, &ended));
    *SERVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Server { alive, thread });
    Ok(())
}

/// Ends the server. Returns the number of connections that it served.
pub fn stop() -> Outcome<u32> {
    let server = SERVER.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Server { alive, thread } = server.ok_or("there is no server")?;
    drop(alive);
    thread.join().map_err(|_| "the server has failed".to_owned())
}

/// Accepts until `ended` is readable.
fn accept_all(listener: &Socket, ended: &UnixStream) -> u32 {
    let mut connections = Vec::new();
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let mut polls = [entry(ended.as_raw_fd()), entry(listener.fd())];
        // SAFETY: the list outlives the call.
        unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) };
        if polls[0].revents != 0 {
            break;
        }
        let Ok(socket) = listener.accept() else { continue };
        let answer = move || answer(&socket);
        connections.extend(thread::Builder::new().stack_size(STACK).spawn(answer).ok());
    }
    let served = connections.into_iter().filter_map(|one| one.join().ok()?.ok());
    u32::try_from(served.count()).unwrap_or(u32::MAX)
}

fn answer(socket: &Socket) -> io::Result<()> {
    let mut bytes = Vec::new();
    (&socket.0).read_to_end(&mut bytes)?;
    (&socket.0).write_all(&bytes)
}

impl Socket {
    fn new() -> io::Result<Self> {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is passed.
        Self::from_call(unsafe { libc::socket(libc::AF_VSOCK, kind, 0) })
    }

    fn connect(port: u32) -> io::Result<Self> {
        let (socket, address) = (Self::new()?, address(HOST, port));
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address outlives the call.
        check(unsafe { libc::connect(socket.fd(), (&raw const address).cast(), size) })?;
        Ok(socket)
    }

    fn listen(port: u32) -> io::Result<Self> {
        let (socket, address) = (Self::new()?, address(ANY, port));
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address outlives the call.
        check(unsafe { libc::bind(socket.fd(), (&raw const address).cast(), size) })?;
        // SAFETY: no memory is passed.
        check(unsafe { libc::listen(socket.fd(), 4096) })?;
        Ok(socket)
    }

    fn accept(&self) -> io::Result<Self> {
        let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC);
        // SAFETY: no address is asked for.
        Self::from_call(unsafe { libc::accept4(self.fd(), none, none.cast(), flags) })
    }

    fn shutdown(&self, how: libc::c_int) -> io::Result<()> {
        // SAFETY: no memory is passed.
        check(unsafe { libc::shutdown(self.fd(), how) })
    }

    fn from_call(fd: libc::c_int) -> io::Result<Self> {
        check(fd.min(0))?;
        // SAFETY: a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }.into()))
    }

    fn fd(&self) -> libc::c_int {
        self.0.as_raw_fd()
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zero bytes are a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
