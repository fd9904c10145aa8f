//! The way from the firmware to the system: boot loaders, their menus and the initial RAM disk.

use crate::cpio::Archive;
use crate::init_binary::InitBinary;
use crate::kernel::Kernel;
use crate::kmods::{self, Modules};
use crate::{Error, cache::Cache};

/// The name of the root partition in the partition table.
pub(super) const ROOT_PARTITION: &str = "debian-root";

/// The identifier of the root file system, by which GRUB finds it.
pub(super) const ROOT_UUID: &str = "6a2c9a6e-7f0f-4d3c-9f5b-53796e746801";

/// The name of the kernel without a signature.
pub(super) const UNSIGNED_KERNEL: &str = "vmlinuz-unsigned";

/// The text that GRUB prints when it has read its menu.
pub const GRUB_READY: &str = "GRUB has read its menu";

/// The command by which a guest makes the kernel without a signature GRUB's default.
pub const CHOOSE_UNSIGNED: &str = "echo set default=1 > /boot/grub/choice.cfg";

/// Drivers that the initial RAM disk loads: for disks of Hyper-V and, so that the image can be
/// proved elsewhere, of other machines; for the root's file system and the ESP's; and those that
/// udev would have loaded.
const MODULES: [&str; 16] = [
    "hv_vmbus",
    "hv_storvsc",
    "virtio_pci",
    "virtio_blk",
    "ata_piix",
    "sd_mod",
    "sr_mod",
    "crc32c_generic",
    "ext4",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "efivarfs",
    "hv_utils",
    "hv_netvsc",
    "tpm_crb",
];

/// Returns the initial RAM disk.
///
/// # Errors
/// A module cannot be read, or the program cannot be built.
pub(super) fn initrd(cache: &Cache, kernel: &Kernel) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::new();
    archive.char_device("dev/console", 5, 1);
    archive.dir("root");
    archive.file("init", 0o755, &InitBinary::Root.build(cache)?);
    let modules = Modules::find(&kernel.modules)?.load_order(&MODULES)?;
    kmods::pack(&modules, &mut archive);
    let names = MODULES.iter().filter(|name| modules.iter().any(|module| module.name == **name));
    let names: Vec<&str> = names.copied().collect();
    archive.file("modules/boot", 0o644, names.join("\n").as_bytes());
    Ok(archive.finish())
}

/// Returns GRUB's menu on the ESP, in the folder that is compiled into the signed GRUB. As the
/// distribution's installer writes it.
pub(super) fn stub() -> String {
    format!(
        "search.fs_uuid {ROOT_UUID} root\n\
         set prefix=($root)'/boot/grub'\n\
         configfile $prefix/grub.cfg\n"
    )
}

/// Returns GRUB's menu on the root file system.
pub(super) fn menu() -> String {
    format!(
        "{}\
         set timeout=1\n\
         if [ -f $prefix/choice.cfg ]; then source $prefix/choice.cfg; fi\n\
         {}{}{SETTINGS}",
        terminal(),
        entry("Debian GNU/Linux", "vmlinuz"),
        entry("Kernel without a signature", UNSIGNED_KERNEL)
    )
}

/// Returns the menu's entry for a kernel in the folder `/boot`.
fn entry(title: &str, kernel: &str) -> String {
    format!(
        "menuentry '{title}' {{\n\
         \tlinux /boot/{kernel} root=PARTLABEL={ROOT_PARTITION} console=ttyS0 quiet panic=-1 \
         mitigations=off TERM=dumb\n\
         \tinitrd /boot/initrd.img\n\
         }}\n"
    )
}

/// Returns GRUB's menu on a disc.
pub(super) fn disc_menu() -> String {
    format!("{}set timeout=-1\n{SETTINGS}", terminal())
}

/// Returns commands of GRUB that use the first serial port as the terminal. Keys also come from the
/// firmware's console: while GRUB runs, the firmware takes some of those of the serial port.
fn terminal() -> String {
    format!(
        "serial --unit=0 --speed=115200\n\
         terminal_input serial console\n\
         terminal_output serial\n\
         echo '{GRUB_READY}'\n"
    )
}

/// The menu's entry for the firmware's own menu.
const SETTINGS: &str = "menuentry 'UEFI firmware settings' {\n\
    \tfwsetup\n\
    }\n\
    menuentry 'Power off' {\n\
    \thalt\n\
    }\n";
