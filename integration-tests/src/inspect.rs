//! The format of `synthvm inspect --json`, defined a second time on purpose: a change of the
//! program's own types must fail a test if it changes the format for other programs.

use serde::Deserialize;

/// A running machine.
#[derive(Debug, Clone, Deserialize)]
pub struct Inspect {
    /// The machine as a whole; not part of the fixed format.
    #[serde(default)]
    pub machine: Machine,
    /// The guest's connection.
    pub connection: Connection,
    /// One entry per vCPU.
    pub vcpus: Vec<Vcpu>,
    /// Every offered channel.
    pub channels: Vec<Channel>,
    /// Every GPADL.
    pub gpadls: Vec<Gpadl>,
    /// Every disk.
    pub disks: Vec<Disk>,
    /// Every network card.
    pub networks: Vec<Network>,
    /// The TPM, if there is one.
    #[serde(default)]
    pub tpm: Option<Tpm>,
    /// The host sockets, if there are any.
    #[serde(default)]
    pub vsock: Option<Vsock>,
    /// Dynamic memory, if there is any.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// The display, if there is one.
    #[serde(default)]
    pub display: Option<Display>,
    /// The last panic.
    #[serde(default)]
    pub panic: Option<Panic>,
}

/// The machine as a whole.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Machine {
    /// The program's process id.
    pub pid: u32,
    /// CLOCK_MONOTONIC in microseconds when the guest's first instruction ran.
    pub first_run_us: u64,
}

/// The display.
#[derive(Debug, Clone, Deserialize)]
pub struct Display {
    /// The server for viewers.
    pub server: DisplayServer,
}

/// The server for viewers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct DisplayServer {
    /// Viewers that are connected.
    pub viewers: u64,
    /// Viewers that have connected.
    pub connections: u64,
    /// Log-ins that failed.
    pub refused_logins: u64,
    /// Viewers that were dropped, as they did not read or did not log in in time.
    pub dropped: u64,
}

/// Dynamic memory. Sizes are in bytes.
#[derive(Debug, Clone, Deserialize)]
pub struct Memory {
    /// The protocol's version.
    pub version: Option<String>,
    /// RAM that the guest has.
    pub assigned: u64,
    /// Memory that it has added.
    pub added: u64,
    /// Memory in the balloon.
    pub ballooned: u64,
    /// Memory of the balloon that the host has back.
    pub returned: u64,
    /// The host's memory that the guest's RAM takes.
    pub resident: u64,
    /// The guest's demand.
    pub demand: Option<u64>,
    /// Memory that it can use without swapping.
    pub available: Option<u64>,
    /// The size that it shall have.
    pub target: Option<u64>,
    /// The counters.
    pub counters: MemoryCounters,
}

/// Counters of dynamic memory, in pages of 4 KiB where they count pages.
#[derive(Debug, Clone, Deserialize)]
pub struct MemoryCounters {
    /// Memory reports of the guest.
    pub reports: u64,
    /// Pages that the guest gave.
    pub pages_ballooned: u64,
    /// Pages that it was given back.
    pub pages_unballooned: u64,
    /// Pages that the guest reported to be free.
    pub pages_hinted: u64,
    /// Errors of the host's kernel.
    pub host_errors: u64,
    /// Ranges of the guest that were refused.
    pub ranges_refused: u64,
    /// Messages of the guest that were refused.
    pub messages_refused: u64,
}

/// The TPM.
#[derive(Debug, Clone, Deserialize)]
pub struct Tpm {
    /// `idle`, `busy` or `failed`.
    pub state: String,
    /// Number of commands that ended with a response.
    pub commands: u64,
}

/// The host sockets.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Vsock {
    /// Open connections.
    pub open: u64,
    /// Connections that the guest has not opened yet.
    pub pending: u64,
    /// Connections of the guest that were opened.
    pub from_guest: u64,
    /// Connections of the host that were opened.
    pub from_host: u64,
    /// Requests for a service on which no program listens.
    pub no_listener: u64,
    /// Connections that the guest did not open in time.
    pub unanswered: u64,
    /// Requests that were refused for another reason.
    pub failed: u64,
    /// Connections that the guest broke.
    pub broken: u64,
    /// Bytes from the guest.
    pub bytes_to_host: u64,
    /// Bytes to the guest.
    pub bytes_to_guest: u64,
}

