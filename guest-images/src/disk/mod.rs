//! Images that start by themselves under UEFI firmware: disks of an installed Debian, disks with
//! one EFI application, and discs.
//!
//! Made from packages without any privilege: files belong to root only inside the image, because
//! `mke2fs` reads them from an archive. The same packages make the same bytes. Callers must not
//! write to an image: they copy it.

mod applications;
mod boot;
mod iso;
mod recipe;
mod system;
mod tree;
mod unsigned;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub use applications::{Application, SYSTEMD_BOOT_ENTRY, SYSTEMD_BOOT_OPTION};
pub use boot::{CHOOSE_UNSIGNED, GRUB_READY};
pub use iso::{grub_iso, ipxe_iso};
pub use system::PROMPT;

use crate::kernel::{Kernel, StockKernel};
use crate::packages::Packages;
use crate::{Error, cache::Cache};
use recipe::Recipe;

/// The path at which firmware looks on a disk for which it has no boot entry.
const REMOVABLE: &str = "EFI/BOOT/BOOTX64.EFI";

/// Returns the raw image of a disk with an installed Debian, the release that has this kernel,
/// after making it if it is missing: an EFI system partition with the distribution's signed boot
/// loaders, and a root file system with its kernel and systemd. Root logs in on the first serial
/// port without a password. GRUB's menu also has the kernel without its signature. The image is
/// sparse.
///
/// # Errors
/// A package cannot be fetched, or a program fails.
pub fn debian(cache: &Cache, release: StockKernel) -> Result<PathBuf, Error> {
    let suite = release.suite();
    let kernel = Kernel::stock(cache, release)?;
    let initrd = boot::initrd(cache, &kernel)?;
    let tree = system::tree(cache, release, &kernel, initrd)?;
    let scratch = cache.scratch()?;
    let archive = scratch.path().join("root.tar");
    tree.write_tar(&archive)?;
    let Loaders { shim, grub, .. } = Loaders::fetch(cache, suite)?;
    let esp = BTreeMap::from([
        (REMOVABLE.to_owned(), shim.clone()),
        ("EFI/BOOT/grubx64.efi".to_owned(), grub.clone()),
        ("EFI/debian/shimx64.efi".to_owned(), shim),
        ("EFI/debian/grubx64.efi".to_owned(), grub),
        ("EFI/debian/grub.cfg".to_owned(), boot::stub().into_bytes()),
    ]);
    Recipe { name: format!("debian-{suite}"), esp, root: Some(archive) }.build(cache)
}

/// The distribution's boot loaders, signed for Secure Boot.
struct Loaders {
    /// The first stage, which the firmware verifies.
    shim: Vec<u8>,
    /// GRUB for disks.
    grub: Vec<u8>,
    /// GRUB for discs.
    grub_disc: Vec<u8>,
}

impl Loaders {
    fn fetch(cache: &Cache, suite: &str) -> Result<Loaders, Error> {
        let suite = Packages::new(cache, suite);
        let shim = suite.get("shim-signed")?.root.join("usr/lib/shim/shimx64.efi.signed");
        let grub = suite.get("grub-efi-amd64-signed")?.root.join("usr/lib/grub/x86_64-efi-signed");
        Ok(Loaders {
            shim: read(&shim)?,
            grub: read(&grub.join("grubx64.efi.signed"))?,
            grub_disc: read(&grub.join("gcdx64.efi.signed"))?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::file("reading", path))
}
