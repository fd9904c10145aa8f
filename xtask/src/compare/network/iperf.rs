//! iperf3: the client in a guest, the server on the host.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use guest_images::cache::Cache;
use guest_images::packages::{Package, Packages};
use serde::{Deserialize, Serialize};

use super::cases::{Direction, Protocol, Stream, UDP_PAYLOAD};

/// The suite of the packages: the guest's.
const SUITE: &str = "bookworm";

/// iperf3 and the libraries that hosts rarely have.
const PACKAGES: [&str; 4] = ["iperf3", "libiperf0", "libsctp1", "libssl3"];

const PORT: u16 = 5201;

/// A server on the host. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server(Child);

impl Server {
    /// Starts a server at an address of this host.
    pub(super) fn start(address: Ipv4Addr) -> Result<Server, String> {
        let packages = packages()?;
        let folders: Vec<String> = packages
            .iter()
            .map(|package| package.root.join("usr/lib/x86_64-linux-gnu").display().to_string())
            .collect();
        let program = packages.first().ok_or("no package iperf3")?.root.join("usr/bin/iperf3");
        let child = Command::new(program)
            .args(["--server", "--bind", &address.to_string(), "--port", &PORT.to_string()])
            .env("LD_LIBRARY_PATH", folders.join(":"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("starting iperf3: {error}"))?;
        Ok(Server(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the packages of iperf3 from the cache, or fetches them.
pub(super) fn packages() -> Result<Vec<Package>, String> {
    Packages::new(&Cache::project(), SUITE).get_all(&PACKAGES).map_err(|error| error.to_string())
}

/// iperf3's measurements of a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Bytes of payload that arrived in a second.
    pub(super) bytes_per_second: f64,
    /// Packets on the wire that arrived in all.
    pub(super) packets: f64,
    /// The part of the datagrams that did not arrive; 0 for TCP, which sends them again.
    pub(super) lost: f64,
}

/// Returns the command in the guest that runs a load and prints a single line, as QEMU loses bytes
/// of its serial port if hundreds arrive while no program reads.
pub(super) fn command(stream: &Stream, server: Ipv4Addr) -> String {
    let (protocol, length) = match stream.protocol {
        Protocol::Tcp => ("", String::new()),
        Protocol::Udp => ("--udp --bitrate 0", format!("--length {UDP_PAYLOAD}")),
    };
    let direction = match stream.direction {
        Direction::Send => "",
        Direction::Receive => "--reverse",
    };
    run(
        server,
        &format!(
            "--time {} --parallel {} {protocol} {length} {direction}",
            stream.seconds, stream.streams
        ),
    )
}

/// Returns the command of the smallest load of `streams` streams, which shows the costs of
/// everything but packets.
pub(super) fn nearly_nothing(streams: u32, server: Ipv4Addr) -> String {
    run(server, &format!("--bytes 1 --parallel {streams}"))
}

fn run(server: Ipv4Addr, load: &str) -> String {
    let words: Vec<&str> = load.split_whitespace().collect();
    format!(
        "iperf3 --client {server} --port {PORT} --format k --interval 0 {} > /run/said 2>&1 \
         || {{ cat /run/said; exit 1; }}; grep receiver /run/said | tail -n 1",
        words.join(" ")
    )
}

impl Measured {
    /// Reads the receiver's line of the sum over all streams, such as `[SUM]   0.00-3.01   sec
    /// 115 MBytes  965139 Kbits/sec  0.010 ms  30992/117175 (26%)  receiver`.
    pub(super) fn parse(line: &str, stream: &Stream) -> Result<Measured, String> {
        let found = || {
            let words: Vec<&str> = line.split_whitespace().collect();
            let before = |unit: &str| {
                let at = words.iter().position(|word| *word == unit)?;
                words.get(at.checked_sub(1)?).copied()
            };
            let rate: f64 = before("Kbits/sec")?.parse().ok()?;
            let seconds: f64 = before("sec")?.split_once('-')?.1.parse().ok()?;
            let lost = match stream.protocol {
                Protocol::Tcp => 0.0,
                Protocol::Udp => words.iter().find_map(|word| {
                    let (lost, sent) = word.split_once('/')?;
                    Some(lost.parse::<f64>().ok()? / sent.parse::<f64>().ok()?)
                })?,
            };
            let is_sum = words.first() == Some(&"[SUM]");
            let is_whole = is_sum == (stream.streams > 1) && words.last() == Some(&"receiver");
            (is_whole && rate > 0.0).then_some((rate * 1000.0 / 8.0, seconds, lost))
        };
        let (bytes_per_second, seconds, lost) =
            found().ok_or_else(|| format!("iperf3's result makes no sense: {line:?}"))?;
        let packets = bytes_per_second * seconds / stream.protocol.payload();
        Ok(Measured { bytes_per_second, packets, lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Stream =
        Stream { protocol: Protocol::Tcp, direction: Direction::Send, streams: 1, seconds: 1 };
    const FOUR: Stream =
        Stream { protocol: Protocol::Udp, direction: Direction::Receive, streams: 4, seconds: 3 };

    #[test]
    fn test_result_of_one_stream_and_of_a_sum_is_read() {
        let line =
            "[  5]   0.00-2.00   sec  2.76 MBytes  11584 Kbits/sec                  receiver";
        let found = Measured::parse(line, &ONE).unwrap();
        assert_eq!((found.bytes_per_second, found.packets), (1_448_000.0, 2000.0));
        let line = "[SUM]   0.00-1.00   sec   115 MBytes  11584 Kbits/sec  0.010 ms  30992/117175 \
            (26%)  receiver";
        let found = Measured::parse(line, &FOUR).unwrap();
        assert_eq!((found.packets, found.lost), (1000.0, 30_992.0 / 117_175.0));
    }

    #[test]
    fn test_result_of_another_load_or_without_data_is_refused() {
        let line = "[  5]   0.00-1.00   sec  1.49 GBytes  12729161 Kbits/sec    receiver";
        assert!(Measured::parse(line, &FOUR).is_err(), "one stream of four");
        assert!(Measured::parse("", &ONE).is_err());
        let nothing = "[  5]   0.00-1.00   sec  0.00 Bytes  0.00 Kbits/sec    receiver";
        assert!(Measured::parse(nothing, &ONE).is_err());
        assert!(Measured::parse(&line.replace("receiver", "sender"), &ONE).is_err());
    }

    #[test]
    fn test_command_has_the_options_of_its_load() {
        let text = command(&FOUR, Ipv4Addr::new(10, 9, 1, 1));
        for word in ["10.9.1.1", "--udp", "--length 1448", "--reverse", "--parallel 4", "--time 3"]
        {
            assert!(text.contains(word), "{text}");
        }
        assert!(!command(&ONE, Ipv4Addr::LOCALHOST).contains("--udp"));
    }
}
