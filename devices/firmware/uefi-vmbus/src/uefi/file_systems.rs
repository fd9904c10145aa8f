//! File systems that the firmware has found (`EFI_SIMPLE_FILE_SYSTEM_PROTOCOL`, UEFI specification
//! section 13.4).

use core::ptr::{self, NonNull};

use uefi_raw::protocol::file_system::{
    FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol,
};
use uefi_raw::{Handle, Status};

use super::boot::BootServices;

/// Returns whether a file with one of these names, which end with 0, is on any file system. Must be
/// called at TPL_CALLBACK or below.
pub(super) fn have_any(boot: BootServices, names: &[&[u16]]) -> bool {
    let Some((count, handles)) = boot.handles(&SimpleFileSystemProtocol::GUID) else {
        return false;
    };
    // SAFETY: the firmware returned so many handles, and they stay until they are freed.
    let found = (0..count).any(|index| has_any(boot, unsafe { handles.add(index).read() }, names));
    // SAFETY: the firmware allocated the handles for the driver, which uses them no more.
    unsafe { boot.free_pool(handles.cast()) };
    found
}

fn has_any(boot: BootServices, handle: Handle, names: &[&[u16]]) -> bool {
    let Some(system) = boot.protocol(handle, &SimpleFileSystemProtocol::GUID) else { return false };
    let system = system.cast::<SimpleFileSystemProtocol>();
    let mut root = ptr::null_mut();
    // SAFETY: an instance of the protocol, as the firmware says.
    let status = unsafe { (system.as_ref().open_volume)(system.as_ptr(), &raw mut root) };
    let Some(root) = opened(status, root) else { return false };
    let found = names.iter().any(|name| {
        let mut file = ptr::null_mut();
        let (mode, attributes) = (FileMode::READ, FileAttribute::empty());
        // SAFETY: the open folder, and a name with its end.
        let status = unsafe {
            let open = root.as_ref().open;
            open(root.as_ptr(), &raw mut file, name.as_ptr(), mode, attributes)
        };
        opened(status, file).inspect(|file| close(*file)).is_some()
    });
    close(root);
    found
}

fn opened(status: Status, file: *mut FileProtocolV1) -> Option<NonNull<FileProtocolV1>> {
    if status == Status::SUCCESS { NonNull::new(file) } else { None }
}

fn close(file: NonNull<FileProtocolV1>) {
    // SAFETY: the file is open, and is not used after this.
    let _ = unsafe { (file.as_ref().close)(file.as_ptr()) };
}
