//! Reports to SynthVM that the firmware found no system to boot (firmware-windows section B10).
//!
//! When no boot option works, the boot manager loads the recovery options. The driver publishes one
//! of its own, behind all others, whose file is loaded from a handle of the driver: the boot
//! manager calls LoadFile only then. The option and the handle exist only between the attempts to
//! start a boot option: a handle with LoadFile would become a boot option in the user's variables
//! when the firmware's setup enumerates devices.
//!
//! Firmware with a built-in shell starts that last, so its recovery options are never loaded. The
//! driver then reports the start of the shell, unless there is a script for it to run. With Secure
//! Boot the shell ends with an error, and the recovery options follow.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::media::LoadFileProtocol;
use uefi_raw::table::runtime::{RuntimeServices, VariableAttributes, VariableVendor};
use uefi_raw::{Boolean, Event, Guid, Handle, Status, guid};
use uefi_vmbus::boot_status::BootStatus;
use uefi_vmbus::device_path;
use uefi_vmbus::load_option::{self, Kind};

use super::boot::BootServices;
use super::file_systems;
use super::pci::StatusRegister;
use super::serial::say;

/// The highest number, so that the firmware tries its own recovery options first.
const VARIABLE: &[u16] = &name(*b"PlatformRecoveryFFFF\0");
const BOOT_CURRENT: &[u16] = &name(*b"BootCurrent\0");
const SECURE_BOOT: &[u16] = &name(*b"SecureBoot\0");
const DESCRIPTION: &str = "Report to SynthVM that no boot option works";

/// The places where the shell looks for its start script.
const SCRIPTS: [&[u16]; 3] = [
    &name(*b"startup.nsh\0"),
    &name(*b"EFI\\BOOT\\startup.nsh\0"),
    &name(*b"EFI\\TOOLS\\startup.nsh\0"),
];

/// Most bytes of a boot option that the driver reads. That of a shell has less than 200.
const MAX_OPTION_BYTES: usize = 1024;

/// The status code router's protocol for handlers (PI specification volume 3 section 6.3).
const STATUS_CODES: Guid = guid!("86212936-0e76-41c8-a03a-2af2fc1c39e2");

/// Kinds of status codes, in the low byte of their type.
const PROGRESS: u8 = 1;
const ERROR: u8 = 2;
/// Software class, DXE boot service driver.
const BOOT_SERVICE_DRIVER: u32 = 0x0305_0000;
/// Progress: the boot manager begins with the boot order.
const ATTEMPT_BOOT_ORDER: u32 = BOOT_SERVICE_DRIVER | 0x1007;
/// Progress: an image is loaded, and an image is started. EDK2's defaults, which OVMF keeps.
const LOADER_LOAD: u32 = BOOT_SERVICE_DRIVER | 0x8000;
const LOADER_START: u32 = BOOT_SERVICE_DRIVER | 0x8001;
/// Errors: an option could not be loaded, and an option has ended with an error.
const LOAD_FAILED: u32 = BOOT_SERVICE_DRIVER | 0x1002;
const START_FAILED: u32 = BOOT_SERVICE_DRIVER | 0x1003;

/// Set after the start of the driver. Accessed at the priority TPL_CALLBACK or above.
static RECOVERY: Global = Global(UnsafeCell::new(None));

struct Global(UnsafeCell<Option<Recovery>>);

// SAFETY: UEFI runs drivers on one processor, and no entry point is interrupted by another: status
// codes arrive at TPL_CALLBACK, and LoadFile raises its priority to that.
unsafe impl Sync for Global {}

type Handler = unsafe extern "efiapi" fn(
    kind: u32,
    value: u32,
    instance: u32,
    caller: *const Guid,
    data: *const c_void,
) -> Status;

#[repr(C)]
struct StatusCodes {
    register: unsafe extern "efiapi" fn(handler: Handler, tpl: usize) -> Status,
    unregister: unsafe extern "efiapi" fn(handler: Handler) -> Status,
}

