//! The report's shape.

use serde::{Deserialize, Serialize};
use synthvm_storvsp::UnitKind;
use vmbus_host::WorkerStats;

/// Everything that a machine tells about itself at one moment. Counters start at 0 with the program
/// and never go back, also not when the guest reboots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InspectReport {
    /// The machine as a whole.
    #[serde(default)]
    pub machine: MachineReport,
    /// The guest's VMBus connection.
    pub connection: ConnectionReport,
    /// One entry a vCPU, by index.
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
    /// The last panic that the guest reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<PanicReport>,
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
    /// Bytes of address space that are lost because the host refused to unmap them; 0 on a sound
    /// host.
    pub leaked_bytes: u64,
    /// How often the guest was started again.
    pub resets: u64,
    /// CLOCK_MONOTONIC in microseconds when the guest's first instruction ran; 0 before.
    pub first_run_us: u64,
}

/// The guest's VMBus connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Negotiated version, for example "5.3"; none while not connected.
    pub version: Option<String>,
    /// How far the connection is.
    pub state: ConnectionState,
}

/// How far the guest's VMBus connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// No contact yet, or unloaded.
    #[default]
    Disconnected,
    /// A guest made contact or left, and devices still let go of the old connection's memory.
    Resetting,
    /// A version is agreed on.
    Connected,
}

/// One vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VcpuReport {
    /// Its VP index.
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
    /// HvSignalEvent that no eventfd took. Stays 0 while doorbells stay in the kernel.
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
    /// All kinds together.
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
    /// Put into a message slot.
    pub sent: u64,
    /// Received, but malformed or not allowed at that moment; counted in `received` too.
    pub refused: u64,
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelReport {
    /// The channel's id on the wire (child relid); 0 while the guest does not know the channel.
    pub relid: u32,
    /// Interface type GUID, or a short name for a known one ("scsi").
    pub class: String,
    /// Instance GUID.
    pub instance: String,
    /// 0 for a primary channel.
    #[serde(default)]
    pub subchannel: u16,
    /// "unoffered", "closed", "opening", "open", "faulted" (its device gave up), "closing",
    /// "draining" (a view is still held), "revoked" or "released".
    pub state: String,
    /// The VP that gets the channel's interrupts; none while not open.
    pub target_vp: Option<u32>,
    /// Both rings; none while not open.
    pub rings: Option<RingsReport>,
    /// Times that the host interrupted the guest for this channel.
    pub signals_sent: u64,
    /// Times that it did not need to: the guest was looking already, or had masked the ring.
    pub signals_suppressed: u64,
    /// Ids of the channel's GPADLs.
    pub gpadls: Vec<u32>,
    /// Counters of the channel's worker, the same for every kind of device; none while not open.
    #[serde(default)]
    pub worker: Option<WorkerStats>,
}

/// A channel's rings, seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RingsReport {
    /// Guest to host.
    pub incoming: RingReport,
    /// Host to guest.
    pub outgoing: RingReport,
}

/// One ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RingReport {
    /// Bytes of the data area.
    pub size: u32,
    /// Bytes that wait for the reader.
    pub used: u32,
    /// What the writer waits for: it wants an interrupt when so many bytes are free; 0: it does
    /// not wait.
    pub pending_send_size: u32,
    /// The reader wants no interrupts now.
    pub masked: bool,
    /// An index lies outside the ring; `used` is 0 then.
    pub corrupt: bool,
}

/// One GPADL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GpadlReport {
    /// Its id, chosen by the guest.
    pub id: u32,
    /// The channel that it belongs to.
    pub relid: u32,
    /// Ranges in it.
    pub ranges: u32,
    /// Guest pages in all ranges.
    pub pages: u64,
    /// Bytes in all ranges.
    pub bytes: u64,
    /// Runs of neighbouring pages, after merging.
    pub runs: u64,
    /// How it is reached: "runs" (address and length of each run), "mirrored" (a ring mapped twice
    /// in a row, so that no packet wraps), "paged" (a ring whose pages could not be mapped in
    /// a row), "none" (nobody looks at it).
    pub mapping: String,
    /// Views that are alive; a teardown waits for the last.
    pub views: u64,
}

/// One disk or DVD drive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskReport {
    /// The id that its user gave it, or "controller:lun".
    pub id: String,
    /// The image.
    pub path: String,
    /// Number of its controller.
    pub controller: u32,
    /// Number on the controller.
    pub lun: u8,
    /// Disk or DVD drive.
    pub kind: UnitKind,
    /// It was taken away, and waits for its last requests; its id is "controller:lun" then,
    /// whatever it was.
    pub removed: bool,
    /// A disc is in the drive; always for a disk.
    pub has_medium: bool,
    /// The drive's tray is open.
    pub tray_open: bool,
    /// The guest has locked the drive's tray.
    pub locked: bool,
    /// The guest may not write.
    pub readonly: bool,
    /// Requests of every kind.
    pub requests: u64,
    /// Those that read.
    pub reads: u64,
    /// Those that wrote.
    pub writes: u64,
    /// Those that flushed.
    pub flushes: u64,
    /// Ranges that the guest gave up (UNMAP).
    pub discards: u64,
    /// Bytes of those.
    pub discarded_bytes: u64,
    /// Ranges set to zero without data from the guest (WRITE SAME).
    pub zeroes: u64,
    /// Bytes of those.
    pub zeroed_bytes: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Bytes that had to be copied on their way between guest buffer and image. 0 while everything
    /// is aligned.
    pub copied_bytes: u64,
    /// The guest's memory is kept in place for this disk (`buffers=fixed`).
    pub fixed_buffers: bool,
    /// Calls to the host's kernel that found their memory so: one for each read or write that is
    /// not split.
    pub fixed_calls: u64,
    /// Interrupts for completions that its controller delayed (`--disk-moderation`), for all its
    /// disks together.
    pub held_back: u64,
    /// Requests refused as invalid, unknown or out of range.
    pub refused: u64,
    /// Reads, writes and flushes that failed.
    pub errors: u64,
    /// Requests that the image has now and has not finished. What stays here for long is held up
    /// by the host's storage.
    pub in_flight: u64,
    /// What its limits have held up; none for a disk that was given none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<ThrottleReport>,
}

/// What a disk's limits have held up. A request counts when it goes on, not while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleReport {
    /// Requests that did not go on at once.
    pub delayed_requests: u64,
    /// Bytes that those read and wrote.
    pub delayed_bytes: u64,
    /// Microseconds that they waited, all together.
    pub delayed_us: u64,
}

/// What a guest said when it panicked (Hyper-V crash MSRs 0x40000100 to 0x40000105).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PanicReport {
    /// Crash parameters P0 to P4. Linux: error code, and RIP, RAX, RSP and more by version;
    /// Windows: the bug check and its parameters.
    pub parameters: [u64; 5],
    /// Text that came with it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
