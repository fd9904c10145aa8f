//! The protocol of a test guest's report port: one JSON object per line.
//!
//! A test controls one boot step by step: it sends a [`Request`] and receives a [`Reply`] with the
//! same id. The guest also sends [`Event`]s at any time; the first is always [`Event::Ready`].

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::animation::Scene;
use crate::records::Order;

/// A request to the guest: `{"id":1,"do":"sha256","args":{...}}`. Without required arguments,
/// `args` may be omitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Request {
    /// The id, which the reply repeats.
    pub id: u64,
    /// The action.
    #[serde(flatten)]
    pub action: Action,
}

/// The format of a request on the line.
#[derive(Deserialize)]
struct Written {
    id: u64,
    #[serde(rename = "do")]
    name: String,
    args: Option<Value>,
}

impl TryFrom<Written> for Request {
    type Error = serde_json::Error;

    fn try_from(written: Written) -> Result<Request, serde_json::Error> {
        let Written { id, name, args } = written;
        let action = match args {
            Some(args) => Action::deserialize(json!({ "do": name, "args": args })),
            // `args` is absent: either the action has no arguments, or all of them have defaults.
            None => Action::deserialize(json!({ "do": name }))
                .or_else(|_| Action::deserialize(json!({ "do": name, "args": {} }))),
        };
        Ok(Request { id, action: action? })
    }
}

