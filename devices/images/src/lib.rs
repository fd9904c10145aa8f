//! Image formats: disks that lie in VHDX, VHD and qcow2 files, and the tools that make, convert and check such files.
//!
//! | module | what it knows |
//! |---|---|
//! | [`Format`], [`detect`], [`open`] | which format an image has, and how to open it as a [`Backend`](synthvm_block::Backend) |
//! | [`create`], [`convert`], [`info`], [`check`] | the tools |
//! | `mapped` | media whose bytes lie somewhere in image files: the format says where, the raw backend moves them, nothing is copied |
//! | `vhdx`, `vhd`, `qcow2` | formats that say where |

mod error;
mod file;
mod format;
mod guid;
mod mapped;
mod open;
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
pub use open::{OpenOptions, Parents, open};
pub use tools::{
    CheckReport, ConvertOptions, CreateOptions, ImageInfo, Progress, ToolError, check, convert, create, info,
};
