//! The contract of Hyper-V's generation 2 firmware (`MSVM.fd`), without KVM and threads.
//!
//! * [`FirmwareImage`]: an image, checked, with its entry point; [`Placement`] places it in guest
//!   memory with page tables, GDT and configuration; [`EntryState`] is the processor's state.
//! * [`BlobWriter`] and [`BlobReader`]: the configuration that the firmware reads at its start.
//! * [`BiosDevice`]: ports 0x28 and 0x2C: variables, watchdog, event log, random numbers.
//! * [`Nvram`]: the variables, by the rules of UEFI's SetVariable; [`VariablesFile`] keeps them.
//!
//! Numbers are little-endian. Source: spec firmware-windows section A.

mod bios;
mod blob;
mod entry;
mod fields;
mod image;
mod load;
mod memory;
mod nvram;
mod placement;
mod status;

pub use bios::{BiosDevice, BiosRequest, Clock, EventLine, EventLines, Random, WATCHDOG_COUNT};
pub use blob::{
    BlobError, BlobReader, BlobWriter, ConfigFlags, Entry, EntryType, MemoryRange, MmioWindow,
    ProcessorCounts, SmbiosText,
};
pub use entry::{EntryState, Mtrr, Segment, mtrrs};
pub use image::{FirmwareImage, ImageError, wrap_flat};
pub use nvram::{
    Attributes, Name, Nvram, NvramRequest, SecureBootKeys, Signatures, StoreError, StoredVariable,
    Timestamp, Variable, VariableStore, Variables, VariablesFile, VolatileStore,
};
pub use placement::{IMAGE_BASE, Placement};
pub use status::Status;
/// The guest memory that this crate's functions use.
pub use vm_memory::GuestMemoryMmap;