/// An action of the guest. Offsets, lengths and sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", content = "args", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answers. Value: `"pong"`.
    Ping,
    /// Returns the bus. Value: [`Vmbus`].
    Vmbus,
    /// Waits until at least `at_least` disks exist, up to a timeout. Value: a list of [`Disk`].
    Disks {
        /// Number of disks to wait for.
        #[serde(default)]
        at_least: usize,
        /// Timeout in seconds.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Computes a checksum. Value: [`Sum`].
    Sha256 {
        /// A file or block device.
        path: String,
        /// The first byte.
        #[serde(default)]
        offset: u64,
        /// Number of bytes; to the end when absent.
        #[serde(default)]
        length: Option<u64>,
        /// Whether to bypass the page cache.
        #[serde(default)]
        direct: bool,
    },
    /// Writes [`crate::pattern`] and flushes it. Value: null.
    WritePattern(PatternRange),
    /// Reads the range and compares it with the pattern. Value: null; a difference is an error with
    /// its offset.
    VerifyPattern(PatternRange),
    /// Makes a file system, fills it, unmounts it, reads it back and checks it. Value:
    /// [`FsReport`].
    FsCheck {
        /// The block device, whose content is lost.
        path: String,
        /// Number of files.
        #[serde(default = "default_files")]
        files: u32,
        /// Size of each file.
        #[serde(default = "default_file_size")]
        file_size: u64,
    },
    /// Uses SynthVM's echo device through uio_hv_generic, checks every byte, and releases the
    /// device. Value: [`EchoReport`].
    Echo,
    /// Tries to write to a read-only disk. Value: [`RefusedWrite`].
    RoWrite {
        /// The block device.
        path: String,
    },
    /// Sends one SCSI command. Value: [`ScsiResult`].
    SgIo {
        /// The block device or SCSI generic device.
        path: String,
        /// The command block in hexadecimal.
        cdb: String,
        /// Bytes of the buffer for data from the device.
        #[serde(default)]
        read: u32,
        /// Data for the device in hexadecimal; excludes `read`.
        #[serde(default)]
        write: Option<String>,
        /// The kernel's timeout in seconds.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Unloads the modules from last to first and loads them from first to last, `times` times.
    /// Value: null.
    ModulesReload {
        /// The modules, in load order.
        names: Vec<String>,
        /// Number of cycles.
        times: u32,
    },
    /// Returns the current clock source. Value: its name.
    Clocksource,
    /// Runs a program. Value: [`Output`].
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// Timeout in seconds, after which the program is killed.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Sends bytes to a server that returns them, waits for them, and repeats this. Value:
    /// [`RoundTrips`].
    RoundTrips {
        /// Address and port of the server, for TCP.
        address: String,
        /// Number of round trips.
        count: u32,
        /// Bytes of each.
        bytes: usize,
    },
    /// Reads a file. Value: its text.
    ReadFile {
        /// The file.
        path: String,
    },
    /// Writes a file. Value: null.
    WriteFile {
        /// The file.
        path: String,
        /// The new content.
        text: String,
    },
    /// Returns the end of the kernel's log. Value: a list of lines.
    Dmesg {
        /// Number of lines.
        lines: usize,
    },
    /// Makes the kernel panic. The reply precedes the panic.
    Panic,
    /// Starts the kernel packed in `/boot` without a shutdown of drivers. The reply precedes the
    /// start.
    Kexec {
        /// The new command line; the current one when absent.
        #[serde(default)]
        cmdline: Option<String>,
    },
    /// Restarts the machine. The reply precedes the restart.
    Reboot,
    /// Powers the machine off. The reply precedes it.
    Poweroff,
    /// Writes [`crate::records`], flushes, and acknowledges each by [`Event::Ack`]. Value: null.
    FsyncLoad(Load),
    /// Brings all processors online. Value: their number.
    OnlineCpus,
    /// Loads a module. Value: null.
    LoadModule {
        /// The module.
        name: String,
        /// The module's parameters.
        #[serde(default)]
        parameters: String,
    },
    /// Unloads a module. Value: null.
    UnloadModule {
        /// The module.
        name: String,
    },
    /// Sets a mode of the screen, with a frame whose bytes are [`crate::pattern`]. The mode stays
    /// until [`Action::CloseScreen`]. Value: null.
    DrawPattern {
        /// Pixels of a row.
        width: u16,
        /// Number of rows.
        height: u16,
        /// The pattern's seed.
        seed: u64,
    },
    /// Sets a mode of the screen and draws an animation, whose frames have numbers: see
    /// [`crate::animation`]. Value: null.
    Animate {
        /// What moves.
        scene: Scene,
        /// Pixels of a row.
        width: u16,
        /// Number of rows.
        height: u16,
        /// The number of the first frame.
        first: u16,
        /// Number of frames.
        frames: u16,
        /// Shortest time from one frame to the next, in microseconds.
        interval_us: u64,
    },
    /// Closes the graphics card. Value: null.
    CloseScreen,
    /// Waits for input devices of these names, and opens all. Value: the names of all.
    OpenInput {
        /// The names, as the kernel reports them.
        names: Vec<String>,
        /// Timeout in seconds.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Reads at least `count` events of the open input devices. Value: a list of [`InputEvent`].
    ReadInput {
        /// Number of events.
        count: usize,
        /// Timeout in seconds.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Closes all input devices. Value: null.
    CloseInput,
    /// Opens connections of AF_VSOCK to the host, which are open at the same time. Sends a pattern
    /// over each, ends it, and expects the same bytes back. Value: [`SocketStreams`].
    SocketExchange {
        /// The port of the host.
        port: u32,
        /// Number of connections.
        count: u32,
        /// Bytes for each.
        bytes: usize,
        /// The first connection's seed; each other one has the next.
        seed: u64,
    },
    /// Connects to a port of the host at which no program listens. Value: the error.
    SocketRefused {
        /// The port of the host.
        port: u32,
    },
    /// Sends bytes to a port of the host, waits for them, and repeats this. Value: [`RoundTrips`].
    SocketRoundTrips {
        /// The port of the host.
        port: u32,
        /// Number of round trips.
        count: u32,
        /// Bytes of each.
        bytes: usize,
    },
    /// Moves bytes over connections of AF_VSOCK to the host, all at the same time. To the host: the
    /// host reads until the end, and then sends one byte. From the host: the host reads a number
    /// (u64, little endian), sends as many bytes, and ends the connection. Value:
    /// [`SocketStreams`].
    SocketTransfer {
        /// The port of the host.
        port: u32,
        /// The direction.
        direction: SocketDirection,
        /// Number of connections.
        count: u32,
        /// Bytes of each.
        bytes: u64,
    },
    /// Serves connections of the host until [`Action::SocketStop`]: returns the bytes of each after
    /// their end. Value: null.
    SocketServe {
        /// The port of the guest.
        port: u32,
    },
    /// Ends the server. Value: the number of connections that it served.
    SocketStop,
}

fn default_timeout() -> u64 {
    60
}

fn default_files() -> u32 {
    20
}

fn default_file_size() -> u64 {
    100_000
}

/// The direction of [`Action::SocketTransfer`], in the guest's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketDirection {
    /// To the host.
    Send,
    /// From the host.
    Receive,
}

/// The result of [`Action::SocketExchange`] and [`Action::SocketTransfer`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SocketStreams {
    /// Seconds until all connections were open.
    pub connected: f64,
    /// Seconds until the last byte was back.
    pub seconds: f64,
}

/// An event of an input device (linux/input-event-codes.h).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEvent {
    /// The device's name.
    pub device: String,
    /// The type: 1 for keys and buttons, 2 for relative axes, 3 for absolute ones.
    pub kind: u16,
    /// The key or axis.
    pub code: u16,
    /// The value. A key's: 1 pressed, 0 released, 2 repeated.
    pub value: i32,
}

