//! A file system in memory that supports direct I/O and freezing, unlike tmpfs. For the host's
//! side, and for root only.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use guest_images::kmods::Modules;
use guest_init::{modules, sys};

use crate::image::WorkDir;

/// The block device in memory.
const DEVICE: &str = "/dev/ram0";

/// The size of the device in KiB; only written blocks use memory.
const DEVICE_KIB: u64 = 400 << 10;

/// Timeout for the kernel to close the files of a killed process, and the interval of checks.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);
const RELEASE_STEP: Duration = Duration::from_millis(50);

/// FIFREEZE and FITHAW (linux/fs.h): between them, writers to the file system wait inside the
/// kernel.
const FIFREEZE: libc::Ioctl = 0xC004_5877_u32 as libc::Ioctl;
const FITHAW: libc::Ioctl = 0xC004_5878_u32 as libc::Ioctl;

/// An ext4 file system on a block device in memory, independent of the speed outside an emulated
/// host. There is one at a time. Dropping it unmounts it and frees the device with its memory.
#[derive(Debug)]
pub struct RamDisk {
    folder: PathBuf,
    /// Modules that this value loaded, in the order of loading.
    _loaded: Loaded,
}

impl RamDisk {
    /// Creates the file system, and mounts it on a folder in `dir`.
    ///
    /// # Errors
    /// A message that names the missing feature of this machine.
    pub fn mount(dir: &WorkDir) -> Result<RamDisk, String> {
        let mut loaded = Loaded::default();
        loaded.load(dir, "brd", &format!("rd_nr=1 rd_size={DEVICE_KIB}"))?;
        // The file system requests its checksum by an alias, which the modules' lists do not
        // resolve.
        for module in ["crc32c_generic", "ext4"] {
            loaded.load(dir, module, "")?;
        }
        // No background work of the file system may disturb measurements.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        let made =
            Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-E", now, DEVICE]).output();
        let made = made.map_err(|error| format!("mke2fs (package e2fsprogs): {error}"))?;
        if !made.status.success() {
            return Err(format!(
                "mke2fs {DEVICE}: {}",
                String::from_utf8_lossy(&made.stderr).trim()
            ));
        }
        let folder = dir.path().join("ram");
        let target = folder.display().to_string();
        sys::mount_new(DEVICE, &target, "ext4", libc::MS_NOATIME, "")
            .map_err(|error| error.to_string())?;
        Ok(RamDisk { folder, _loaded: loaded })
    }

    /// Returns the mount point.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Freezes the file system, like unreachable storage: writers wait, and cannot even be killed.
    /// Earlier writes are on the device on return. Drop the guard before waiting for such a writer.
    ///
    /// # Errors
    /// The system's error.
    pub fn freeze(&self) -> io::Result<Frozen> {
        let root = File::open(&self.folder)?;
        control(&root, FIFREEZE)?;
        Ok(Frozen { root })
    }
}

impl Drop for RamDisk {
    /// Retries the unmount: the kernel closes the files of a killed process after its parent has
    /// seen its end, and there is no event for that.
    fn drop(&mut self) {
        let target = self.folder.display().to_string();
        let end = Instant::now() + RELEASE_LIMIT;
        while let Err(error) = sys::unmount(&target) {
            let is_busy = error.raw_os_error() == Some(libc::EBUSY);
            if !is_busy || Instant::now() > end {
                eprintln!("{DEVICE} stays mounted on {target}: {error}");
                return;
            }
            std::thread::sleep(RELEASE_STEP);
        }
    }
}

/// A frozen file system, thawed on drop.
#[derive(Debug)]
pub struct Frozen {
    root: File,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = control(&self.root, FITHAW);
    }
}

fn control(file: &File, request: libc::Ioctl) -> io::Result<()> {
    // SAFETY: neither request has an argument; the descriptor is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Modules of the running kernel, unloaded on drop.
#[derive(Debug, Default)]
struct Loaded(Vec<String>);

impl Loaded {
    /// Loads a module with its dependencies. The distribution's package has no list that `modprobe`
    /// could use.
    fn load(&mut self, dir: &WorkDir, name: &str, parameters: &str) -> Result<(), String> {
        let release = sys::kernel_release();
        let all = Modules::find(&Path::new("/lib/modules").join(release));
        let order = all.and_then(|all| all.load_order(&[name]));
        for module in order.map_err(|error| error.to_string())? {
            if Path::new("/sys/module").join(&module.name).exists() {
                continue;
            }
            let file = dir.path().join(format!("{}.ko", module.name));
            fs::write(&file, &module.bytes).map_err(|error| error.to_string())?;
            let parameters = if module.name == name { parameters } else { "" };
            let given = File::open(&file).and_then(|file| sys::finit_module(&file, parameters));
            given.map_err(|error| format!("module {}: {error}", module.name))?;
            self.0.push(module.name);
        }
        Ok(())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        for name in self.0.iter().rev() {
            if let Err(error) = modules::unload(name) {
                eprintln!("module {name} stays: {error}");
            }
        }
    }
}
