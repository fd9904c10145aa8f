//! System calls of process 1 that the standard library lacks.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the folder, then mounts a file system on it; `data` has its own options, comma-separated.
/// The error names the target.
pub fn mount_new(
    source: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let mount = || {
        fs::create_dir_all(target)?;
        let (source, target, kind, data) =
            (c_string(source)?, c_string(target)?, c_string(kind)?, c_string(data)?);
        let (source, target, kind) = (source.as_ptr(), target.as_ptr(), kind.as_ptr());
        // SAFETY: all four pointers are to strings that live until the call returns.
        let result = unsafe { libc::mount(source, target, kind, flags, data.as_ptr().cast()) };
        check(result.into())
    };
    mount().map_err(|e: io::Error| {
        io::Error::new(e.kind(), format!("mounting {kind} on {target}: {e}"))
    })
}

/// Moves a mounted file system to another folder.
pub fn move_mount(from: &str, to: &str) -> io::Result<()> {
    let what = format!("moving {from} to {to}");
    let (from, to) = (c_string(from)?, c_string(to)?);
    let null = std::ptr::null();
    // SAFETY: both paths live until the call returns; MS_MOVE uses no other pointer.
    let result =
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), null, libc::MS_MOVE, null.cast()) };
    check(result.into()).map_err(|e| io::Error::new(e.kind(), format!("{what}: {e}")))
}

/// Unmounts a file system.
pub fn unmount(target: &str) -> io::Result<()> {
    let target = c_string(target)?;
    // SAFETY: the pointer is to a string that lives until the call returns.
    check(unsafe { libc::umount2(target.as_ptr(), 0) }.into())
}

/// Loads a module into the kernel.
pub fn finit_module(file: &File, parameters: &str) -> io::Result<()> {
    let parameters = c_string(parameters)?;
    // SAFETY: the descriptor is open and the string lives until the call returns.
    check(unsafe {
        libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0)
    })
}

/// Removes a module from the kernel, without waiting for its users.
pub fn delete_module(name: &str) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the string lives until the call returns.
    check(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) })
}

/// The way in which this kernel's run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Power off, by ACPI.
    PowerOff,
    /// Restart the machine.
    Restart,
    /// Start the kernel that kexec loaded.
    Kexec,
}

/// Ends this kernel's run. Returns only on failure.
pub fn end(how: Machine) -> io::Error {
    let command = match how {
        Machine::PowerOff => libc::RB_POWER_OFF,
        Machine::Restart => libc::RB_AUTOBOOT,
        Machine::Kexec => libc::RB_KEXEC,
    };
    // SAFETY: neither call takes a pointer.
    unsafe {
        libc::sync();
        libc::reboot(command);
    }
    io::Error::last_os_error()
}

/// Brings every processor online that the kernel knows. Returns the number of online processors.
pub fn online_cpus() -> io::Result<u32> {
    for entry in fs::read_dir("/sys/devices/system/cpu")?.flatten() {
        let online = entry.path().join("online");
        let is_cpu = entry
            .file_name()
            .to_str()
            .and_then(|n| n.strip_prefix("cpu"))
            .is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()));
        if is_cpu && fs::read_to_string(&online).is_ok_and(|state| state.trim() == "0") {
            fs::write(&online, "1")?;
        }
    }
    Ok(cpus())
}

/// Returns the number of online processors.
pub fn cpus() -> u32 {
    // SAFETY: sysconf takes no pointer.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(count).unwrap_or(0)
}

/// Returns the running kernel's release.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Returns the kernel's command line.
pub fn cmdline() -> String {
    fs::read_to_string("/proc/cmdline").unwrap_or_default().trim().to_owned()
}

/// Returns the current clock source.
pub fn clocksource() -> String {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Returns the seconds since the kernel started.
pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Returns the whole log of the kernel.
pub fn kernel_log() -> io::Result<String> {
    const READ_ALL: libc::c_int = 3;
    let mut buffer = vec![0_u8; 1 << 20];
    let room = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the buffer is as long as stated.
    let length = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), room) };
    buffer.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Makes the mount on `dir` the root of this mount namespace, and changes to it.
///
/// The kernel refuses user namespaces to a process whose root folder is not the root of its mount
/// namespace (user_namespaces(7), EPERM), so a mere chroot does not suffice. pivot_root(2) cannot
/// leave the initial RAM disk's file system, which has no parent mount; the new root is moved over
/// it.
pub fn switch_root(dir: &str) -> io::Result<()> {
    std::env::set_current_dir(dir)?;
    let (here, root) = (c".".as_ptr(), c"/".as_ptr());
    // SAFETY: the pointers are to constant strings or null, which MS_MOVE allows.
    unsafe {
        check(libc::mount(here, root, std::ptr::null(), libc::MS_MOVE, std::ptr::null()).into())?;
        check(libc::chroot(here).into())?;
    }
    std::env::set_current_dir("/")
}

/// Kills every process except this one (process 1).
pub fn kill_all_others() {
    // SAFETY: kill takes no pointer; -1 never means process 1 itself.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Reaps every child that has ended, so that none stays a zombie.
pub fn reap() {
    // SAFETY: a null status pointer is allowed.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Lets processes raise their limit of open files as on an ordinary system. The initial limit
/// stays.
pub fn raise_open_files() -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 524_288 };
    // SAFETY: the structure lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into())
}

/// Brings the loopback network interface up.
pub fn loopback_up() -> io::Result<()> {
    set_interface("lo", true)
}

/// Takes a network interface of this network namespace up or down.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for a name that is too long, or the kernel's error.
pub fn set_interface(name: &str, up: bool) -> io::Result<()> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an all-zero ifreq is valid; the name fits, and the kernel reads only the structure.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(socket.into())?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = if up { libc::IFF_UP | libc::IFF_RUNNING } else { 0 };
        request.ifr_ifru.ifru_flags = flags as i16;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        if result < 0 { Err(error) } else { Ok(()) }
    }
}