/// The recovery option, and what its report needs.
struct Recovery {
    boot: BootServices,
    runtime: &'static RuntimeServices,
    codes: NonNull<StatusCodes>,
    register: StatusRegister,
    path: Vec<u8>,
    option: Vec<u8>,
    load_file: Box<LoadFileProtocol>,
    /// The handle, while it is published.
    handle: Option<Handle>,
    /// The boot manager follows the boot order; no user has chosen an option in its menu.
    in_order: bool,
}

/// Starts to follow the boot manager. Returns false if the machine has no boot status register, or
/// the firmware has no status codes. Must be called at TPL_NOTIFY.
pub(super) fn start(boot: BootServices, runtime: &'static RuntimeServices, image: Handle) -> bool {
    const TPL_CALLBACK: usize = 8;
    let Some(register) = StatusRegister::find(boot, image) else { return false };
    let Some(codes) = boot.locate(&STATUS_CODES) else { return false };
    let codes = codes.cast::<StatusCodes>();
    let path = device_path::recovery();
    let option = load_option::build(DESCRIPTION, &path);
    let load_file = Box::new(LoadFileProtocol { load_file });
    let recovery = Recovery {
        boot,
        runtime,
        codes,
        register,
        path,
        option,
        load_file,
        handle: None,
        in_order: false,
    };
    // SAFETY: at the raised priority, see `Sync`.
    unsafe { *RECOVERY.0.get() = Some(recovery) };
    // SAFETY: an instance of the protocol, as the firmware says.
    let registered = unsafe { (codes.as_ref().register)(status_code, TPL_CALLBACK) };
    if registered == Status::SUCCESS && boot.at_exit(leave) == Status::SUCCESS {
        return true;
    }
    say(format_args!("the firmware does not report its boot options: {registered:?}"));
    end();
    false
}

/// Follows the boot manager.
unsafe extern "efiapi" fn status_code(
    kind: u32,
    value: u32,
    _: u32,
    _: *const Guid,
    _: *const c_void,
) -> Status {
    // SAFETY: see `Sync`.
    let Some(recovery) = (unsafe { (*RECOVERY.0.get()).as_mut() }) else { return Status::SUCCESS };
    match (kind as u8, value) {
        (PROGRESS, ATTEMPT_BOOT_ORDER) => {
            recovery.in_order = true;
            recovery.publish();
        }
        (ERROR, LOAD_FAILED | START_FAILED) => recovery.publish(),
        (PROGRESS, LOADER_LOAD) => recovery.withdraw(),
        (PROGRESS, LOADER_START) => recovery.option_starts(),
        _ => {}
    }
    Status::SUCCESS
}

impl Recovery {
    fn publish(&mut self) {
        if self.handle.is_some() {
            return;
        }
        let mut handle: Handle = ptr::null_mut();
        for (guid, interface) in self.interfaces() {
            // SAFETY: a device path with its end node, and an instance; both exist until they are
            // removed.
            let status = unsafe { self.boot.install(&mut handle, guid, interface) };
            if status != Status::SUCCESS {
                say(format_args!("the recovery option cannot be published: {status:?}"));
                return;
            }
        }
        self.handle = Some(handle);
        self.set_variable(&self.option);
    }

    fn withdraw(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        self.set_variable(&[]);
        for (guid, interface) in self.interfaces().into_iter().rev() {
            // SAFETY: the interfaces are those that were added.
            let _ = unsafe { self.boot.uninstall(handle, guid, interface) };
        }
    }

    /// Reports a start of the firmware's shell for want of anything else.
    fn option_starts(&mut self) {
        match self.current_option() {
            Some(Kind::FirmwareShell) if self.in_order => {
                if !self.is_secure() && !file_systems::have_any(self.boot, &SCRIPTS) {
                    say(format_args!("no boot option works but the firmware's shell"));
                    self.register.write(BootStatus::Shell);
                }
            }
            // The menu, in which a user may choose the shell.
            Some(Kind::Application) => self.in_order = false,
            _ => {}
        }
    }

