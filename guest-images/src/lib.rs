//! Builds bootable test and demo guests from stock distribution kernel packages.
//!
//! Packages come through the system's own package manager, but into private folders: nothing is
//! added to the user's system. Fetched packages are kept, checked and used again without a network.

pub mod apt;
pub mod cache;
pub mod chromium;
pub mod cpio;
pub mod disk;
mod error;
pub mod firmware;
pub mod guest;
pub mod gvnc;
pub mod init_binary;
pub mod kernel;
pub mod kmods;
mod libraries;
pub mod logged;
mod msvm_stub;
pub mod option_rom;
pub mod packages;
pub mod passt;
mod programs;
pub mod progress;
pub mod qemu;
pub mod swtpm;
mod tools;
pub mod web_libraries;
pub mod weston;

pub use error::Error;
pub use firmware::Ovmf;
pub use guest::{GuestBuilder, GuestImage};
pub use kernel::{Kernel, StockKernel};
pub use msvm_stub::msvm_stub;
