//! Starts another kernel in place of this one, without a shutdown of the drivers, as a crash or a
//! careless tool would.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::{Outcome, context};

/// The paths of the kernel and the initial RAM disk in an image that was built with kexec.
const KERNEL: &str = "/boot/vmlinuz";
const INITRD: &str = "/boot/initrd";

/// Loads the packed kernel; [`crate::sys::end`] with `Kexec` then starts it.
pub fn prepare(cmdline: &str) -> Outcome<()> {
    let kernel = File::open(KERNEL)
        .map_err(context(format!("{KERNEL} (was the image built with kexec?)")))?;
    let initrd = File::open(INITRD).map_err(context(INITRD))?;
    let cmdline = CString::new(cmdline).map_err(|e| e.to_string())?;
    let length = cmdline.as_bytes_with_nul().len();
    // SAFETY: both descriptors are open, and the string with its end lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            length,
            cmdline.as_ptr(),
            0,
        )
    };
    if result < 0 {
        return Err(format!("kexec_file_load: {}", io::Error::last_os_error()));
    }
    Ok(())
}
