//! Streams over AF_VSOCK: programs that connect to the host, and a server for the host's.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use guest_report::agent::{RoundTrips, SocketDirection, SocketStreams};
use guest_report::pattern;

use crate::vsock::Socket;
use crate::{Outcome, context};

/// Bytes of each call that moves bytes in [`transfer`].
const BLOCK: usize = 64 << 10;

/// Stack of a thread for one connection.
const STACK: usize = 64 << 10;

/// The server of [`serve`].
static SERVER: Mutex<Option<Server>> = Mutex::new(None);

struct Server {
    /// The thread ends when this is dropped.
    alive: UnixStream,
    thread: JoinHandle<u32>,
}

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

/// Moves `bytes` bytes over each of `count` connections to `port` of the host, all at the same
/// time. The host's program is as [`guest_report::agent::Action::SocketTransfer`] describes.
pub fn transfer(
    port: u32,
    direction: SocketDirection,
    count: u32,
    bytes: u64,
) -> Outcome<SocketStreams> {
    let begun = Instant::now();
    let connect = |number| Socket::connect(port).map_err(context(format!("connection {number}")));
    let streams = (0..count).map(connect).collect::<Outcome<Vec<_>>>()?;
    let connected = begun.elapsed().as_secs_f64();
    let run = |stream: &Socket| match direction {
        SocketDirection::Send => send(stream, bytes),
        SocketDirection::Receive => receive(stream, bytes),
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            streams.iter().map(|stream| scope.spawn(move || run(stream))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result.map_err(context("moving bytes")),
            Err(_) => Err("a thread has failed".to_owned()),
        })
    })?;
    Ok(SocketStreams { connected, seconds: begun.elapsed().as_secs_f64() })
}

fn send(stream: &Socket, bytes: u64) -> io::Result<()> {
    let block = vec![1; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        (&stream.0).write_all(&block[..length])?;
        left -= length as u64;
    }
    stream.shutdown(libc::SHUT_WR)?;
    (&stream.0).read_exact(&mut [0])
}

fn receive(stream: &Socket, bytes: u64) -> io::Result<()> {
    (&stream.0).write_all(&bytes.to_le_bytes())?;
    let (mut block, mut received) = (vec![0; BLOCK], 0);
    loop {
        match (&stream.0).read(&mut block)? {
            0 if received == bytes => return Ok(()),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received += length as u64,
        }
    }
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
