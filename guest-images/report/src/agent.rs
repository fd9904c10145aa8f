//! The words on a test guest's report port: JSON, one object a line.
//!
//! A test drives one boot step by step: it sends a [`Request`] and gets a [`Reply`] with the same
//! id. Between them, and without being asked, come [`Event`]s; the first is always
//! [`Event::Ready`].

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::records::Order;

/// A request to the guest: `{"id":1,"do":"sha256","args":{...}}`. Where no argument is needed,
/// `args` may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Request {
    /// The reply carries it again.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

/// A request as it stands on the line.
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
            // Actions without arguments take none; of the others, those whose arguments all have
            // defaults take none too.
            None => Action::deserialize(json!({ "do": name }))
                .or_else(|_| Action::deserialize(json!({ "do": name, "args": {} }))),
        };
        Ok(Request { id, action: action? })
    }
}

/// What a guest can be asked to do. Offsets, lengths and sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", content = "args", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answer. Value: `"pong"`.
    Ping,
    /// Value: [`Vmbus`].
    Vmbus,
    /// Waits until at least so many disks are there, for at most so long. Value: a list of
    /// [`Disk`].
    Disks {
        /// How many to wait for.
        #[serde(default)]
        at_least: usize,
        /// For how long.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Value: [`Sum`].
    Sha256 {
        /// A file or block device.
        path: String,
        /// The first byte.
        #[serde(default)]
        offset: u64,
        /// How many bytes; to the end when absent.
        #[serde(default)]
        length: Option<u64>,
        /// Past the page cache.
        #[serde(default)]
        direct: bool,
    },
    /// Writes [`crate::pattern`] and flushes it. Value: null.
    WritePattern(PatternRange),
    /// Reads and compares. Value: null; a difference is an error that names its place.
    VerifyPattern(PatternRange),
    /// Makes a file system, fills it, unmounts it, reads it back and checks it. Value:
    /// [`FsReport`].
    FsCheck {
        /// The block device; all that is on it is lost.
        path: String,
        /// How many files.
        #[serde(default = "default_files")]
        files: u32,
        /// How large each is.
        #[serde(default = "default_file_size")]
        file_size: u64,
    },
    /// Speaks to SynthVM's echo device through uio_hv_generic, checks every byte, and lets it go.
    /// Value: [`EchoReport`].
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
        /// Room for data from the device.
        #[serde(default)]
        read: u32,
        /// Data for the device in hexadecimal; excludes `read`.
        #[serde(default)]
        write: Option<String>,
        /// After this the kernel gives up.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Unloads the modules from last to first and loads them from first to last, so many times.
    /// Value: null.
    ModulesReload {
        /// In the order in which they load.
        names: Vec<String>,
        /// How many cycles.
        times: u32,
    },
    /// Value: the name of the current clock source.
    Clocksource,
    /// Runs a program. Value: [`Output`].
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// It is killed after this.
        #[serde(default = "default_timeout")]
        timeout_s: u64,
    },
    /// Value: the file's text.
    ReadFile {
        /// The file.
        path: String,
    },
    /// Value: null.
    WriteFile {
        /// The file.
        path: String,
        /// Its new content.
        text: String,
    },
    /// Value: the last lines of the kernel's log, as a list.
    Dmesg {
        /// How many lines.
        lines: usize,
    },
    /// Makes the kernel panic. The reply comes before it.
    Panic,
    /// Starts the kernel packed in `/boot` without any shutdown of drivers. The reply comes before
    /// it.
    Kexec {
        /// The new command line; the present one when absent.
        #[serde(default)]
        cmdline: Option<String>,
    },
    /// Restarts the machine. The reply comes before it.
    Reboot,
    /// Powers the machine off. The reply comes before it.
    Poweroff,
    /// Writes [`crate::records`], flushes, and acknowledges each by [`Event::Ack`]. Value: null.
    FsyncLoad(Load),
    /// Brings all processors online. Value: how many are.
    OnlineCpus,
    /// Value: null.
    LoadModule {
        /// The module.
        name: String,
        /// Its parameters.
        #[serde(default)]
        parameters: String,
    },
    /// Value: null.
    UnloadModule {
        /// The module.
        name: String,
    },
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

