//! Real programs for guests, with the libraries that they need and nothing else of their packages.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use object::{Endianness, elf};

use crate::cpio::Archive;
use crate::packages::{Package, Packages};
use crate::progress::step;
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
    for (name, programs) in PROGRAMS {
        add_package(cache, archive, name, programs)?;
    }
    for name in ["mkfs.ext4", "mkfs.ext3", "mkfs.ext2"] {
        archive.link(&format!("sbin/{name}"), "mke2fs");
    }
    archive.link("sbin/fsck.ext4", "e2fsck");
    Ok(())
}

/// Adds some programs of one package, such as `usr/bin/fio` of `fio`, and the libraries that they need.
pub(crate) fn add_package<S: AsRef<str>>(
    cache: &Cache,
    archive: &mut Archive,
    name: &str,
    programs: &[S],
) -> Result<(), Error> {
    let suite = Packages::new(cache, SUITE);
    let own = suite.get(name)?;
    let mut libraries = Libraries::new(&suite, own.clone(), archive);
    programs.iter().try_for_each(|program| libraries.add_program(&own, program.as_ref()))
}

/// Finds libraries in a package's dependencies. A dependency is fetched when a library is still missing, so that scripts' interpreters and
/// other things that no program links to are left alone.
struct Libraries<'a> {
    suite: &'a Packages,
    packages: Vec<Package>,
    /// Dependencies that nobody has looked into.
    pending: VecDeque<String>,
    /// All that were ever pending.
    seen: BTreeSet<String>,
    done: BTreeSet<String>,
    archive: &'a mut Archive,
}

impl<'a> Libraries<'a> {
    fn new(suite: &'a Packages, own: Package, archive: &'a mut Archive) -> Libraries<'a> {
        let (pending, seen, done) = (VecDeque::new(), BTreeSet::new(), BTreeSet::new());
        let mut libraries = Libraries { suite, packages: Vec::new(), pending, seen, done, archive };
        libraries.look_into(own);
        libraries
    }

    fn add_program(&mut self, own: &Package, program: &str) -> Result<(), Error> {
        let path = own.root.join(program);
        let bytes = fs::read(&path).map_err(Error::file("reading", &path))?;
        self.archive.file(program, 0o755, &bytes);
        self.add_library(LOADER, &[])?;
        self.archive.link(&format!("lib64/{LOADER}"), &format!("/{GUEST_LIBRARIES}/{LOADER}"));
        self.add_needed(&bytes, &path)
    }

    fn add_needed(&mut self, bytes: &[u8], path: &Path) -> Result<(), Error> {
        let needs = Needs::read(bytes).map_err(|e| Error::Unusable(format!("{}: {e}", path.display())))?;
        needs.libraries.iter().try_for_each(|name| self.add_library(name, &needs.folders))
    }

    fn add_library(&mut self, name: &str, folders: &[String]) -> Result<(), Error> {
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.find(name, folders)?;
        // Follows the link from the short name to the file.
        let bytes = fs::read(&path).map_err(Error::file("reading", &path))?;
        // The loader looks there last, whatever folders of its own a program names.
        self.archive.file(&format!("{GUEST_LIBRARIES}/{name}"), 0o755, &bytes);
        self.add_needed(&bytes, &path)
    }

    fn find(&mut self, name: &str, folders: &[String]) -> Result<PathBuf, Error> {
        let mut looked_into = 0;
        loop {
            while let Some(package) = self.packages.get(looked_into) {
                let all = LIBRARY_FOLDERS.iter().copied().chain(folders.iter().map(String::as_str));
                let found =
                    all.map(|folder| package.root.join(folder).join(name)).find(|path| path.is_file());
                if let Some(path) = found {
                    return Ok(path);
                }
                looked_into += 1;
            }
            let next = self.pending.pop_front();
            let next = next.ok_or_else(|| Error::Unusable(format!("no package brings {name}")))?;
            match self.suite.get(&next) {
                Ok(package) => self.look_into(package),
                // A dependency on a virtual package is for an installer to resolve; libraries never are virtual.
                Err(_) => step(&format!("leaving out {next}, which is no package of its own")),
            }
        }
    }

    fn look_into(&mut self, package: Package) {
        for name in &package.depends {
            if self.seen.insert(name.clone()) {
                // Packages that bring libraries say so in their names.
                if name.contains("lib") {
                    self.pending.push_front(name.clone());
                } else {
                    self.pending.push_back(name.clone());
                }
            }
        }
        self.packages.push(package);
    }
}

/// What an ELF file asks for.
#[derive(Debug, Default)]
struct Needs {
    libraries: Vec<String>,
    /// Folders of its own to look for them, without the first slash.
    folders: Vec<String>,
}

impl Needs {
    fn read(bytes: &[u8]) -> Result<Needs, object::Error> {
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, bytes)?;
        let mut needs = Needs::default();
        let Some((entries, link)) = sections.dynamic(endian, bytes)? else { return Ok(needs) };
        let strings = sections.strings(endian, bytes, link)?;
        for entry in entries {
            let tag = entry.d_tag(endian);
            if tag == u64::from(elf::DT_NULL) {
                break;
            }
            if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].map(u64::from).contains(&tag) {
                continue;
            }
            let text = String::from_utf8_lossy(entry.string(endian, strings)?);
            if tag == u64::from(DT_NEEDED) {
                needs.libraries.push(text.into_owned());
            } else {
                let folders = text.split(':').filter_map(|folder| folder.strip_prefix('/'));
                needs.folders.extend(folders.map(str::to_owned));
            }
        }
        Ok(needs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_needs_of_a_dynamic_program_has_the_c_library() {
        let path = std::env::current_exe().unwrap();
        let names = Needs::read(&fs::read(path).unwrap()).unwrap().libraries;
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
    }

    #[test]
    fn test_needs_of_something_else_is_an_error() {
        assert!(Needs::read(b"#!/bin/sh").is_err());
    }
}
