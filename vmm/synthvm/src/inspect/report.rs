//! The data types of the report.

use serde::{Deserialize, Serialize};
use synthvm_sockets::SocketReport;
use synthvm_storvsp::{DiskStats, UnitKind};
use vmbus_host::WorkerStats;

use super::NetworkReport;
use crate::display::DisplayReport;
use crate::dynamic_memory::MemoryReport;
use crate::services::ServicesReport;

/// A report of a machine's state. Counters start at 0 with the program and never decrease, even
/// when the guest reboots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InspectReport {
    /// The machine as a whole.
    #[serde(default)]
    pub machine: MachineReport,
    /// The guest's VMBus connection.
    pub connection: ConnectionReport,
    /// One entry per vCPU, by index.
    pub vcpus: Vec<VcpuReport>,
    /// Control messages of the bus.
    #[serde(default)]
    pub messages: MessageCounts,
    /// Every offered channel, by relid.
    pub channels: Vec<ChannelReport>,
    /// Every GPADL that exists, by channel and id.
    pub gpadls: Vec<GpadlReport>,
    /// Every disk, by controller and LUN.
    pub disks: Vec<DiskReport>,
    /// Every network card, in the order of the configuration.
    #[serde(default)]
    pub networks: Vec<NetworkReport>,
    /// The TPM, if the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmReport>,
    /// The display; `None` for a machine without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<DisplayReport>,
    /// The host sockets; `None` for a machine without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<SocketReport>,
    /// The integration services; `None` for a machine without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServicesReport>,
    /// Dynamic memory; `None` for a machine without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryReport>,
    /// The last panic that the guest reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<PanicReport>,
}

/// The TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmReport {
    /// `idle`, `busy` (a command runs) or `failed`.
    pub state: String,
    /// Number of commands that ended with a response.
    pub commands: u64,
    /// Why the TPM has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The machine as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineReport {
    /// Process id of the `synthvm` that runs it.
    pub pid: u32,
    /// Milliseconds since the program started.
    pub uptime_ms: u64,
    /// Guest RAM in bytes.
    pub memory_bytes: u64,
    /// Bytes of address space that are lost because the host refused to unmap them; 0 on a correct
    /// host.
    pub leaked_bytes: u64,
    /// Number of the guest's restarts.
    pub resets: u64,
    /// CLOCK_MONOTONIC in microseconds when the guest's first instruction ran; 0 before.
    pub first_run_us: u64,
    /// `created`, `running`, `paused`, `resetting` or `ended`.
    #[serde(default)]
    pub state: String,
}

/// The guest's VMBus connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Negotiated version, for example "5.3"; none while not connected.
    pub version: Option<String>,
    /// State of the connection.
    pub state: ConnectionState,
}

/// State of the guest's VMBus connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// No guest has connected, or the guest has unloaded the connection.
    #[default]
    Disconnected,
    /// A guest connected or disconnected, and devices have not yet released the memory of the old
    /// connection.
    Resetting,
    /// Guest and bus have agreed on a version.
    Connected,
}

/// A vCPU's part of the report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VcpuReport {
    /// The VP index.
    pub index: u32,
    /// Exits to user space by kind.
    pub exits: ExitCounts,
}

/// Exits to user space by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitCounts {
    /// HvPostMessage: the guest's control messages.
    pub post_message: u64,
    /// HvSignalEvent without a bound eventfd. Stays 0 while the kernel handles all doorbells.
    pub signal_event: u64,
    /// Port I/O.
    pub io: u64,
    /// Memory-mapped I/O.
    pub mmio: u64,
    /// MSR accesses, SynIC register writes among them.
    pub msr: u64,
    /// All others.
    pub other: u64,
}

