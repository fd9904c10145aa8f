//! A TPM 2.0 for guests: the command response buffer interface (CRB) in memory at
//! [`BASE`], and swtpm, a TPM in software, as the TPM behind it (docs/spec/firmware-windows.md
//! section D7).
//!
//! | module | knowledge |
//! |---|---|
//! | [`registers`] | the registers as the guest's driver sees them: no thread, no I/O |
//! | `control`, `emulator`, `child`, `folder` | swtpm: its protocol, its process, its state |
//! | `device` | both joined, with the thread on which commands run |
//!
//! A TPM that fails does not stop the machine: the guest's driver sees the error bit, and the log
//! has one warning with the reason.

mod child;
mod control;
mod device;
mod emulator;
mod error;
mod folder;
mod presence;
pub mod registers;
#[cfg(test)]
mod tests;

pub use child::SwtpmOptions;
pub use control::{BlobKind, StateBlob};
pub use device::{TpmDevice, TpmReport, TpmState};
pub use emulator::{Emulator, Timeouts};
pub use error::TpmError;
pub use folder::StateError;
pub use presence::{PRESENCE_BASE, PRESENCE_SIZE, PresencePage};
pub use registers::{BASE, SIZE};

/// Returns the content of the fw_cfg file `etc/tpm/config`, by which OVMF finds the TPM: u32
/// address of the physical presence interface, u8 TPM version (2), u8 version of that interface
/// (1: 1.30, 0: there is none), little-endian (docs/spec/firmware-windows.md section D7.1; QEMU's `FwCfgTPMConfig`).
pub const fn fw_cfg_config(has_presence: bool) -> [u8; 6] {
    let [a, b, c, d] = PRESENCE_BASE.to_le_bytes();
    [a, b, c, d, 2, has_presence as u8]
}
