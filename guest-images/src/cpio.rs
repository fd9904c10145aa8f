//! Writes the archive format of Linux initial RAM disks: cpio, "new ASCII" without checksums
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::path::{Component, Path};

const MODE_DIR: u32 = 0o040_755;
const MODE_LINK: u32 = 0o120_777;
const MODE_FILE: u32 = 0o100_000;
const MODE_CHAR: u32 = 0o020_600;

/// An archive in memory. Parent folders are added automatically; times and owners are all zero, so
/// the same content makes the same bytes.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
    next_inode: u32,
}

impl Archive {
    /// Returns an empty archive.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a regular file with its permission bits.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, MODE_FILE | (mode & 0o7777), (0, 0), content);
    }

    /// Adds a folder.
    pub fn dir(&mut self, path: &str) {
        self.entry(path, MODE_DIR, (0, 0), &[]);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, MODE_LINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, MODE_CHAR, (major, minor), &[]);
    }

    /// Returns whether an entry with this name was added.
    pub fn contains(&self, path: &str) -> bool {
        self.names.contains(&normal(path))
    }

    /// Returns the finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, (0, 0), &[]);
        // The kernel allows any padding between archives; whole sectors are best for loaders.
        let end = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(end, 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = normal(path);
        if name.is_empty() || !self.names.insert(name.clone()) {
            return;
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.dir(parent);
        }
        self.record(&name, mode, device, content);
    }

    fn record(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.next_inode += 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields =
            [self.next_inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let end = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(end, 0);
    }
}

/// Returns the form of a name in an archive: no leading slash, no dots.
fn normal(path: &str) -> String {
    let parts: Vec<_> = Path::new(path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses an archive by the format's own rules. Returns (name, mode, content) of every record.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let start = at + 6 + n * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16)
                    .unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name =
                String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            let data = (at + 110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
    }

    #[test]
    fn test_archive_read_back_has_parents_before_children() {
        let mut archive = Archive::new();
        archive.file("/a/b/c", 0o644, b"hello");
        archive.link("/a/l", "b/c");
        archive.char_device("dev/console", 5, 1);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);
        let found = read(&bytes);
        let names: Vec<_> = found.iter().map(|(name, _, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/l", "dev", "dev/console"]);
        assert_eq!(found[2], ("a/b/c".to_owned(), 0o100_644, b"hello".to_vec()));
        assert_eq!(found[3].1, 0o120_777);
        assert_eq!(found[5].1, 0o020_600);
    }

    #[test]
    fn test_archive_given_a_name_twice_keeps_the_first() {
        let mut archive = Archive::new();
        archive.file("x", 0o644, b"1");
        archive.file("./x", 0o644, b"2");
        assert!(archive.contains("/x"));
        assert_eq!(read(&archive.finish()), [("x".to_owned(), 0o100_644, b"1".to_vec())]);
    }

    #[test]
    fn test_archive_of_the_same_content_has_the_same_bytes() {
        let make = || {
            let mut archive = Archive::new();
            archive.file("bin/x", 0o755, b"abc");
            archive.finish()
        };
        assert_eq!(make(), make());
    }
}
