//! EFI applications of the distribution, each on a disk of its own that starts it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::recipe::Recipe;
use super::{REMOVABLE, read};
use crate::kernel::{Kernel, StockKernel};
use crate::packages::Packages;
use crate::{Error, cache::Cache};

/// An EFI application of the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Application {
    /// The UEFI shell of trixie. It runs the script that [`Application::disk`] is given.
    Shell,
    /// memtest86+ of trixie, started by the UEFI shell.
    Memtest,
    /// systemd-boot of trixie. Its menu has the UEFI shell and, below it, a kernel; it waits a
    /// minute for a key.
    SystemdBoot,
    /// iPXE of trixie.
    Ipxe,
}

impl Application {
    /// Returns the raw image of a disk whose EFI system partition starts the application, after
    /// making it if it is missing. For the shell and systemd-boot, `script` is the text of
    /// `startup.nsh`, which the shell runs after 5 s or at the next key.
    ///
    /// # Errors
    /// A package cannot be fetched, or a program fails.
    pub fn disk(self, cache: &Cache, script: &str) -> Result<PathBuf, Error> {
        let mut esp = BTreeMap::new();
        let mut add = |name: &str, bytes: Vec<u8>| esp.insert(name.to_owned(), bytes);
        add(REMOVABLE, self.bytes(cache)?);
        match self {
            Application::Shell => {
                add("startup.nsh", script.replace('\n', "\r\n").into_bytes());
            }
            Application::SystemdBoot => {
                add("shell.efi", Application::Shell.bytes(cache)?);
                add("startup.nsh", script.replace('\n', "\r\n").into_bytes());
                add("vmlinuz", read(&Kernel::stock(cache, StockKernel::V6_12)?.image)?);
                add("loader/loader.conf", b"timeout 60\ndefault shell.conf\n".to_vec());
                let shell = format!("title {SYSTEMD_BOOT_ENTRY}\nsort-key a\nefi /shell.efi\n");
                add("loader/entries/shell.conf", shell.into_bytes());
                let kernel = format!(
                    "title A kernel\nsort-key b\nlinux /vmlinuz\n\
                     options console=ttyS0 panic=-1 {SYSTEMD_BOOT_OPTION}\n"
                );
                add("loader/entries/kernel.conf", kernel.into_bytes());
            }
            Application::Memtest => {
                // Its messages go to the serial port only by an option, which the shell gives it.
                add("memtest.efi", Application::Memtest.bytes(cache)?);
                add(REMOVABLE, Application::Shell.bytes(cache)?);
                add("startup.nsh", b"fs0:\\memtest.efi console=ttyS0,115200\r\n".to_vec());
            }
            Application::Ipxe => {}
        }
        Recipe { name: self.name().to_owned(), esp, root: None }.build(cache)
    }

    fn name(self) -> &'static str {
        match self {
            Application::Shell => "uefi-shell",
            Application::Memtest => "memtest",
            Application::SystemdBoot => "systemd-boot",
            Application::Ipxe => "ipxe",
        }
    }

    fn bytes(self, cache: &Cache) -> Result<Vec<u8>, Error> {
        let (suite, package, path) = match self {
            Application::Shell => {
                ("trixie", "efi-shell-x64", "usr/share/efi-shell-x64/shellx64.efi")
            }
            Application::Memtest => ("trixie", "memtest86+", "boot/memtest86+x64.efi"),
            Application::SystemdBoot => {
                ("trixie", "systemd-boot-efi", "usr/lib/systemd/boot/efi/systemd-bootx64.efi")
            }
            Application::Ipxe => ("trixie", "ipxe", "usr/lib/ipxe/ipxe-amd64.efi"),
        };
        read(&Packages::new(cache, suite).get(package)?.root.join(path))
    }
}

/// The title of the first entry in systemd-boot's menu.
pub const SYSTEMD_BOOT_ENTRY: &str = "The shell of UEFI";

/// An option in the command line of the kernel in systemd-boot's menu.
pub const SYSTEMD_BOOT_OPTION: &str = "synthvm.entry=second";
