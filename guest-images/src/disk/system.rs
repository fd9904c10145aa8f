//! The root file system of an installed Debian: its packages and the files that an installer and
//! the packages' own scripts would have written.
//!
//! As few packages as let systemd reach a login prompt. There is no udev: it costs seconds in an
//! emulated machine, and the initial RAM disk has loaded the drivers.

use std::fs;
use std::path::{Path, PathBuf};

use super::tree::Tree;
use super::unsigned::unsigned;
use crate::kernel::{Kernel, StockKernel};
use crate::libraries::{LOADER, Libraries};
use crate::packages::{Package, Packages};
use crate::{Error, cache::Cache};

/// The packages, all of whose files are in the system; their libraries follow from them.
const PACKAGES: [&str; 14] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "efibootmgr",
    "grep",
    "kmod",
    "libpam-modules",
    "libpam-modules-bin",
    "login",
    "mount",
    "systemd",
    "systemd-sysv",
    "util-linux",
];

/// Packages of the tools of a TPM, which bookworm's system has, and of the library by which they
/// open its device.
const TPM_TOOLS: [&str; 2] = ["tpm2-tools", "libtss2-tcti-device0"];

/// The folder of libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The prompt of root's shell.
pub const PROMPT: &str = "guest# ";

/// The name of the machine, which its login prompt shows.
const HOST_NAME: &str = "synthvm-guest";

/// The configuration.
const FILES: [(&str, &str); 8] = [
    // Without an id, systemd asks the questions of a first boot.
    ("etc/machine-id", "53796e7468564d2d6775657374000001\n"),
    ("etc/fstab", ""),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
    ("etc/locale.conf", "LANG=C.UTF-8\n"),
    ("etc/shadow", "root::19000:0:99999:7:::\n"),
    ("etc/securetty", "ttyS0\n"),
    ("etc/systemd/journald.conf.d/volatile.conf", "[Journal]\nStorage=volatile\n"),
    // The distribution's unit waits for a device that udev announces.
    ("etc/systemd/system/serial-getty@.service", GETTY),
];

const GETTY: &str = "[Unit]\n\
    Description=Serial Getty on %I\n\
    After=systemd-user-sessions.service\n\
    \n\
    [Service]\n\
    ExecStart=-/sbin/agetty --noclear --keep-baud 115200,57600,38400,9600 %I dumb\n\
    Restart=always\n\
    UtmpIdentifier=%I\n\
    StandardInput=tty\n\
    StandardOutput=tty\n\
    TTYPath=/dev/%I\n\
    TTYReset=yes\n\
    TTYVHangup=yes\n";

/// Accounts and sessions by the system's own files. Root has no password: whoever has the disk's
/// file has everything in it.
const PAM: [(&str, &str); 6] = [
    ("login", "@include common-auth\n@include common-account\n@include common-session\n"),
    ("common-auth", "auth required pam_unix.so nullok\n"),
    ("common-account", "account required pam_unix.so\n"),
    ("common-session", "session required pam_unix.so\n"),
    ("common-session-noninteractive", "session required pam_unix.so\n"),
    ("common-password", "password required pam_unix.so obscure yescrypt\n"),
];

/// Units that do nothing for a test and cost time, or need programs that are absent.
const MASKED: [&str; 24] = [
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty-static.service",
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-journal-catalog-update.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-pcrphase.service",
    "systemd-sysusers.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
];

/// Returns the files of the system, with a kernel and its initial RAM disk.
///
/// # Errors
/// A package cannot be fetched or read.
pub(super) fn tree(
    cache: &Cache,
    release: StockKernel,
    kernel: &Kernel,
    initrd: Vec<u8>,
) -> Result<Tree, Error> {
    let suite = Packages::new(cache, release.suite());
    let packages = suite.get_all(&PACKAGES)?;
    let mut tree = Tree::new();
    for package in &packages {
        tree.package(package)?;
    }
    let owned = programs(&tree, &packages);
    add_libraries(&mut tree, &suite, &packages, &owned)?;
    if release == StockKernel::V6_1 {
        add_tpm_tools(&mut tree, &suite)?;
    }
    configure(&mut tree, &packages)?;
    tree.copy("boot/vmlinuz", 0o644, &kernel.image);
    let name = format!("boot/{}", super::boot::UNSIGNED_KERNEL);
    tree.file(&name, 0o644, unsigned(&super::read(&kernel.image)?)?);
    tree.file("boot/initrd.img", 0o644, initrd);
    tree.file("boot/grub/grub.cfg", 0o644, super::boot::menu());
    Ok(tree)
}

