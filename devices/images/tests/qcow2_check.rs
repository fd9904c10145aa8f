//! The check of a qcow2 image, its repairs, and images that are refused for writing.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Folder, qemu, read, text, write};
use synthvm_block::conformance::one;
use synthvm_block::{IoError, Operation};
use synthvm_images::{
    CheckReport, CreateOptions, Format, OpenOptions, Parents, check, create, open,
};

const SIZE: u64 = 4 << 30;
const CLUSTER: u64 = 65536;
const COPIED: u64 = 1 << 63;

/// An image with a cluster of data at 0 and one at 1 GiB.
struct Image {
    path: PathBuf,
    file: File,
    l1: u64,
    counts: u64,
}

impl Image {
    fn new(folder: &Folder) -> Self {
        let path = folder.unique("image.qcow2");
        create(&path, &CreateOptions::new(Format::Qcow2, SIZE)).unwrap();
        let image = open(&path, &OpenOptions::default()).unwrap();
        write(&image, 0, vec![1; 4096]);
        write(&image, 1 << 30, vec![2; 4096]);
        drop(image);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut image = Self { path, file, l1: 0, counts: 0 };
        (image.l1, image.counts) = (image.word(40), image.word(48));
        image
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    }

    fn set(&self, at: u64, word: u64) {
        self.file.write_all_at(&word.to_be_bytes(), at).unwrap();
    }

    /// Returns the offset of the count of the cluster at `offset`.
    fn count_at(&self, offset: u64) -> u64 {
        self.word(self.counts) + offset / CLUSTER * 2
    }

    fn set_count(&self, offset: u64, count: u16) {
        self.file.write_all_at(&count.to_be_bytes(), self.count_at(offset)).unwrap();
    }

    /// Returns the offset of the second-level table of the disk's first part.
    fn table(&self) -> u64 {
        self.word(self.l1) & !COPIED
    }

    fn check(&self, repair: bool) -> CheckReport {
        check(&self.path, None, repair, Parents::Named).unwrap()
    }

    #[track_caller]
    fn assert_error(&self, expected: &str) {
        let report = self.check(false);
        assert!(report.errors.iter().any(|error| error.contains(expected)), "{expected}: {report}");
        let qemu = std::process::Command::new("qemu-img")
            .args(["check", "-f", "qcow2", text(&self.path)])
            .output();
        assert!(!matches!(qemu.unwrap().status.code(), Some(0 | 3)), "QEMU agrees: {expected}");
    }
}

fn try_write(path: &Path, offset: u64) -> Result<Vec<u8>, IoError> {
    let image = open(path, &OpenOptions::default()).unwrap();
    one(&mut *image.queue().unwrap(), Operation::Write { fua: false }, offset, vec![7; 4096])
}

#[test]
fn test_sound_image_has_neither_errors_nor_leaks() {
    let folder = Folder::new();
    let report = Image::new(&folder).check(false);
    assert!(report.is_sound() && report.leaked == 0 && report.notes.is_empty(), "{report}");
}

/// The state that a killed writer left with the library that was used before: two parts of the disk
/// share a table without a count.
#[test]
fn test_shared_second_level_table_is_an_error_and_is_not_written() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    image.set(image.l1 + 5 * 8, image.word(image.l1));
    image.assert_error("share the second-level table");
    let error = open(&image.path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("readonly=on") && error.contains("second-level table"), "{error}");
    let reading =
        open(&image.path, &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap();
    assert!(read(&reading, 0, 4096) == vec![1; 4096]);
}

#[test]
fn test_table_that_is_not_counted_is_an_error_and_is_not_taken_by_others() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    image.set_count(image.table(), 0);
    image.assert_error("is used 1 times and counted 0 times");
    try_write(&image.path, 2 << 30).unwrap();
    let disk = open(&image.path, &OpenOptions::default()).unwrap();
    assert!(read(&disk, 0, 4096) == vec![1; 4096] && read(&disk, 2 << 30, 4096) == vec![7; 4096]);
}

#[test]
fn test_shared_cluster_of_data_is_an_error() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    image.set(image.table() + 3 * 8, image.word(image.table()));
    image.assert_error("is marked as used once, and is shared");
}

