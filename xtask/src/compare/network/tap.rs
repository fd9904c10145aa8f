//! A TAP interface of the host for one machine, with the host's servers at its end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;

use super::iperf::Server;

/// The port of the echo server.
pub(super) const ECHO_PORT: u16 = 5007;

/// An interface with its iperf3. Both end when this is dropped.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) name: String,
    /// The network's number: the host is 10.9.NUMBER.1, the guest 10.9.NUMBER.2.
    number: u8,
    server: Option<Server>,
}

impl Tap {
    /// Makes the interface, with the virtio-net header that all peers use.
    pub(super) fn new(number: u8) -> Result<Tap, String> {
        let name = format!("compare{number}");
        // One that an interrupted comparison has left behind.
        let _ = ip(&["link", "delete", &name]);
        ip(&["tuntap", "add", "dev", &name, "mode", "tap", "vnet_hdr"])?;
        let mut tap = Tap { name, number, server: None };
        ip(&["address", "add", &format!("{}/24", tap.host()), "dev", &tap.name])?;
        ip(&["link", "set", &tap.name, "up"])?;
        tap.server = Some(Server::start(tap.host())?);
        Ok(tap)
    }

    /// Returns the host's address.
    pub(super) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, self.number, 1)
    }

    /// Returns the guest's address.
    pub(super) fn guest(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, self.number, 2)
    }

    /// Returns an address for the guest's card.
    pub(super) fn mac(&self) -> String {
        format!("02:00:00:00:09:{:02x}", self.number)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.server = None;
        let _ = ip(&["link", "delete", &self.name]);
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let what = || format!("ip {}", words.join(" "));
    let output =
        Command::new("ip").args(words).output().map_err(|error| format!("{}: {error}", what()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Starts a thread that returns all bytes of each connection, at the host's end of all interfaces,
/// until the process ends.
pub(super) fn serve_echo() -> Result<(), String> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT))
        .map_err(|error| format!("listening at port {ECHO_PORT}: {error}"))?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let _ = stream.set_nodelay(true);
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
        }
    });
    Ok(())
}
