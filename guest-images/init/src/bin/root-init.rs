//! Process 1 of the initial RAM disk of an installed system: loads modules, mounts the root and
//! starts the system's own init there.
//!
//! `root=PARTLABEL=NAME` on the kernel's command line names the partition, as in a GPT. `init=PATH`
//! is the program to start, `/sbin/init` by default.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io, thread};

use guest_init::{modules, sys};

/// The interval and the number of checks for the partition. A disk appears shortly after its
/// driver is loaded, and a processor of an emulated machine is slow.
const PARTITION_LOOK: (Duration, u32) = (Duration::from_millis(10), 6000);

fn main() {
    let error = match start() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("root-init: {error}");
    let error = sys::end(sys::Machine::PowerOff);
    eprintln!("root-init: power off: {error}");
}

fn start() -> io::Result<std::convert::Infallible> {
    sys::mount_new("devtmpfs", "/dev", "devtmpfs", 0, "")?;
    sys::mount_new("proc", "/proc", "proc", 0, "")?;
    sys::mount_new("sysfs", "/sys", "sysfs", 0, "")?;
    for name in modules::at_boot() {
        match modules::load(&name, "") {
            Ok(()) => {}
            // The machine has no such device.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            // The root may not need it.
            Err(error) => eprintln!("root-init: module {name}: {error}"),
        }
    }
    let line = sys::cmdline();
    let label = word(&line, "root=PARTLABEL=").ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "no root=PARTLABEL=NAME on the command line")
    })?;
    let device = find_partition(label)?;
    sys::mount_new(&device, "/root", "ext4", 0, "")?;
    for folder in ["/dev", "/proc", "/sys"] {
        sys::move_mount(folder, &format!("/root{folder}"))?;
    }
    remove_files(Path::new("/"))?;
    sys::switch_root("/root")?;
    let init = word(&line, "init=").unwrap_or("/sbin/init");
    Err(Command::new(init).exec())
}

/// Returns the value of a word on the command line.
fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name))
}

/// Waits for the partition with this name. Returns its device.
fn find_partition(label: &str) -> io::Result<String> {
    let wanted = format!("PARTNAME={label}");
    for _ in 0..PARTITION_LOOK.1 {
        for entry in fs::read_dir("/sys/class/block").into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
            if text.lines().any(|line| line == wanted) {
                return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
            }
        }
        thread::sleep(PARTITION_LOOK.0);
    }
    let disks: Vec<String> = fs::read_dir("/sys/class/block")?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let what = format!("no partition is named {label}; block devices: {}", disks.join(" "));
    Err(io::Error::new(io::ErrorKind::NotFound, what))
}

/// Removes the files of the RAM disk, which are in memory. Stays in its file system.
fn remove_files(folder: &Path) -> io::Result<()> {
    let own = fs::metadata(folder)?.dev();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        if !found.is_dir() {
            fs::remove_file(&path)?;
        } else if found.dev() == own {
            remove_files(&path)?;
        }
    }
    Ok(())
}
