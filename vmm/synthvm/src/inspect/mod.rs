//! What a running machine tells about itself: the report, and how people read it.
//!
//! `synthvm inspect --json` prints an [`InspectReport`]; its shape is relied on by others, so keys
//! are added, never changed.

mod gather;
mod rates;
mod render;
mod report;
mod table;

pub(crate) use gather::disk;
pub use render::{Style, render};
pub use report::{
    ChannelReport, ConnectionReport, ConnectionState, DiskReport, ExitCounts, GpadlReport,
    InspectReport, MachineReport, MessageCounts, PanicReport, RingReport, RingsReport,
    ThrottleReport, VcpuReport,
};
pub(crate) use table::{Align, Table};