/// A part of a file or device and the seed of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternRange {
    /// A file or block device.
    pub path: String,
    /// The first byte.
    #[serde(default)]
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// The pattern's seed.
    pub seed: u64,
    /// Whether to bypass the page cache; offset and length must then be multiples of the block
    /// size.
    #[serde(default)]
    pub direct: bool,
}

/// The options for writing records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// A file or block device.
    pub path: String,
    /// Number of blocks of [`crate::records::RECORD_SIZE`] to use.
    pub blocks: u64,
    /// Number of records to write; unlimited when absent.
    #[serde(default)]
    pub count: Option<u64>,
    /// The records' seed.
    pub seed: u64,
    /// The order of their blocks.
    pub order: Order,
    /// Whether to bypass the page cache.
    #[serde(default)]
    pub direct: bool,
    /// Number of records per flush and acknowledgement.
    #[serde(default = "one")]
    pub batch: u64,
}

fn one() -> u64 {
    1
}

/// The answer to a request: `{"id":1,"ok":true,"value":...}` or
/// `{"id":1,"ok":false,"error":"..."}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id; 0 if the request could not be read.
    pub id: u64,
    /// Whether the request succeeded.
    pub ok: bool,
    /// The result.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// The cause of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An event that a guest reports without a request: `{"event":"ready",...}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The guest is up and its modules are loaded.
    Ready {
        /// The kernel's release.
        kernel: String,
        /// Processors online.
        cpus: u32,
        /// The clock source in use.
        clocksource: String,
        /// The kernel's command line.
        cmdline: String,
        /// Seconds since the kernel started.
        uptime_s: f64,
        /// Modules that did not load, with the reason.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        modules_failed: Vec<String>,
    },
    /// All records before this number are on the disk.
    Ack {
        /// One past the last acknowledged record.
        records: u64,
    },
    /// A check of the command line has ended.
    Check {
        /// The check, as requested.
        name: String,
        /// Whether the check passed.
        ok: bool,
        /// The result.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        value: Value,
        /// The cause of a failure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// All checks of the command line have ended.
    Done {
        /// Number of passed checks.
        passed: u32,
        /// Number of failed checks.
        failed: u32,
    },
}

/// A line from a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// An event.
    Event(Event),
    /// A reply.
    Reply(Reply),
}

/// The guest's view of its VMBus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmbus {
    /// The negotiated version, such as `5.3`, as last reported by the driver.
    pub version: Option<String>,
    /// The offered devices, sorted by name.
    pub devices: Vec<VmbusDevice>,
}

/// An entry of `/sys/bus/vmbus/devices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmbusDevice {
    /// The entry's name (the instance).
    pub name: String,
    /// The channel's relative id.
    pub id: u32,
    /// The device's class, without braces.
    pub class_id: String,
    /// The device's instance, without braces.
    pub device_id: String,
    /// The channel's state in the driver's numbering (3 is open).
    pub state: u32,
    /// The bound driver.
    pub driver: Option<String>,
    /// Relative ids of the device's channels, including the primary one.
    pub channels: Vec<u32>,
}

/// The guest's view of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The name, such as `sda`.
    pub name: String,
    /// The size.
    pub size: u64,
    /// Whether the disk refuses writes.
    pub read_only: bool,
    /// The smallest addressable unit.
    pub logical_block: u32,
    /// The unit that the disk writes without reading.
    pub physical_block: u32,
    /// SCSI vendor.
    pub vendor: String,
    /// SCSI product.
    pub model: String,
    /// SCSI revision.
    pub revision: String,
    /// Unit serial number (VPD page 80h).
    pub serial: Option<String>,
    /// Identifier (VPD page 83h).
    pub wwid: Option<String>,
    /// host:channel:target:lun.
    pub address: String,
    /// The VMBus device of the disk's controller.
    pub vmbus_device: Option<String>,
    /// The largest discard in one request; 0 if the disk supports none.
    pub discard_max: u64,
}

