//! What an emulated host is made of: a stock kernel, an initial RAM disk, and the emulator.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use guest_images::Kernel;
use guest_images::cache::Cache;
use guest_images::cpio::Archive;
use guest_images::init_binary::InitBinary;
use guest_images::kmods::{self, Modules};
use guest_images::progress::step;
use guest_report::host::Setup;

use super::{HostError, HostKernel};

/// The emulator's program.
pub const EMULATOR: &str = "qemu-system-x86_64";

/// The package that brings it.
const EMULATOR_PACKAGE: &str = "qemu-system-x86";

/// Modules that an emulated host loads; each brings what it needs. The first row makes the root, the second makes KVM,
/// the third is what commands may want.
const MODULES: [&str; 14] = [
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
    "ext4",
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
    /// Gets the kernel and packs its initial RAM disk.
    pub(super) fn build(kernel: &HostKernel) -> Result<HostImage, HostError> {
        let prepare = |e: guest_images::Error| HostError::Prepare(e.to_string());
        let cache = Cache::project();
        let kernel = match kernel {
            HostKernel::Suite(suite) => {
                Kernel::from_package(&cache, suite, "linux-image-amd64").map_err(prepare)?
            }
            HostKernel::Named(kernel) => kernel.clone(),
        };
        let init = InitBinary::TestHost.build(&cache).map_err(prepare)?;
        let order = Modules::find(&kernel.modules).and_then(|m| m.load_order(&MODULES)).map_err(prepare)?;
        let mut archive = Archive::new();
        archive.char_device("dev/console", 5, 1);
        archive.file("init", 0o755, &init);
        kmods::pack(&order, &mut archive);
        Ok(HostImage { kernel: kernel.image, initrd: archive.finish(), modules: kernel.modules })
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

/// Installs the emulator if it is not there, and says so.
pub fn ensure_emulator() -> Result<(), HostError> {
    ensure_program(EMULATOR, EMULATOR_PACKAGE, "software emulation, for the test host")
}

/// Installs `package` if there is no `program` of its, and says so. `purpose`: what it is for.
pub fn ensure_program(program: &str, package: &str, purpose: &str) -> Result<(), HostError> {
    if has_program(program) {
        return Ok(());
    }
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err(HostError::Prepare(format!(
            "{program} is not installed; install it with: apt-get install {package}"
        )));
    }
    let lock = Cache::project().lock("install").map_err(|e| HostError::Prepare(e.to_string()))?;
    if has_program(program) {
        return Ok(());
    }
    step(&format!("installing {package} ({purpose}) with apt-get"));
    apt_get(&["-q", "update"])?;
    apt_get(&["-q", "install", "--yes", "--no-install-recommends", package])?;
    drop(lock);
    if has_program(program) {
        return Ok(());
    }
    Err(HostError::Prepare(format!("{package} was installed, but there is no {program}")))
}

fn has_program(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
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
