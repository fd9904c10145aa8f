//! Round trips over TCP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use guest_report::agent::RoundTrips;

use crate::{Outcome, context};

/// Timeout for one round trip.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends `bytes` bytes to the server at `address` and waits until all are back, `count` times.
pub fn run(address: &str, count: u32, bytes: usize) -> Outcome<RoundTrips> {
    let stream = TcpStream::connect(address).map_err(context(address))?;
    stream.set_nodelay(true).map_err(context(address))?;
    stream.set_read_timeout(Some(LIMIT)).map_err(context(address))?;
    measure(&stream, count, bytes).map_err(context(address))
}

/// Sends `bytes` bytes over a stream and waits until all are back, `count` times.
pub(crate) fn measure(
    mut stream: impl Read + Write,
    count: u32,
    bytes: usize,
) -> Outcome<RoundTrips> {
    let mut buffer = vec![0; bytes];
    let mut times = Vec::with_capacity(count as usize);
    let begun = Instant::now();
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(&buffer).map_err(context("writing"))?;
        stream.read_exact(&mut buffer).map_err(context("reading"))?;
        times.push(start.elapsed());
    }
    let seconds = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let percentile = |percent: usize| {
        let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    Ok(RoundTrips { seconds, p50_us: percentile(50), p99_us: percentile(99) })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn test_round_trips_with_an_echo_server_are_all_timed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut bytes, mut all) = ([0; 64], 0);
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                stream.write_all(&bytes[..count]).unwrap();
                all += count;
            }
            all
        });
        let times = run(&address, 20, 5).unwrap();
        assert_eq!(server.join().unwrap(), 100);
        assert!(times.p50_us > 0.0 && times.p50_us <= times.p99_us);
        assert!(times.seconds * 1e6 >= times.p99_us);
    }

    #[test]
    fn test_round_trips_without_a_server_are_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(run(&address, 1, 1).unwrap_err().contains(&address));
    }
}
