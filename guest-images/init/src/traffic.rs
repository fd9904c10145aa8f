//! The program `traffic` of a guest: streams and datagrams whose every byte is checked.
//!
//! A server sends everything back, so that one run covers both directions.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use guest_report::pattern;

use crate::{Outcome, context, sys};

/// The port of the server, for TCP and UDP.
const PORT: u16 = 7;

/// Timeout of one answer: the guest may run in an emulated machine on a busy host.
const LIMIT: Duration = Duration::from_secs(20);

/// Attempts to get a datagram back. A network may lose datagrams, and does so while a driver
/// changes its device.
const ATTEMPTS: u32 = 3;

/// Most bytes of one write to a stream.
const PIECE: usize = 128 << 10;

/// Datagrams of [`flood`] between two pauses, and the pause: the guest's processors may share one.
const BURST: (u32, Duration) = (16, Duration::from_millis(2));

/// Runs one command and returns its output.
///
/// * `serve`: sends everything back that comes to port 7 by TCP and UDP, for ever. Prints a line
///   when it listens.
/// * `tcp ADDRESS BYTES COUNT`: as many connections one after another, with as many bytes each.
/// * `udp ADDRESS FIRST LAST STEP`: datagrams with each of these sizes in bytes.
/// * `flood ADDRESS`: datagrams to port 9, for ever. Errors are ignored.
/// * `toggle INTERFACE COUNT SECONDS`: takes an interface down and up so many times, or for so
///   long. Prints how often it did.
///
/// # Errors
/// An unknown command, a refused or silent connection, or a byte that is lost or wrong.
pub fn run(arguments: &[String]) -> Outcome<String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(PORT).map(|()| String::new()),
        ["tcp", address, bytes, count] => {
            for _ in 0..number(count)? {
                stream(socket_address(address, PORT)?, number(bytes)?)?;
            }
            Ok(String::new())
        }
        ["udp", address, first, last, step] => {
            let sizes = (number(first)?..=number(last)?).step_by(number(step)?.max(1));
            datagrams(socket_address(address, PORT)?, sizes).map(|()| String::new())
        }
        ["flood", address] => flood(socket_address(address, 9)?).map(|()| String::new()),
        ["toggle", interface, count, seconds] => {
            let limit = Duration::from_secs(number(seconds)? as u64);
            toggle(interface, number(count)?, limit).map(|done| done.to_string())
        }
        _ => Err(format!("traffic: unknown command {words:?}")),
    }
}

fn number(word: &str) -> Outcome<usize> {
    word.parse().map_err(context(word))
}

fn socket_address(address: &str, port: u16) -> Outcome<SocketAddr> {
    Ok(SocketAddr::new(address.parse().map_err(context(address))?, port))
}

fn serve(port: u16) -> Outcome<()> {
    // One socket takes both families.
    let listener = TcpListener::bind(("::", port)).map_err(context("listening"))?;
    let datagrams = UdpSocket::bind(("::", port)).map_err(context("listening"))?;
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        loop {
            // An interface that goes down is an error of one datagram only.
            if let Ok((length, from)) = datagrams.recv_from(&mut bytes) {
                let _ = datagrams.send_to(&bytes[..length], from);
            }
        }
    });
    println!("listening");
    loop {
        let (mut stream, _) = listener.accept().map_err(context("accepting"))?;
        thread::spawn(move || {
            let mut bytes = vec![0; PIECE];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..length]).is_err() {
                    return;
                }
            }
        });
    }
}