/// A checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// The checksum in hexadecimal.
    pub sha256: String,
    /// Number of bytes that it covers.
    pub bytes: u64,
}

/// The result of a file system test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsReport {
    /// Number of files written and read back.
    pub files: u32,
    /// Bytes in the files.
    pub bytes: u64,
}

/// The result of a test of the echo device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EchoReport {
    /// Requests sent; all answers were correct.
    pub requests: u64,
    /// Number of wraps of the rings: to the host, from the host.
    pub wraps: [u32; 2],
    /// Number of interrupts.
    pub interrupts: u64,
    /// Whether the host was seen waiting for space in its ring. It continued when there was space.
    pub host_waited_for_space: bool,
    /// Bytes of the buffers that were shared by GPADL.
    pub shared_bytes: u64,
    /// Bytes of the buffers that the host was asked to change.
    pub capitals: u64,
}

/// The refusal of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedWrite {
    /// The error number of an ordinary write.
    pub errno: i32,
    /// The device's answer to WRITE(10).
    pub scsi: ScsiResult,
}

/// The outcome of a SCSI command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScsiResult {
    /// SCSI status byte.
    pub status: u8,
    /// The kernel's view of the transport.
    pub host_status: u16,
    /// The kernel's view of its driver.
    pub driver_status: u16,
    /// Sense data in hexadecimal.
    pub sense: String,
    /// Sense key, additional sense code and its qualifier, if there is sense data.
    pub sense_code: Option<(u8, u8, u8)>,
    /// Data from the device in hexadecimal.
    pub data: String,
    /// Bytes requested but not transferred.
    pub residual: i32,
}

/// The time of round trips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The duration of all in seconds, without the time to connect.
    pub seconds: f64,
    /// The median in microseconds.
    pub p50_us: f64,
    /// The 99th percentile in microseconds.
    pub p99_us: f64,
}

/// The result of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The exit status, or 128 + the signal that ended the program.
    pub status: i32,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_request_with_arguments_is_read() {
        let text = r#"{"id":1,"do":"sha256","args":{"path":"/dev/sda","direct":true}}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        let action =
            Action::Sha256 { path: "/dev/sda".to_owned(), offset: 0, length: None, direct: true };
        assert_eq!(request, Request { id: 1, action });
    }

    #[test]
    fn test_request_without_arguments_is_read() {
        let request: Request = serde_json::from_str(r#"{"id":2,"do":"ping"}"#).unwrap();
        assert_eq!(request, Request { id: 2, action: Action::Ping });
    }

    #[test]
    fn test_request_without_arguments_that_all_have_defaults_is_read() {
        let request: Request = serde_json::from_str(r#"{"id":2,"do":"disks"}"#).unwrap();
        assert_eq!(request.action, Action::Disks { at_least: 0, timeout_s: 60 });
        let error =
            serde_json::from_str::<Request>(r#"{"id":2,"do":"sha256"}"#).unwrap_err().to_string();
        assert!(error.contains("path"), "{error}");
    }

    #[test]
    fn test_request_with_an_unknown_action_or_argument_is_refused() {
        for text in [
            r#"{"id":1,"do":"fly"}"#,
            r#"{"do":"ping"}"#,
            r#"{"id":1,"do":"read_file","args":{"path":"/x","size":1}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn test_requests_written_are_read_back() {
        let load = Load {
            path: "/dev/sda".to_owned(),
            blocks: 8,
            count: None,
            seed: 1,
            order: Order::Random,
            direct: true,
            batch: 4,
        };
        for action in [Action::Ping, Action::FsyncLoad(load), Action::Dmesg { lines: 3 }] {
            let text = serde_json::to_string(&Request { id: 3, action: action.clone() }).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap().action, action, "{text}");
        }
    }

    #[test]
    fn test_line_is_distinguished_by_its_fields() {
        let event: Line = serde_json::from_str(r#"{"event":"ack","records":5}"#).unwrap();
        assert_eq!(event, Line::Event(Event::Ack { records: 5 }));
        let reply: Line = serde_json::from_str(r#"{"id":5,"ok":true,"value":[1]}"#).unwrap();
        assert!(matches!(reply, Line::Reply(Reply { id: 5, ok: true, .. })));
    }
}
