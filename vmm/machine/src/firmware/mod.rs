//! Firmware: the models of `synthvm-firmware` joined to the machine (docs/firmware.md).

mod cloudhv;
mod devices;
mod error;
mod slot;
mod source;
mod syncer;
mod tables;

pub(crate) use cloudhv::CloudHvPorts;
pub use cloudhv::CloudHvSource;
pub(crate) use devices::{FirmwareDevices, Pci};
pub use error::FirmwareError;
pub use source::FirmwareSource;