    /// Returns whether Secure Boot is on.
    fn is_secure(&self) -> bool {
        let mut value = [0];
        self.variable(SECURE_BOOT, &mut value).is_some() && value == [1]
    }

    /// Returns the kind of the boot option that the boot manager starts.
    fn current_option(&self) -> Option<Kind> {
        let mut number = [0; 2];
        self.variable(BOOT_CURRENT, &mut number)?;
        let mut name = name(*b"Boot0000\0");
        let number = u16::from_le_bytes(number);
        for (digit, shift) in name[4..8].iter_mut().zip([12, 8, 4, 0]) {
            let value = (number >> shift & 0xF) as u8;
            *digit = u16::from(if value < 10 { b'0' + value } else { b'A' + value - 10 });
        }
        let mut option = [0; MAX_OPTION_BYTES];
        let len = self.variable(&name, &mut option)?;
        load_option::kind(&option[..len])
    }

    /// Reads a variable of the boot manager. Returns its length, if it fits.
    fn variable(&self, name: &[u16], to: &mut [u8]) -> Option<usize> {
        let mut len = to.len();
        // SAFETY: a name with its end, and a buffer of the length.
        let status = unsafe {
            (self.runtime.get_variable)(
                name.as_ptr(),
                &VariableVendor::GLOBAL_VARIABLE.0,
                ptr::null_mut(),
                &raw mut len,
                to.as_mut_ptr(),
            )
        };
        (status == Status::SUCCESS).then(|| len.min(to.len()))
    }

    fn interfaces(&self) -> [(&'static Guid, *const c_void); 2] {
        [
            (&DevicePathProtocol::GUID, self.path.as_ptr().cast()),
            (&LoadFileProtocol::GUID, ptr::from_ref(&*self.load_file).cast()),
        ]
    }

    /// Writes the volatile variable of the option, or removes it.
    fn set_variable(&self, value: &[u8]) {
        let attributes =
            VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
        // SAFETY: a name with its end, and a value; the firmware copies both.
        let status = unsafe {
            (self.runtime.set_variable)(
                VARIABLE.as_ptr(),
                &VariableVendor::GLOBAL_VARIABLE.0,
                attributes,
                value.len(),
                value.as_ptr(),
            )
        };
        if status != Status::SUCCESS {
            say(format_args!("the recovery option cannot be set: {status:?}"));
        }
    }
}

/// The boot manager loads the recovery option: no boot option works.
unsafe extern "efiapi" fn load_file(
    _: *mut LoadFileProtocol,
    _: *const DevicePathProtocol,
    _: Boolean,
    _: *mut usize,
    _: *mut c_void,
) -> Status {
    // SAFETY: the copy is short, and no entry point changes the boot services.
    let boot = unsafe { (*RECOVERY.0.get()).as_ref().map(|recovery| recovery.boot) };
    let Some(boot) = boot else { return Status::NOT_FOUND };
    boot.at_callback(|| {
        // SAFETY: at the raised priority, see `Sync`.
        if let Some(recovery) = unsafe { (*RECOVERY.0.get()).as_mut() } {
            recovery.withdraw();
            say(format_args!("no boot option works"));
            recovery.register.write(BootStatus::NoOption);
        }
    });
    // There is no file: the boot manager goes on to its message.
    Status::NOT_FOUND
}

/// The system takes over.
unsafe extern "efiapi" fn leave(_: Event, _: *mut c_void) {
    end();
}

fn end() {
    // SAFETY: see `Sync`.
    if let Some(recovery) = unsafe { (*RECOVERY.0.get()).as_ref() } {
        recovery.register.write(BootStatus::Closed);
        // SAFETY: an instance of the protocol, as the firmware says.
        let _ = unsafe { (recovery.codes.as_ref().unregister)(status_code) };
    }
    // The value stays, as its memory is part of the driver's area.
}

/// Returns a variable's name, which is in UTF-16.
const fn name<const N: usize>(text: [u8; N]) -> [u16; N] {
    let mut name = [0; N];
    let mut at = 0;
    while at < N {
        name[at] = text[at] as u16;
        at += 1;
    }
    name
}