/// A part of a file or device and the seed of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternRange {
    /// A file or block device.
    pub path: String,
    /// The first byte.
    #[serde(default)]
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// The pattern's seed.
    pub seed: u64,
    /// Past the page cache; offset and length must be multiples of the block size.
    #[serde(default)]
    pub direct: bool,
}

/// How to write records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// A file or block device.
    pub path: String,
    /// How many blocks of [`crate::records::RECORD_SIZE`] to use.
    pub blocks: u64,
    /// How many records to write; without end when absent.
    #[serde(default)]
    pub count: Option<u64>,
    /// The records' seed.
    pub seed: u64,
    /// Where they go.
    pub order: Order,
    /// Past the page cache, else through it.
    #[serde(default)]
    pub direct: bool,
    /// Flush and acknowledge after so many records.
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
    /// The request's id; 0 when the request could not be read.
    pub id: u64,
    /// True when it was done.
    pub ok: bool,
    /// What came out.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a guest says without being asked: `{"event":"ready",...}`.
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
        /// As it was asked for.
        name: String,
        /// True when it passed.
        ok: bool,
        /// What came out.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        value: Value,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// All checks of the command line have ended.
    Done {
        /// How many passed.
        passed: u32,
        /// How many failed.
        failed: u32,
    },
}

/// Any line that a guest sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// An event.
    Event(Event),
    /// A reply.
    Reply(Reply),
}

/// What the guest knows of its VMBus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmbus {
    /// The negotiated version, such as `5.3`, as the driver reported it last.
    pub version: Option<String>,
    /// The offered devices, by their names.
    pub devices: Vec<VmbusDevice>,
}

/// One entry of `/sys/bus/vmbus/devices`.
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
    /// The channel's state as the driver numbers it (3 is open).
    pub state: u32,
    /// The driver bound to it.
    pub driver: Option<String>,
    /// Relative ids of its channels, the primary among them.
    pub channels: Vec<u32>,
}

/// A disk as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name, such as `sda`.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// True when it refuses writes.
    pub read_only: bool,
    /// The smallest addressable unit.
    pub logical_block: u32,
    /// The unit that it writes without reading.
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
    /// The VMBus device that it hangs on.
    pub vmbus_device: Option<String>,
    /// The largest discard that it takes at once; 0 when it takes none.
    pub discard_max: u64,
}

/// A checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// In hexadecimal.
    pub sha256: String,
    /// How many bytes it covers.
    pub bytes: u64,
}

/// What became of a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsReport {
    /// Files written and found again.
    pub files: u32,
    /// Bytes in them.
    pub bytes: u64,
}

/// What went to the echo device and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EchoReport {
    /// Requests sent; each was answered as it should be.
    pub requests: u64,
    /// How often the rings came round: to the host, from the host.
    pub wraps: [u32; 2],
    /// Interrupts waited for.
    pub interrupts: u64,
    /// The host was seen to wait for space in its ring, and went on when there was some.
    pub host_waited_for_space: bool,
    /// Bytes of the buffers that were shared by GPADL.
    pub shared_bytes: u64,
    /// Bytes of them that the host was asked to change.
    pub capitals: u64,
}

/// How a write was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedWrite {
    /// The error number of an ordinary write.
    pub errno: i32,
    /// What the device itself says to WRITE(10).
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
    /// Sense key, additional sense code and its qualifier, when there is sense data.
    pub sense_code: Option<(u8, u8, u8)>,
    /// Data from the device in hexadecimal.
    pub data: String,
    /// Bytes asked for and not transferred.
    pub residual: i32,
}

/// What a program said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its exit status, or 128 + the signal that ended it.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
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
    fn test_line_is_told_apart_by_its_fields() {
        let event: Line = serde_json::from_str(r#"{"event":"ack","records":5}"#).unwrap();
        assert_eq!(event, Line::Event(Event::Ack { records: 5 }));
        let reply: Line = serde_json::from_str(r#"{"id":5,"ok":true,"value":[1]}"#).unwrap();
        assert!(matches!(reply, Line::Reply(Reply { id: 5, ok: true, .. })));
    }
}
