//! Image formats: disks that lie in VHDX, VHD and qcow2 files, and the tools that create, convert
//! and check such files.
//!
//! | module | content |
//! |---|---|
//! | [`Format`], [`detect`], [`open`] | the formats; an open image is a `synthvm_block::Backend` |
//! | [`create`], [`convert`], [`info`], [`check`] | the tools |
//! | `mapped` | backends whose bytes lie in image files, where a format locates them |
//! | `vhdx`, `vhd`, `qcow2` | formats that locate the bytes |

mod error;
mod file;
mod format;
mod guid;
mod mapped;
mod open;
mod options;
#[cfg(test)]
mod powerloss;
mod qcow2;
#[cfg(test)]
mod testing;
mod tools;
mod transfer;
mod vhd;
mod vhdx;

pub use error::OpenError;
pub use format::{Format, UnknownFormat, detect};
pub use open::open;
pub use options::{OpenOptions, Parents};
pub use tools::{
    CheckReport, ConvertOptions, CreateOptions, ImageInfo, Progress, ToolError, check, convert,
    create, info,
};
