//! Real programs for guests, with their libraries and no other parts of their packages.

use std::fs;
use std::path::PathBuf;

use crate::cpio::Archive;
use crate::libraries::{LOADER, Libraries};
use crate::packages::Packages;
use crate::{Error, cache::Cache};

/// The suite of the programs, independent of the kernel.
pub(crate) const SUITE: &str = "bookworm";

/// The last folder in which the guest's loader searches for libraries, after a program's own
/// folders.
const GUEST_LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// Packages and the programs to take from each.
const PROGRAMS: [(&str, &[&str]); 2] = [
    ("e2fsprogs", &["sbin/mke2fs", "sbin/e2fsck", "sbin/tune2fs", "sbin/dumpe2fs"]),
    (
        "sg3-utils",
        &[
            "usr/bin/sg_inq",
            "usr/bin/sg_vpd",
            "usr/bin/sg_readcap",
            "usr/bin/sg_turs",
            "usr/bin/sg_get_lba_status",
            "usr/bin/sg_luns",
            "usr/bin/sg_modes",
            "usr/bin/sg_opcodes",
            "usr/bin/sg_persist",
            "usr/bin/sg_raw",
            "usr/bin/sg_requests",
            "usr/bin/sg_reset",
            "usr/bin/sg_senddiag",
            "usr/bin/sg_sync",
            "usr/bin/sg_unmap",
            "usr/bin/sg_write_same",
            "usr/bin/sg_dd",
        ],
    ),
];

/// Adds the shell and its many small programs.
pub(crate) fn add_busybox(cache: &Cache, archive: &mut Archive) -> Result<(), Error> {
    let package = Packages::new(cache, SUITE).get("busybox-static")?;
    let path = package.root.join("bin/busybox");
    let bytes = fs::read(&path).map_err(Error::file("reading", &path))?;
    archive.file("bin/busybox", 0o755, &bytes);
    for name in APPLETS {
        archive.link(&format!("bin/{name}"), "busybox");
    }
    Ok(())
}

/// The shell's programs that tests and users call by name; all are reachable as `busybox NAME`.
const APPLETS: [&str; 50] = [
    "sh",
    "ash",
    "awk",
    "blkdiscard",
    "blockdev",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dmesg",
    "du",
    "echo",
    "env",
    "false",
    "find",
    "free",
    "fstrim",
    "grep",
    "head",
    "hexdump",
    "id",
    "ip",
    "kill",
    "ls",
    "lsmod",
    "lsscsi",
    "md5sum",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "od",
    "ping",
    "ps",
    "rm",
    "sed",
    "seq",
    "sha256sum",
    "sleep",
    "stat",
    "sync",
    "tail",
    "taskset",
    "true",
    "umount",
    "uname",
    "vi",
];

/// Adds the programs of [`PROGRAMS`] with their libraries.
pub(crate) fn add_programs(cache: &Cache, archive: &mut Archive) -> Result<(), Error> {
    for (name, programs) in PROGRAMS {
        add_package(cache, archive, SUITE, name, programs)?;
    }
    for name in ["mkfs.ext4", "mkfs.ext3", "mkfs.ext2"] {
        archive.link(&format!("sbin/{name}"), "mke2fs");
    }
    archive.link("sbin/fsck.ext4", "e2fsck");
    Ok(())
}

/// Adds a file of a package, or a folder with all that is in it. Follows links.
pub(crate) fn add_data(
    cache: &Cache,
    archive: &mut Archive,
    name: &str,
    path: &str,
) -> Result<(), Error> {
    let package = Packages::new(cache, SUITE).get(name)?;
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let from = package.root.join(&path);
        if from.is_dir() {
            let entries = fs::read_dir(&from).map_err(Error::file("reading folder", &from))?;
            let mut names = Vec::new();
            for entry in entries {
                let entry = entry.map_err(Error::file("reading folder", &from))?;
                names.push(format!("{path}/{}", entry.file_name().to_string_lossy()));
            }
            // The same parts make the same image.
            names.sort();
            open.extend(names);
        } else {
            let bytes = fs::read(&from).map_err(Error::file("reading", &from))?;
            archive.file(&path, 0o644, &bytes);
        }
    }
    Ok(())
}

/// Adds some programs of one package of a suite, such as `usr/bin/fio` of `fio`, with their
/// libraries.
pub(crate) fn add_package<S: AsRef<str>>(
    cache: &Cache,
    archive: &mut Archive,
    suite: &str,
    name: &str,
    programs: &[S],
) -> Result<(), Error> {
    let suite = Packages::new(cache, suite);
    let own = suite.get(name)?;
    let paths: Vec<PathBuf> =
        programs.iter().map(|program| own.root.join(program.as_ref())).collect();
    let files: Vec<_> = paths.iter().map(|path| (&own, path.as_path())).collect();
    let libraries = Libraries::new(&suite, std::slice::from_ref(&own)).of(&files)?;
    for (program, path) in programs.iter().zip(&paths) {
        let bytes = fs::read(path).map_err(Error::file("reading", path))?;
        archive.file(program.as_ref(), 0o755, &bytes);
    }
    for (name, path) in libraries {
        // Follows the link from the short name to the file.
        let bytes = fs::read(&path).map_err(Error::file("reading", &path))?;
        archive.file(&format!("{GUEST_LIBRARIES}/{name}"), 0o755, &bytes);
    }
    archive.link(&format!("lib64/{LOADER}"), &format!("/{GUEST_LIBRARIES}/{LOADER}"));
    Ok(())
}