/// A network card.
#[derive(Debug, Clone, Deserialize)]
pub struct Network {
    /// The card's id.
    pub id: String,
    /// The permanent address.
    pub mac: String,
    /// The state of the link: `up` or `down`.
    pub link: String,
    /// One entry per queue.
    pub queues: Vec<NetworkQueue>,
}

/// A queue of a network card.
#[derive(Debug, Clone, Deserialize)]
pub struct NetworkQueue {
    /// Frames from the guest.
    pub sent_packets: u64,
    /// Frames to the guest.
    pub received_packets: u64,
    /// Dropped frames.
    pub drops: NetworkDrops,
    /// Interrupts to the guest.
    pub signals_sent: u64,
}

/// Dropped frames of a queue, by some of their reasons.
#[derive(Debug, Clone, Deserialize)]
pub struct NetworkDrops {
    /// From the guest, because the link was down.
    pub send_link_down: u64,
}

/// The guest's connection.
#[derive(Debug, Clone, Deserialize)]
pub struct Connection {
    /// The version, such as `5.3`.
    pub version: Option<String>,
    /// The state, such as `connected`.
    pub state: String,
}

/// A vCPU.
#[derive(Debug, Clone, Deserialize)]
pub struct Vcpu {
    /// The number.
    pub index: u32,
    /// The exits to user space.
    pub exits: Exits,
}

/// Exits to user space by kind.
#[derive(Debug, Clone, Deserialize)]
pub struct Exits {
    /// Control messages.
    pub post_message: u64,
    /// Doorbells that reached user space.
    pub signal_event: u64,
    /// Ports.
    pub io: u64,
    /// Memory-mapped registers.
    pub mmio: u64,
    /// Model-specific registers.
    pub msr: u64,
    /// All others.
    pub other: u64,
}

/// A channel.
#[derive(Debug, Clone, Deserialize)]
pub struct Channel {
    /// The relative id.
    pub relid: u32,
    /// The class.
    pub class: String,
    /// The instance.
    pub instance: String,
    /// The state.
    pub state: String,
    /// Interrupts sent.
    pub signals_sent: u64,
    /// Interrupts that were not needed.
    pub signals_suppressed: u64,
    /// The GPADLs.
    pub gpadls: Vec<u32>,
}

/// A GPADL.
#[derive(Debug, Clone, Deserialize)]
pub struct Gpadl {
    /// The id.
    pub id: u32,
    /// The channel.
    pub relid: u32,
    /// Ranges.
    pub ranges: u32,
    /// Pages.
    pub pages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Merged runs.
    pub runs: u64,
    /// The mapping.
    pub mapping: String,
    /// Live views.
    pub views: u64,
}

/// A disk.
#[derive(Debug, Clone, Deserialize)]
pub struct Disk {
    /// Requests finished.
    pub requests: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// The id.
    pub id: String,
    /// Whether the disk was removed and waits for its last requests.
    pub removed: bool,
    /// Requests that the image has not finished.
    pub in_flight: u64,
}

/// The panic of a guest.
#[derive(Debug, Clone, Deserialize)]
pub struct Panic {
    /// The crash parameters.
    pub parameters: Vec<u64>,
}

impl Inspect {
    /// Returns the number of doorbells that reached user space, on all vCPUs.
    pub fn doorbell_exits(&self) -> u64 {
        self.vcpus.iter().map(|vcpu| vcpu.exits.signal_event).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_inspect_is_read_with_fields_that_we_do_not_know() {
        let text = r#"{
            "connection": {"version": "5.3", "state": "connected"},
            "vcpus": [{"index": 0, "exits": {"post_message": 1, "signal_event": 2, "io": 3,
                "mmio": 4, "msr": 5, "other": 6, "new": 7}}],
            "channels": [], "gpadls": [], "disks": [], "networks": [], "x": 1}"#;
        let inspect: Inspect = serde_json::from_str(text).unwrap();
        assert_eq!(inspect.doorbell_exits(), 2);
        assert_eq!(inspect.connection.version.as_deref(), Some("5.3"));
    }
}
