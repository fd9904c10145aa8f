//! Video memory in an MMIO window of the machine.

use synthvm_machine::{WindowError, WindowMemory};
use synthvm_video::{PlaceError, VideoMemory};
use vm_memory::VolatileSlice;

/// The machine's memory as the video device uses it.
pub(super) struct Vram(pub(super) WindowMemory);

impl VideoMemory for Vram {
    fn bytes(&self) -> VolatileSlice<'_> {
        self.0.bytes()
    }

    fn place(&self, address: Option<u64>) -> Result<(), PlaceError> {
        self.0.place(address).map_err(|error| match error {
            WindowError::Outside(address) => PlaceError::Outside(address),
            WindowError::Slot(error) => PlaceError::Host(error),
        })
    }
}
