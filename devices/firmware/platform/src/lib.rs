//! The platform that UEFI firmware for virtual machines expects (spec firmware-windows sections B
//! and E; hypervisor-platform section 12), without KVM and without threads.
//!
//! * [`PciBus`]: configuration access to a bus that is shaped like an i440FX, with one device that
//!   carries an option ROM, and by which a driver in that ROM reports that there is no system to
//!   boot ([`BootFailure`]).
//! * [`FwCfg`]: the device by which firmware reads its configuration, tables and files.
//! * [`FirmwareImage`]: a checked image: code, and the template of its variables.
//! * [`Flash`]: the variables, as a CFI flash memory; [`Variables`]: their bytes and their file.
//! * [`TableLoader`]: the script by which firmware places ACPI tables.
//! * [`smbios`]: SMBIOS 3 tables.
//!
//! Each model is driven by one access at a time; the caller provides the lock. Guests control every
//! argument of an access: none of them can cause a panic, an access outside guest RAM or an
//! allocation.

mod flash;
mod fw_cfg;
mod image;
mod pci;
pub mod smbios;
mod table_loader;

pub use flash::{FLASH_BLOCK, Flash, Variables, VariablesError};
pub use fw_cfg::{Content, FwCfg, FwCfgError, key};
pub use image::{FirmwareImage, ImageError, MAX_IMAGE_BYTES};
pub use pci::{BootFailure, MAX_OPTION_ROM_BYTES, OptionRom, OptionRomError, PciBus};
pub use table_loader::{TableLoader, Zone};