impl ExitCounts {
    /// Returns the sum of all kinds.
    pub fn total(&self) -> u64 {
        [self.post_message, self.signal_event, self.io, self.mmio, self.msr, self.other]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Control messages between guest and bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageCounts {
    /// Received from the guest.
    pub received: u64,
    /// Written to a message slot.
    pub sent: u64,
    /// Received, but malformed or not allowed in the current state; counted in `received` too.
    pub refused: u64,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelReport {
    /// The channel's id on the wire (child relid); 0 while the guest does not know the channel.
    pub relid: u32,
    /// Interface type GUID, or a short name for a known one ("scsi", "network").
    pub class: String,
    /// Instance GUID.
    pub instance: String,
    /// Index of the subchannel; 0 for a primary channel.
    #[serde(default)]
    pub subchannel: u16,
    /// "unoffered", "closed", "opening", "open", "faulted" (its device failed), "closing",
    /// "draining" (a view is still alive), "revoked" or "released".
    pub state: String,
    /// The VP that receives the channel's interrupts; `None` while not open.
    pub target_vp: Option<u32>,
    /// Both rings; `None` while not open.
    pub rings: Option<RingsReport>,
    /// Number of interrupts to the guest for this channel.
    pub signals_sent: u64,
    /// Number of suppressed interrupts: the guest was already polling the ring, or had masked it.
    pub signals_suppressed: u64,
    /// Ids of the channel's GPADLs.
    pub gpadls: Vec<u32>,
    /// Counters of the channel's worker, the same for every kind of device; `None` while not open.
    #[serde(default)]
    pub worker: Option<WorkerStats>,
}

/// A channel's rings; directions are from the host's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RingsReport {
    /// Guest to host.
    pub incoming: RingReport,
    /// Host to guest.
    pub outgoing: RingReport,
}

/// A ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RingReport {
    /// Bytes of the data area.
    pub size: u32,
    /// Bytes that the reader has not yet read.
    pub used: u32,
    /// Free bytes at which the waiting writer needs an interrupt; 0 if the writer does not wait.
    pub pending_send_size: u32,
    /// Whether the reader has masked interrupts.
    pub masked: bool,
    /// Whether an index is outside the ring; `used` is 0 in that case.
    pub corrupt: bool,
}

/// A GPADL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GpadlReport {
    /// The id, chosen by the guest.
    pub id: u32,
    /// The relid of its channel.
    pub relid: u32,
    /// Number of ranges.
    pub ranges: u32,
    /// Guest pages in all ranges.
    pub pages: u64,
    /// Bytes in all ranges.
    pub bytes: u64,
    /// Runs of neighbouring pages, after merging.
    pub runs: u64,
    /// The mapping: "runs" (address and length of each run), "mirrored" (a ring mapped twice in a
    /// row, so that no packet wraps), "paged" (a ring whose pages could not be mapped
    /// contiguously), "none" (no view exists).
    pub mapping: String,
    /// Number of live views; a teardown waits for the last.
    pub views: u64,
}

/// A disk or DVD drive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskReport {
    /// The id given by the user, or "controller:lun".
    pub id: String,
    /// The path of the image.
    pub path: String,
    /// Number of the controller.
    pub controller: u32,
    /// Number on the controller.
    pub lun: u8,
    /// The kind: disk or DVD drive.
    pub kind: UnitKind,
    /// Whether the disk was removed and waits for its last requests. If so, its id is always
    /// "controller:lun".
    pub removed: bool,
    /// Whether a disc is in the drive; always true for a disk.
    pub has_medium: bool,
    /// Whether the drive's tray is open.
    pub tray_open: bool,
    /// Whether the guest has locked the drive's tray.
    pub locked: bool,
    /// Whether the disk is read-only.
    pub readonly: bool,
    /// The counters: fields of the report itself.
    #[serde(flatten)]
    pub stats: DiskStats,
    /// Whether guest memory is registered with the host's kernel for this disk (`buffers=fixed`).
    pub fixed_buffers: bool,
    /// Calls to the host's kernel that used registered memory: one for each read or write that is
    /// not split.
    pub fixed_calls: u64,
    /// Interrupts for completions that the controller delayed (`--disk-moderation`), for all its
    /// disks together.
    pub held_back: u64,
    /// Requests delayed by the disk's limits; `None` for a disk without limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<ThrottleReport>,
}

/// Requests delayed by a disk's limits. A request counts when its delay ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleReport {
    /// Number of delayed requests.
    pub delayed_requests: u64,
    /// Bytes that the delayed requests read and wrote.
    pub delayed_bytes: u64,
    /// Microseconds of all delays together.
    pub delayed_us: u64,
}

/// The parameters of a guest's panic (Hyper-V crash MSRs 0x40000100 to 0x40000105).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PanicReport {
    /// Crash parameters P0 to P4. Linux: error code, and RIP, RAX, RSP and more by version;
    /// Windows: the bug check and its parameters.
    pub parameters: [u64; 5],
    /// The text of the panic, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
