//! A file system in memory that can do what tmpfs cannot: direct I/O, and to stand still. For the
//! host's side, and for root only.

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

/// Its KiB; only what was written takes up memory.
const DEVICE_KIB: u64 = 400 << 10;

/// How long the kernel may take to close the files of a killed process, and how often to look.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);
const RELEASE_STEP: Duration = Duration::from_millis(50);

/// FIFREEZE and FITHAW (linux/fs.h): whoever writes to the file system waits from the one to the
/// other, inside the kernel.
const FIFREEZE: libc::Ioctl = 0xC004_5877_u32 as libc::Ioctl;
const FITHAW: libc::Ioctl = 0xC004_5878_u32 as libc::Ioctl;

/// Ext4 on a block device in memory, which nothing outside an emulated host slows down. There is
/// one at a time. Unmounted when dropped; the device and its memory go, too.
#[derive(Debug)]
pub struct RamDisk {
    folder: PathBuf,
    /// Modules that were not there before, in the order in which they were loaded.
    _loaded: Loaded,
}

impl RamDisk {
    /// Makes the file system anew, on a folder in `dir`.
    ///
    /// # Errors
    /// In words: what this machine lacks.
    pub fn mount(dir: &WorkDir) -> Result<RamDisk, String> {
        let mut loaded = Loaded::default();
        loaded.load(dir, "brd", &format!("rd_nr=1 rd_size={DEVICE_KIB}"))?;
        // The file system asks for its checksum by an alias, which no list of ours resolves.
        for module in ["crc32c_generic", "ext4"] {
            loaded.load(dir, module, "")?;
        }
        // Nothing of the file system may work in the background while somebody measures.
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

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes it stand still, as storage does that is out of reach: who writes waits, and cannot
    /// even be killed. What was written before is on the device by then. Drop the guard before
    /// anything that waits for such a writer.
    ///
    /// # Errors
    /// The system's.
    pub fn freeze(&self) -> io::Result<Frozen> {
        let root = File::open(&self.folder)?;
        control(&root, FIFREEZE)?;
        Ok(Frozen { root })
    }
}

impl Drop for RamDisk {
    /// The kernel closes the files of a killed process after its parent has seen it end, and there
    /// is no event for that.
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

/// A file system that stands still until this is dropped.
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

/// Modules of the running kernel, unloaded when dropped.
#[derive(Debug, Default)]
struct Loaded(Vec<String>);

impl Loaded {
    /// Loads a module and what it needs. The distribution's package brings no list by which
    /// `modprobe` would find them.
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