#[test]
fn test_entries_outside_the_file_and_unaligned_ones_are_errors_and_their_clusters_fail() {
    let folder = Folder::new();
    for (entry, expected) in
        [(1 << 40, "does not lie in the file"), (CLUSTER + 512, "the entry of the disk's cluster")]
    {
        let image = Image::new(&folder);
        image.set(image.table(), COPIED | entry);
        image.assert_error(expected);
        assert_eq!(try_write(&image.path, 0), Err(IoError::Os(libc::EIO)));
        // The other clusters are unchanged.
        try_write(&image.path, CLUSTER).unwrap();
    }
}

#[test]
fn test_data_inside_a_structure_is_an_error_and_is_not_written() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    let structures = [0, image.l1, image.counts, image.word(image.counts), image.table()];
    for (number, offset) in structures.into_iter().enumerate() {
        let image = Image::new(&folder);
        // No cluster of data can be at 0: an entry with that offset is empty.
        if number != 0 {
            image.set(image.table(), COPIED | offset);
            image.assert_error("lies where something else is");
            let before = std::fs::read(&image.path).unwrap();
            assert_eq!(try_write(&image.path, 0), Err(IoError::Os(libc::EIO)));
            let after = std::fs::read(&image.path).unwrap();
            let (from, to) = (offset as usize, (offset + CLUSTER) as usize);
            assert!(
                before[from..to] == after[from..to],
                "the structure at {offset:#x} is as it was"
            );
        }
        // A table that lies in another structure.
        let image = Image::new(&folder);
        image.set(image.l1 + 8, COPIED | offset);
        if offset != 0 {
            assert!(!image.check(false).is_sound());
            let error = open(&image.path, &OpenOptions::default()).unwrap_err().to_string();
            assert!(error.contains("readonly=on"), "{error}");
        }
    }
}

#[test]
fn test_count_that_is_too_high_is_a_leak_and_is_given_back() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    let length = image.file.metadata().unwrap().len();
    image.file.set_len(length + 3 * CLUSTER).unwrap();
    for cluster in 0..3 {
        image.set_count(length + cluster * CLUSTER, 1);
    }
    let report = image.check(false);
    assert!(report.is_sound() && report.leaked == 3 * CLUSTER, "{report}");
    let report = image.check(true);
    assert!(report.is_sound() && report.leaked == 0 && !report.repaired.is_empty(), "{report}");
    assert_eq!(image.file.metadata().unwrap().len(), length);
    qemu("qemu-img", &["check", "-q", "-f", "qcow2", text(&image.path)]);
}

#[test]
fn test_dirty_image_is_reported_and_its_counts_are_rebuilt() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    let (table, data) = (image.table(), image.word(image.table()) & !COPIED);
    image.file.write_all_at(&[1], 79).unwrap();
    image.set_count(table, 0);
    image.set_count(data, 0);
    let report = image.check(false);
    assert!(
        !report.is_sound() && report.notes.iter().any(|note| note.contains("not closed")),
        "{report}"
    );
    let report = image.check(true);
    assert!(
        report.is_sound() && report.notes.is_empty() && !report.repaired.is_empty(),
        "{report}"
    );
    qemu("qemu-img", &["check", "-q", "-f", "qcow2", text(&image.path)]);
}

#[test]
fn test_dirty_image_without_its_block_of_counts_gets_one() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    image.file.write_all_at(&[1], 79).unwrap();
    image.set(image.counts, 0);
    try_write(&image.path, 3 << 30).unwrap();
    qemu("qemu-img", &["check", "-q", "-f", "qcow2", text(&image.path)]);
    let report = image.check(false);
    assert!(report.is_sound() && report.leaked == 0, "{report}");
}

#[test]
fn test_dirty_image_that_more_is_wrong_with_is_not_repaired() {
    let folder = Folder::new();
    let image = Image::new(&folder);
    image.file.write_all_at(&[1], 79).unwrap();
    image.set(image.table() + 3 * 8, image.word(image.table()));
    let before = std::fs::read(&image.path).unwrap();
    let error = open(&image.path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("qemu-img check -r all") && error.contains("shared"), "{error}");
    assert!(std::fs::read(&image.path).unwrap() == before);
}