/// Returns the programs and libraries of packages, with the package of each.
fn programs<'a>(tree: &Tree, packages: &'a [Package]) -> Vec<(&'a Package, PathBuf)> {
    let owner = |path: &Path| packages.iter().find(|package| path.starts_with(&package.root));
    tree.executables().into_iter().filter_map(|path| Some((owner(&path)?, path))).collect()
}

/// Adds the libraries that these files need.
fn add_libraries(
    tree: &mut Tree,
    suite: &Packages,
    packages: &[Package],
    files: &[(&Package, PathBuf)],
) -> Result<(), Error> {
    let files: Vec<(&Package, &Path)> =
        files.iter().map(|(package, path)| (*package, path.as_path())).collect();
    for (name, path) in Libraries::new(suite, packages).of(&files)? {
        tree.copy(&format!("{LIBRARIES}/{name}"), 0o755, &path);
    }
    tree.link(&format!("usr/lib64/{LOADER}"), &format!("/{LIBRARIES}/{LOADER}"));
    Ok(())
}

/// Adds the tools of a TPM that tests use, which are one program with several names.
fn add_tpm_tools(tree: &mut Tree, suite: &Packages) -> Result<(), Error> {
    let packages = suite.get_all(&TPM_TOOLS)?;
    let paths = ["usr/bin/tpm2".to_owned(), format!("{LIBRARIES}/libtss2-tcti-device.so.0")];
    let mut files = Vec::new();
    for (package, path) in packages.iter().zip(&paths) {
        files.push((package, package.root.join(path)));
        tree.copy(path, 0o755, &package.root.join(path));
    }
    for name in ["tpm2_pcrread", "tpm2_eventlog"] {
        tree.link(&format!("usr/bin/{name}"), "tpm2");
    }
    add_libraries(tree, suite, &packages, &files)
}

fn configure(tree: &mut Tree, packages: &[Package]) -> Result<(), Error> {
    for folder in ["dev", "proc", "sys", "run", "mnt", "boot/efi"] {
        tree.folder(folder, 0o755);
    }
    tree.folder("root", 0o700);
    tree.folder("tmp", 0o1777);
    tree.folder("var/tmp", 0o1777);
    tree.link("var/run", "/run");
    tree.link("var/lock", "/run/lock");
    tree.link("bin/sh", "bash");
    if let Some(base) = packages.iter().find(|package| package.name == "base-passwd") {
        for name in ["passwd", "group"] {
            let path = base.root.join(format!("usr/share/base-passwd/{name}.master"));
            let text = fs::read_to_string(&path).map_err(Error::file("reading", &path))?;
            // The passwords are in /etc/shadow.
            tree.file(&format!("etc/{name}"), 0o644, text.replace(":*:", ":x:"));
        }
    }
    for (path, text) in FILES {
        tree.file(path, if path == "etc/shadow" { 0o640 } else { 0o644 }, text);
    }
    tree.file("etc/hostname", 0o644, format!("{HOST_NAME}\n"));
    // The shell's editor would scroll a line that is longer than the terminal is wide.
    tree.file("root/.profile", 0o644, format!("PS1='{PROMPT}'\nstty columns 500\n"));
    for (name, text) in PAM {
        tree.file(&format!("etc/pam.d/{name}"), 0o644, text);
    }
    for unit in MASKED {
        tree.link(&format!("etc/systemd/system/{unit}"), "/dev/null");
    }
    tree.link("etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target");
    Ok(())
}
