//! Where the two machines' images lie: on a file system that can do direct I/O, the same for both.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_images::cache::target_dir;
use guest_images::kmods::Modules;
use guest_init::sys;
use integration_tests::host::is_emulated;
use integration_tests::image::WorkDir;

/// Bytes of each image.
pub(super) const IMAGE_BYTES: u64 = 128 << 20;

/// The block device in memory and its KiB: both images and what the file system needs.
const RAM_DISK: &str = "/dev/ram0";
const DEVICE_KIB: u64 = 400 << 10;

/// Two images of the same content side by side. Removed when dropped.
#[derive(Debug)]
pub(super) struct Medium {
    images: [PathBuf; 2],
    /// How people are told where the images lie.
    pub(super) what: String,
    mounted: Option<PathBuf>,
    _dir: WorkDir,
}

impl Medium {
    /// Makes the images. In an emulated host they lie on ext4 on a block device in memory, which the outside machine's files do not slow
    /// down; elsewhere in cargo's target folder.
    pub(super) fn new() -> Result<Medium, String> {
        let dir = WorkDir::new().map_err(|error| error.to_string())?;
        let (folder, mounted, what) = if is_emulated() {
            let folder = dir.path().join("mnt");
            mount_ram_disk(&dir, &folder)?;
            (folder.clone(), Some(folder), "ext4 on a block device in memory".to_owned())
        } else {
            let folder = target_dir().join("compare");
            fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            let what = format!("files in {}", folder.display());
            (folder, None, what)
        };
        let images = ["synthvm.img", "peer.img"].map(|name| folder.join(name));
        let medium = Medium { images, what, mounted, _dir: dir };
        let first = medium._dir.image("image", IMAGE_BYTES, 1).map_err(|error| error.to_string())?;
        for image in &medium.images {
            // Whole files: a request must not be the first that its blocks see.
            let copied = fs::copy(&first, image).and_then(|_| File::open(image)?.sync_all());
            copied.map_err(|error| format!("{}: {error}", image.display()))?;
            File::options().read(true).custom_flags(libc::O_DIRECT).open(image).map_err(|error| {
                format!("{}: {error}; its file system must be able to do direct I/O", image.display())
            })?;
        }
        let _ = fs::remove_file(first);
        Ok(medium)
    }

    /// SynthVM's image.
    pub(super) fn ours(&self) -> &Path {
        &self.images[0]
    }

    /// The peer's image.
    pub(super) fn peers(&self) -> &Path {
        &self.images[1]
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        for image in &self.images {
            let _ = fs::remove_file(image);
        }
        if let Some(folder) = &self.mounted {
            let _ = sys::unmount(&folder.display().to_string());
        }
    }
}

fn mount_ram_disk(dir: &WorkDir, folder: &Path) -> Result<(), String> {
    load(dir, "brd", &format!("rd_nr=1 rd_size={DEVICE_KIB}"))?;
    // The file system asks for its checksum by an alias, which no list of ours resolves.
    for module in ["crc32c_generic", "ext4"] {
        load(dir, module, "")?;
    }
    // Nothing of the file system may work in the background while we measure.
    let now = "lazy_itable_init=0,lazy_journal_init=0";
    let made = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-E", now, RAM_DISK]).output();
    let made = made.map_err(|error| format!("mke2fs (package e2fsprogs): {error}"))?;
    if !made.status.success() {
        return Err(format!("mke2fs {RAM_DISK}: {}", String::from_utf8_lossy(&made.stderr).trim()));
    }
    let target = folder.display().to_string();
    sys::mount_new(RAM_DISK, &target, "ext4", libc::MS_NOATIME, "").map_err(|error| error.to_string())
}

/// Loads a module of the running kernel and what it needs. The distribution's package brings no list by which `modprobe` would find them.
fn load(dir: &WorkDir, name: &str, parameters: &str) -> Result<(), String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|error| error.to_string())?;
    let modules = Modules::find(&Path::new("/lib/modules").join(release.trim()));
    let order = modules.and_then(|modules| modules.load_order(&[name])).map_err(|error| error.to_string())?;
    for module in order {
        if Path::new("/sys/module").join(&module.name).exists() {
            continue;
        }
        let file = dir.path().join(format!("{}.ko", module.name));
        fs::write(&file, &module.bytes).map_err(|error| error.to_string())?;
        let parameters = if module.name == name { parameters } else { "" };
        let given = File::open(&file).and_then(|file| sys::finit_module(&file, parameters));
        given.map_err(|error| format!("module {}: {error}", module.name))?;
    }
    Ok(())
}