/// Sends `length` bytes and checks that they all come back.
fn stream(address: SocketAddr, length: usize) -> Outcome<()> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).map_err(context(address))?;
    stream.set_read_timeout(Some(LIMIT)).map_err(context(address))?;
    let mut writer = stream.try_clone().map_err(context(address))?;
    let sender = thread::spawn(move || {
        let (mut bytes, mut at) = (vec![0; PIECE], 0);
        while at < length {
            // Sizes that are no multiple of a segment's, nor of each other.
            let size = (1 + at * 31 % PIECE).max(PIECE / 8).min(length - at);
            pattern::fill(&mut bytes[..size], length as u64, at as u64);
            writer.write_all(&bytes[..size])?;
            at += size;
        }
        writer.shutdown(std::net::Shutdown::Write)
    });
    let (mut bytes, mut at) = (vec![0; PIECE], 0);
    loop {
        let size = stream.read(&mut bytes).map_err(context(format!("byte {at}")))?;
        if size == 0 {
            break;
        }
        if let Some(at) = pattern::first_difference(&bytes[..size], length as u64, at as u64) {
            return Err(format!("byte {at} of {length} is wrong"));
        }
        at += size;
    }
    sender.join().map_err(|_| "the sender panicked".to_owned())?.map_err(context("sending"))?;
    if at == length { Ok(()) } else { Err(format!("{at} of {length} bytes came back")) }
}

/// Sends a datagram of each size and checks that it comes back.
fn datagrams(address: SocketAddr, sizes: impl Iterator<Item = usize>) -> Outcome<()> {
    let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).map_err(context(any))?;
    socket.connect(address).map_err(context(address))?;
    socket.set_read_timeout(Some(LIMIT / ATTEMPTS)).map_err(context(address))?;
    for size in sizes {
        let returned = (0..ATTEMPTS).any(|_| datagram(&socket, size).unwrap_or(false));
        if !returned {
            return Err(format!("a datagram of {size} bytes did not come back right"));
        }
    }
    Ok(())
}

fn datagram(socket: &UdpSocket, size: usize) -> std::io::Result<bool> {
    let (mut sent, mut got) = (vec![0; size], vec![0; (1 << 16) + 1]);
    pattern::fill(&mut sent, size as u64, 0);
    socket.send(&sent)?;
    loop {
        let length = socket.recv(&mut got)?;
        // An answer of another length is one that was given up before.
        if length == size {
            return Ok(got[..length] == sent);
        }
    }
}

fn flood(address: SocketAddr) -> Outcome<()> {
    let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).map_err(context(any))?;
    let bytes = [0x5A; 1400];
    loop {
        for _ in 0..BURST.0 {
            let _ = socket.send_to(&bytes, address);
        }
        thread::sleep(BURST.1);
    }
}

fn toggle(interface: &str, count: usize, limit: Duration) -> Outcome<usize> {
    let begun = Instant::now();
    let mut done = 0;
    while done < count && begun.elapsed() < limit {
        for up in [false, true] {
            sys::set_interface(interface, up).map_err(context(interface))?;
        }
        done += 1;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::new("127.0.0.1".parse().unwrap(), port)
    }

    /// A port that no other test uses at this time: a socket of each kind had it.
    fn server() -> u16 {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        thread::spawn(move || serve(port));
        while TcpStream::connect(address(port)).is_err() {
            thread::yield_now();
        }
        port
    }

    #[test]
    fn test_bytes_that_a_server_returns_are_right() {
        let port = server();
        stream(address(port), 1_000_003).unwrap();
        datagrams(address(port), (0..3000).step_by(7)).unwrap();
    }

    #[test]
    fn test_stream_that_comes_back_changed_or_short_is_an_error() {
        for changed in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                if changed {
                    bytes[70_000] ^= 1;
                } else {
                    bytes.truncate(90_000);
                }
                let _ = stream.write_all(&bytes);
            });
            let error = stream(to, 100_000).unwrap_err();
            let expected =
                if changed { "byte 70000 of 100000 is wrong" } else { "90000 of 100000" };
            assert!(error.contains(expected), "{error}");
            server.join().unwrap();
        }
    }

    #[test]
    fn test_unknown_command_is_an_error() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for text in ["tcp", "tcp 127.0.0.1 x 1", "udp nowhere 1 2 1", "dance"] {
            assert!(run(&words(text)).is_err(), "{text}");
        }
    }
}
