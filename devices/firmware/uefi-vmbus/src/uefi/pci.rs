//! The PCI function that carries the option ROM, and its boot status register
//! (`EFI_PCI_IO_PROTOCOL`, UEFI specification section 14.4).

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::{Guid, Handle, Status, guid};
use uefi_vmbus::boot_status::{self, BootStatus};

use super::boot::BootServices;

const PCI_IO: Guid = guid!("4cf5b200-68b8-4ca5-9eec-b23e3f50029a");

/// The width of an access: bytes.
const BYTES: u32 = 0;

/// Access to configuration space: `count` units of a width, from `offset`.
type Access = unsafe extern "efiapi" fn(
    this: *mut PciIo,
    width: u32,
    offset: u32,
    count: usize,
    buffer: *mut c_void,
) -> Status;

/// The head of the protocol, up to the functions that the driver uses.
#[repr(C)]
struct PciIo {
    /// Polling and access of memory and ports.
    others: [*const c_void; 6],
    read: Access,
    write: Access,
}

/// The boot status register.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatusRegister {
    pci: NonNull<PciIo>,
    offset: u8,
}

impl StatusRegister {
    /// Returns the register of the function from whose ROM the firmware loaded `image`.
    pub(super) fn find(boot: BootServices, image: Handle) -> Option<Self> {
        let image = boot.protocol(image, &LoadedImageProtocol::GUID)?;
        // SAFETY: an instance of the protocol, as the firmware says.
        let device = unsafe { image.cast::<LoadedImageProtocol>().as_ref() }.device_handle;
        let pci = boot.protocol(device, &PCI_IO)?.cast::<PciIo>();
        let offset = boot_status::find(|offset| {
            let mut byte = 0xFF_u8;
            // SAFETY: an instance of the protocol, as the firmware says; it writes one byte.
            let _ = unsafe {
                let buffer = (&raw mut byte).cast();
                (pci.as_ref().read)(pci.as_ptr(), BYTES, offset.into(), 1, buffer)
            };
            byte
        })?;
        Some(Self { pci, offset })
    }

    /// Writes the register.
    pub(super) fn write(self, status: BootStatus) {
        let mut byte = status as u8;
        let (pci, offset) = (self.pci, self.offset.into());
        // SAFETY: the function exists until the system takes over, and so does the instance.
        let _ = unsafe {
            (pci.as_ref().write)(pci.as_ptr(), BYTES, offset, 1, ptr::from_mut(&mut byte).cast())
        };
    }
}
