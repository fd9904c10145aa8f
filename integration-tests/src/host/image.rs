//! What an emulated host is made of: a stock kernel, an initial RAM disk, and the emulator.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guest_images::cache::Cache;
use guest_images::cpio::Archive;
use guest_images::init_binary::InitBinary;
use guest_images::kmods::Modules;
use guest_images::packages::Packages;
use guest_images::progress::step;
use guest_report::host::Setup;

use super::HostError;

/// The emulator's program.
pub(super) const EMULATOR: &str = "qemu-system-x86_64";

/// The package that brings it.
const EMULATOR_PACKAGE: &str = "qemu-system-x86";

/// Modules that an emulated host loads; each brings what it needs. The first row makes the root, the second makes KVM,
/// the third is what commands may want.
const MODULES: [&str; 13] = [
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "overlay",
    "irqbypass",
    "ccp",
    "kvm",
    "kvm_amd",
    "tun",
    "loop",
    "vhost_net",
    "vhost_vsock",
];

/// Files to start a host from.
#[derive(Debug)]
pub(super) struct HostImage {
    pub(super) kernel: PathBuf,
    pub(super) initrd: Vec<u8>,
    /// The folder with the kernel's modules.
    pub(super) modules: PathBuf,
}

impl HostImage {
    /// Gets the stock kernel of a suite and packs its initial RAM disk.
    pub(super) fn build(suite: &str) -> Result<HostImage, HostError> {
        let prepare = |e: guest_images::Error| HostError::Prepare(e.to_string());
        let cache = Cache::project();
        let package = Packages::new(&cache, suite).get_kernel("linux-image-amd64").map_err(prepare)?;
        let kernel = only_file(&package.root.join("boot"), "vmlinuz-")?;
        let modules = only_file(&package.root.join("lib/modules"), "")
            .or_else(|_| only_file(&package.root.join("usr/lib/modules"), ""))?;
        let init = InitBinary::TestHost.build(&cache).map_err(prepare)?;
        let order = Modules::find(&modules).and_then(|m| m.load_order(&MODULES)).map_err(prepare)?;
        let mut archive = Archive::new();
        archive.char_device("dev/console", 5, 1);
        archive.file("init", 0o755, &init);
        let names: Vec<_> = order.iter().map(|module| module.name.as_str()).collect();
        archive.file("modules/order", 0o644, names.join("\n").as_bytes());
        for module in &order {
            archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.bytes);
        }
        Ok(HostImage { kernel, initrd: archive.finish(), modules })
    }

    /// The initial RAM disk for one start. The kernel unpacks archives one after the other, so what differs from start
    /// to start simply follows.
    pub(super) fn initrd_with(&self, setup: &Setup) -> Result<Vec<u8>, HostError> {
        let json = serde_json::to_vec(setup).map_err(|e| HostError::Prepare(e.to_string()))?;
        let mut archive = Archive::new();
        archive.file("setup.json", 0o644, &json);
        let mut initrd = self.initrd.clone();
        initrd.extend(archive.finish());
        Ok(initrd)
    }
}

/// The one entry of a folder whose name starts in this way.
fn only_file(dir: &Path, prefix: &str) -> Result<PathBuf, HostError> {
    let entries =
        std::fs::read_dir(dir).map_err(|e| HostError::Prepare(format!("reading {}: {e}", dir.display())))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .ok_or_else(|| HostError::Prepare(format!("{} has no {prefix}*", dir.display())))
}

/// Installs the emulator if it is not there, and says so.
pub(super) fn ensure_emulator() -> Result<(), HostError> {
    if has_emulator() {
        return Ok(());
    }
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err(HostError::Prepare(format!(
            "{EMULATOR} is not installed; install it with: apt-get install {EMULATOR_PACKAGE}"
        )));
    }
    let lock = Cache::project().lock("install").map_err(|e| HostError::Prepare(e.to_string()))?;
    if has_emulator() {
        return Ok(());
    }
    step(&format!("installing {EMULATOR_PACKAGE} (software emulation, for the test host) with apt-get"));
    apt_get(&["-q", "update"])?;
    apt_get(&["-q", "install", "--yes", "--no-install-recommends", EMULATOR_PACKAGE])?;
    drop(lock);
    if has_emulator() {
        return Ok(());
    }
    Err(HostError::Prepare(format!("{EMULATOR_PACKAGE} was installed, but there is no {EMULATOR}")))
}

fn has_emulator() -> bool {
    let status = Command::new(EMULATOR).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

fn apt_get(arguments: &[&str]) -> Result<(), HostError> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|e| HostError::Prepare(format!("starting apt-get: {e}")))?;
    if status.success() {
        return Ok(());
    }
    Err(HostError::Prepare(format!(
        "apt-get {} failed ({status}); its messages are above",
        arguments.join(" ")
    )))
}
