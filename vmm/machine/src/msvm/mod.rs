//! Hyper-V's generation 2 firmware: the models of `synthvm-msvm` joined to the machine
//! (docs/firmware.md).

mod devices;
mod entry;
mod error;
mod source;
#[cfg(test)]
mod tests;
mod watchdog;

pub(crate) use devices::{GenerationPort, MsvmDevices};
pub(crate) use entry::{apply as apply_cpu_state, boot_msrs};
pub use error::MsvmError;
pub use source::MsvmSource;
