//! Real programs for guests, with the libraries that they need and nothing else of their packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use object::{Endianness, elf};

use crate::cpio::Archive;
use crate::packages::{Package, Packages};
use crate::{Error, cache::Cache};

/// The suite that programs come from, whatever kernel they run on.
const SUITE: &str = "bookworm";

/// Where the packages keep libraries, and where the guest's loader looks for them.
const LIBRARY_FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
const GUEST_LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// The loader's name, as compiled into every program.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Packages and the programs that we want of each.
const PROGRAMS: [(&str, &[&str]); 2] = [
    ("e2fsprogs", &["sbin/mke2fs", "sbin/e2fsck", "sbin/tune2fs", "sbin/dumpe2fs"]),
    (
        "sg3-utils",
        &[
            "usr/bin/sg_inq",
            "usr/bin/sg_vpd",
            "usr/bin/sg_readcap",
            "usr/bin/sg_turs",
            "usr/bin/sg_luns",
            "usr/bin/sg_modes",
            "usr/bin/sg_opcodes",
            "usr/bin/sg_persist",
            "usr/bin/sg_raw",
            "usr/bin/sg_requests",
            "usr/bin/sg_reset",
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

/// The programs of the shell's that tests and people call by name; all are reached as `busybox NAME`.
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

/// Adds the programs of [`PROGRAMS`] and what they need.
pub(crate) fn add_programs(cache: &Cache, archive: &mut Archive) -> Result<(), Error> {
    let packages = Packages::new(cache, SUITE);
    for (name, programs) in PROGRAMS {
        let packages = packages.get_with_dependencies(name)?;
        let mut libraries = Libraries { packages: &packages, done: BTreeSet::new(), archive };
        for program in programs {
            libraries.add_program(program)?;
        }
    }
    for name in ["mkfs.ext4", "mkfs.ext3", "mkfs.ext2"] {
        archive.link(&format!("sbin/{name}"), "mke2fs");
    }
    archive.link("sbin/fsck.ext4", "e2fsck");
    Ok(())
}

struct Libraries<'a> {
    packages: &'a [Package],
    done: BTreeSet<String>,
    archive: &'a mut Archive,
}

impl Libraries<'_> {
    fn add_program(&mut self, program: &str) -> Result<(), Error> {
        let own = self.packages.first().ok_or_else(|| Error::Unusable("no package".to_owned()))?;
        let path = own.root.join(program);
        let bytes = fs::read(&path).map_err(Error::file("reading", &path))?;
        self.archive.file(program, 0o755, &bytes);
        self.add_library(LOADER)?;
        self.archive.link(&format!("lib64/{LOADER}"), &format!("/{GUEST_LIBRARIES}/{LOADER}"));
        self.add_needed(&bytes, &path)
    }

    fn add_needed(&mut self, bytes: &[u8], path: &Path) -> Result<(), Error> {
        for name in needed(bytes).map_err(|e| Error::Unusable(format!("{}: {e}", path.display())))? {
            self.add_library(&name)?;
        }
        Ok(())
    }

    fn add_library(&mut self, name: &str) -> Result<(), Error> {
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.find(name).ok_or_else(|| Error::Unusable(format!("no package brings {name}")))?;
        // Follows the link from the short name to the file.
        let bytes = fs::read(&path).map_err(Error::file("reading", &path))?;
        self.archive.file(&format!("{GUEST_LIBRARIES}/{name}"), 0o755, &bytes);
        self.add_needed(&bytes, &path)
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let places =
            self.packages.iter().flat_map(|package| LIBRARY_FOLDERS.map(|f| package.root.join(f).join(name)));
        places.into_iter().find(|path| path.is_file())
    }
}

/// The libraries that an ELF file asks for.
fn needed(bytes: &[u8]) -> Result<Vec<String>, object::Error> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((entries, link)) = sections.dynamic(endian, bytes)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, bytes, link)?;
    let mut names = Vec::new();
    for entry in entries {
        if entry.d_tag(endian) == u64::from(elf::DT_NULL) {
            break;
        }
        if entry.d_tag(endian) == u64::from(DT_NEEDED) {
            names.push(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_needed_of_a_dynamic_program_has_the_c_library() {
        let path = std::env::current_exe().unwrap();
        let names = needed(&fs::read(path).unwrap()).unwrap();
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
    }

    #[test]
    fn test_needed_of_something_else_is_an_error() {
        assert!(needed(b"#!/bin/sh").is_err());
    }
}
