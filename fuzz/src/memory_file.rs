//! Files in memory: no data reaches a disk, and no file is left.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const PAGE: u64 = 4096;

pub(crate) struct MemoryFile {
    file: File,
    /// A name that no other file has.
    name: String,
}

impl MemoryFile {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("image-{}-", COUNT.fetch_add(1, Ordering::Relaxed));
        let c_name = CString::new(name.as_str()).expect("a name");
        // SAFETY: a terminated string and a flag; the returned descriptor has no other owner.
        let file = unsafe {
            let fd = libc::memfd_create(c_name.as_ptr(), libc::MFD_CLOEXEC);
            assert!(fd >= 0, "memory for a file");
            File::from_raw_fd(fd)
        };
        Self { file, name }
    }

    /// Returns a path by which other code can open the file.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Returns the number of open descriptors of the file.
    pub(crate) fn users(&self) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").expect("a list of what is open").flatten();
        let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().contains(&self.name)).count()
    }

    /// Fills the file with zeroes and `pages`.
    pub(crate) fn fill(&self, length: u64, pages: &[(u64, Vec<u8>)]) {
        self.resize(0);
        self.resize(length);
        pages.iter().for_each(|(offset, page)| self.write(*offset, page));
    }

    pub(crate) fn len(&self) -> u64 {
        self.file.metadata().expect("an open file").len()
    }

    pub(crate) fn resize(&self, length: u64) {
        self.file.set_len(length).expect("memory");
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).expect("memory");
    }

    /// Returns `length` bytes, with zeroes past the end.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut done = 0;
        while done < length {
            match self.file.read_at(&mut bytes[done..], offset + done as u64).expect("memory") {
                0 => break,
                count => done += count,
            }
        }
        bytes
    }
}
