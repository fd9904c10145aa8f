//! Errors of a machine's firmware.

use std::io;
use std::path::PathBuf;

use crate::boot::BootError;
use synthvm_firmware::{FwCfgError, ImageError, OptionRomError, VariablesError};

/// Firmware, or a file for it, that cannot be used. Each variant tells which field of
/// [`FirmwareConfig`](crate::FirmwareConfig) is at fault.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// `image` or `template`.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// `variables`.
    #[error(transparent)]
    Variables(#[from] VariablesError),
    /// `option_rom` cannot be read.
    #[error("{}: {source}", path.display())]
    ReadOptionRom {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `option_rom` is not an option ROM.
    #[error("{}: {source}", path.display())]
    OptionRom {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: OptionRomError,
    },
    /// `kernel` or `initrd` of the machine cannot be given to the firmware.
    #[error("{}: {source}", path.display())]
    BootFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An ELF image is damaged.
    #[error(transparent)]
    Elf(BootError),
    /// An ELF image has no PVH entry.
    #[error(
        "{}: is an ELF file without a PVH entry; give CLOUDHV.fd or another image of OVMF",
        path.display()
    )]
    NoPvhEntry {
        /// The image.
        path: PathBuf,
    },
    /// The image starts no kernel by itself.
    #[error("{}: this image boots from disks alone; leave --kernel out", path.display())]
    NoKernel {
        /// The image.
        path: PathBuf,
    },
    /// The image keeps no variables.
    #[error("{}: this image keeps no variables; leave --firmware-vars out", path.display())]
    NoVariables {
        /// The image.
        path: PathBuf,
    },
    /// An item for the firmware is too large.
    #[error(transparent)]
    Item(#[from] FwCfgError),
    /// KVM cannot map read-only memory.
    #[error("this host's KVM lacks KVM_CAP_READONLY_MEM, which firmware needs")]
    NoReadOnlyMemory,
    /// The host refused memory for the image, or KVM refused to map it.
    #[error("mapping the firmware: {0}")]
    Map(#[source] io::Error),
}
