//! Discs that UEFI firmware starts by El Torito.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::recipe::{self, Maker};
use super::{Loaders, REMOVABLE, boot};
use crate::kernel::StockKernel;
use crate::packages::Packages;
use crate::{Error, cache::Cache};

/// The size of the image with an EFI system partition's file system, in bytes.
const BOOT_IMAGE: u64 = 36 << 20;

/// The version of the layout, which is part of a disc's name.
const LAYOUT: u32 = 1;

/// Returns the packaged disc of iPXE, after fetching it if it is missing.
///
/// # Errors
/// The package cannot be fetched.
pub fn ipxe_iso(cache: &Cache) -> Result<PathBuf, Error> {
    Ok(Packages::new(cache, "trixie").get("ipxe")?.root.join("usr/lib/ipxe/ipxe.iso"))
}

/// Returns a disc that starts the signed shim and GRUB of a release, after making it if it is
/// missing. GRUB's menu is a file of the disc's ISO 9660 file system.
///
/// # Errors
/// A package cannot be fetched, or a program fails.
pub fn grub_iso(cache: &Cache, release: StockKernel) -> Result<PathBuf, Error> {
    let Loaders { shim, grub_disc, .. } = Loaders::fetch(cache, release.suite())?;
    let esp = BTreeMap::from([
        (REMOVABLE.to_owned(), shim),
        ("EFI/BOOT/grubx64.efi".to_owned(), grub_disc),
    ]);
    let files = BTreeMap::from([
        // GRUB for discs recognizes its disc by this file.
        (".disk/info".to_owned(), b"SynthVM\n".to_vec()),
        ("boot/grub/grub.cfg".to_owned(), boot::disc_menu().into_bytes()),
    ]);
    let mut hash = Sha256::new();
    hash.update(LAYOUT.to_le_bytes());
    for (name, bytes) in esp.iter().chain(&files) {
        hash.update(format!("{name}\0{}\0", bytes.len()));
        hash.update(bytes);
    }
    let name = format!("grub-{}-{}.iso", release.suite(), recipe::sum(hash));
    recipe::make(cache, &name, |maker| write(maker, &esp, &files))
}

fn write(
    maker: &Maker<'_>,
    esp: &BTreeMap<String, Vec<u8>>,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<(), Error> {
    let folder = maker.write_folder("disc", files)?;
    maker.make_empty(BOOT_IMAGE)?;
    maker.make_fat((0, BOOT_IMAGE), esp)?;
    let boot = folder.join("efi.img");
    std::fs::rename(maker.image(), &boot).map_err(Error::file("moving into place", &boot))?;
    let mut command = maker.command("xorriso");
    command
        .args(["-no_rc", "-as", "mkisofs", "-quiet", "-V", "SYNTHVM", "-r", "-J"])
        .args(["-e", "efi.img", "-no-emul-boot", "-o"])
        .arg(maker.image())
        .arg(&folder);
    maker.run(&mut command)
}
