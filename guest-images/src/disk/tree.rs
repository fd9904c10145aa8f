//! The files of a root file system, put together from packages without the right to own them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::packages::Package;

/// Folders of packages that a system does not need to run.
const LEFT_OUT: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/zsh",
    "usr/share/bug",
];

/// Top-level names that are links to folders in `usr` (Debian's merged `/usr`).
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// The time of all files, in seconds since 1970: the same content makes the same bytes.
pub(super) const TIME: u64 = 1_700_000_000;

/// The files of a root file system, by their paths without the first slash. All are owned by root.
#[derive(Debug, Default)]
pub(super) struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Content },
    Link { target: String },
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Tree {
    /// Returns a tree with the links of a merged `/usr`.
    pub(super) fn new() -> Tree {
        let mut tree = Tree::default();
        for name in MERGED {
            tree.folder(&format!("usr/{name}"), 0o755);
            tree.entries.insert(name.to_owned(), Entry::Link { target: format!("usr/{name}") });
        }
        tree
    }

    /// Adds all files of a package except documentation.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn package(&mut self, package: &Package) -> Result<(), Error> {
        self.read(&package.root, &package.root)
    }

    /// Adds a folder.
    pub(super) fn folder(&mut self, path: &str, mode: u32) {
        self.add(path, Entry::Folder { mode });
    }

    /// Adds a file, or replaces one.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.add(path, Entry::File { mode, content: Content::Bytes(content.into()) });
    }

    /// Adds a copy of a file, or replaces one.
    pub(super) fn copy(&mut self, path: &str, mode: u32, from: &Path) {
        self.add(path, Entry::File { mode, content: Content::File(from.to_owned()) });
    }

    /// Adds a symbolic link, or replaces one.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.add(path, Entry::Link { target: target.to_owned() });
    }

    /// Returns the paths of all files that are programs or libraries, with their sources.
    pub(super) fn executables(&self) -> Vec<PathBuf> {
        let is_elf = |path: &Path| {
            let mut magic = [0; 4];
            let read =
                File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut magic));
            read.is_ok() && magic == *b"\x7fELF"
        };
        let files = self.entries.values().filter_map(|entry| match entry {
            Entry::File { content: Content::File(path), .. } => Some(path),
            _ => None,
        });
        files.filter(|path| is_elf(path)).cloned().collect()
    }

    /// Writes all files as an archive in the format of tar.
    ///
    /// # Errors
    /// A file cannot be read, or the archive cannot be written.
    pub(super) fn write_tar(&self, path: &Path) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let mut archive = tar::Builder::new(BufWriter::new(File::create(path)?));
            for (name, entry) in &self.entries {
                entry.append(&mut archive, name)?;
            }
            archive.into_inner()?.flush()
        };
        write().map_err(Error::file("writing", path))
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = merged(path);
        let mut parent = path.as_str();
        while let Some((above, _)) = parent.rsplit_once('/') {
            self.entries.entry(above.to_owned()).or_insert(Entry::Folder { mode: 0o755 });
            parent = above;
        }
        self.entries.insert(path, entry);
    }

    fn read(&mut self, root: &Path, folder: &Path) -> Result<(), Error> {
        for entry in fs::read_dir(folder).map_err(Error::file("reading folder", folder))? {
            let path = entry.map_err(Error::file("reading folder", folder))?.path();
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if LEFT_OUT.contains(&name.as_str()) {
                continue;
            }
            let found = fs::symlink_metadata(&path).map_err(Error::file("looking at", &path))?;
            let mode = found.permissions().mode() & 0o7777;
            if found.is_dir() {
                // The links of the merged `/usr` stay, and a folder is in many packages.
                if !MERGED.contains(&name.as_str()) {
                    self.folder(&name, mode);
                }
                self.read(root, &path)?;
            } else if found.is_symlink() {
                let target = fs::read_link(&path).map_err(Error::file("reading link", &path))?;
                self.link(&name, &target.to_string_lossy());
            } else {
                self.copy(&name, mode, &path);
            }
        }
        Ok(())
    }
}

impl Entry {
    fn append(&self, archive: &mut tar::Builder<impl Write>, name: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_size(0);
        match self {
            Entry::Folder { mode } => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                archive.append_data(&mut header, name, io::empty())
            }
            Entry::Link { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                archive.append_link(&mut header, name, target)
            }
            Entry::File { mode, content } => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(*mode);
                match content {
                    Content::Bytes(bytes) => {
                        header.set_size(bytes.len() as u64);
                        archive.append_data(&mut header, name, bytes.as_slice())
                    }
                    Content::File(path) => {
                        let file = File::open(path)?;
                        header.set_size(file.metadata()?.len());
                        archive.append_data(&mut header, name, file)
                    }
                }
            }
        }
    }
}

/// Returns a path below the real folder of a merged `/usr`.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::cache;
    use crate::packages;

    /// Returns name, type, mode and content of each entry of an archive.
    fn read(path: &Path) -> Vec<(String, tar::EntryType, u32, String)> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0), "{name}");
            let (kind, mode) = (header.entry_type(), header.mode().unwrap());
            let mut text = match entry.link_name().unwrap() {
                Some(target) => target.to_string_lossy().into_owned(),
                None => String::new(),
            };
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            (name, kind, mode, text)
        });
        entries.collect()
    }

    #[test]
    fn test_tree_of_a_package_is_merged_and_belongs_to_root() {
        use tar::EntryType;
        let cache = cache("tree");
        let package = packages::fake(&cache, "nowhere", "a", &[]);
        for (name, mode) in [("bin/true", 0o4755), ("usr/share/doc/a/copyright", 0o644)] {
            cache.write(&package.root.join(name), b"x").unwrap();
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(package.root.join(name), mode).unwrap();
        }
        let mut tree = Tree::new();
        tree.package(&package).unwrap();
        tree.file("/etc/hostname", 0o644, "guest\n");
        tree.link("sbin/init", "/lib/systemd/systemd");
        let path = cache.root().join("tar");
        tree.write_tar(&path).unwrap();
        let found = read(&path);
        let has = |name: &str, kind, mode, text: &str| {
            found.contains(&(name.to_owned(), kind, mode, text.to_owned()))
        };
        assert!(has("bin", EntryType::Symlink, 0o777, "usr/bin"), "{found:?}");
        assert!(has("usr/bin/true", EntryType::Regular, 0o4755, "x"), "{found:?}");
        assert!(has("usr/sbin/init", EntryType::Symlink, 0o777, "/lib/systemd/systemd"));
        assert!(has("etc/hostname", EntryType::Regular, 0o644, "guest\n"), "{found:?}");
        assert!(!found.iter().any(|(name, ..)| name.contains("copyright")), "{found:?}");
        let names: Vec<&String> = found.iter().map(|(name, ..)| name).collect();
        let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
        assert!(place("etc") < place("etc/hostname"), "a folder precedes its files: {names:?}");
        fs::remove_dir_all(cache.root()).unwrap();
    }
}
