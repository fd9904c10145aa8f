//! The parts of an emulated host: a stock kernel, an initial RAM disk, and the emulator.

use std::path::PathBuf;

use guest_images::Kernel;
use guest_images::cache::Cache;
use guest_images::cpio::Archive;
use guest_images::init_binary::InitBinary;
use guest_images::kmods::{self, Modules};
use guest_images::qemu;
use guest_report::host::Setup;

use super::{HostError, HostKernel};

/// Modules that an emulated host loads, with their dependencies: those of the first row for the
/// root file system, those of the second for KVM, those of the third for commands.
const MODULES: [&str; 16] = [
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
    "bridge",
    "veth",
];

/// The files from which a host starts.
#[derive(Debug)]
pub(super) struct HostImage {
    pub(super) kernel: PathBuf,
    pub(super) initrd: Vec<u8>,
    /// The folder with the kernel's modules.
    pub(super) modules: PathBuf,
}

impl HostImage {
    /// Fetches the kernel and packs its initial RAM disk.
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
        let order =
            Modules::find(&kernel.modules).and_then(|m| m.load_order(&MODULES)).map_err(prepare)?;
        let mut archive = Archive::new();
        archive.char_device("dev/console", 5, 1);
        archive.file("init", 0o755, &init);
        kmods::pack(&order, &mut archive);
        Ok(HostImage { kernel: kernel.image, initrd: archive.finish(), modules: kernel.modules })
    }

    /// Returns the initial RAM disk for one start. The kernel unpacks archives one after another,
    /// so the setup of this start is appended.
    pub(super) fn initrd_with(&self, setup: &Setup) -> Result<Vec<u8>, HostError> {
        let json = serde_json::to_vec(setup).map_err(|e| HostError::Prepare(e.to_string()))?;
        let mut archive = Archive::new();
        archive.file("setup.json", 0o644, &json);
        let mut initrd = self.initrd.clone();
        initrd.extend(archive.finish());
        Ok(initrd)
    }
}

/// Returns the emulator's path. QEMU is unpacked into the cache if it is missing; nothing is
/// installed. See [`guest_images::qemu`].
///
/// # Errors
/// QEMU's packages cannot be fetched.
pub fn emulator() -> Result<PathBuf, HostError> {
    qemu::program(&Cache::project(), qemu::EMULATOR).map_err(|e| HostError::Prepare(e.to_string()))
}
