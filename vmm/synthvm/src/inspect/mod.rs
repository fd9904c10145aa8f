//! The report of a running machine, and its rendering for people.
//!
//! `synthvm inspect --json` prints an [`InspectReport`]. Other programs depend on its format, so
//! keys are added, never changed.

mod gather;
mod metrics;
mod network;
mod rates;
mod render;
mod render_display;
mod render_memory;
mod render_network;
mod render_services;
mod render_vsock;
mod report;
mod table;

pub(crate) use gather::{disk, tpm};
pub use metrics::metrics;
pub use network::{CaptureReport, NetworkDrops, NetworkQueueReport, NetworkReport};
pub use render::{Style, render};
pub use render_memory::render_memory;
pub use report::{
    ChannelReport, ConnectionReport, ConnectionState, DiskReport, ExitCounts, GpadlReport,
    InspectReport, MachineReport, MessageCounts, PanicReport, RingReport, RingsReport,
    ThrottleReport, TpmReport, VcpuReport,
};
pub(crate) use table::{Align, Table, printable};
