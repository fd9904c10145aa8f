//! An image is opened by its path once: a rename afterwards changes neither the file that is locked
//! nor the file in use.

mod common;

use std::fs::{hard_link, rename};
use std::path::{Path, PathBuf};

use common::{Folder, flush, read, write};
use synthvm_block::conformance::seam::after_next_open;
use synthvm_block::{OpenError, RawFile};
use synthvm_images::{
    ConvertOptions, CreateOptions, Format, OpenOptions, Parents, check, convert, create, info, open,
};

const SIZE: u64 = 8 << 20;

/// Returns an image of `size` bytes that begins with `byte`.
fn image(folder: &Folder, name: &str, size: u64, byte: u8) -> PathBuf {
    let path = folder.unique(name);
    let format = Format::of_name(Path::new(name)).unwrap();
    create(&path, &CreateOptions::new(format, size)).unwrap();
    let image = open(&path, &OpenOptions::default()).unwrap();
    write(&image, 0, vec![byte; 4096]);
    flush(&image);
    path
}

/// Gives the file at `path` a second name, and makes `other` replace it immediately after it is
/// opened.
fn replaced_when_opened(folder: &Folder, path: &Path, other: PathBuf) -> PathBuf {
    let kept = folder.unique("kept");
    hard_link(path, &kept).unwrap();
    let expected = path.to_owned();
    after_next_open(move |opened| {
        assert_eq!(opened, expected);
        rename(other, opened).unwrap();
    });
    kept
}

/// Names of images and of their replacements: of the same format, and of another one.
const PAIRS: [(&str, &str); 6] = [
    ("disk.img", "other.img"),
    ("disk.vhdx", "other.vhdx"),
    ("disk.vhd", "other.vhd"),
    ("disk.img", "other.vhdx"),
    ("disk.vhdx", "other.img"),
    ("disk.vhd", "other.vhdx"),
];

#[test]
fn test_image_replaced_when_opened_stays_in_use_and_locked() {
    let folder = Folder::new();
    for (name, other) in PAIRS {
        let path = image(&folder, name, SIZE, 1);
        let other = image(&folder, other, 2 * SIZE, 2);
        let kept = replaced_when_opened(&folder, &path, other);
        let disk = open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(disk.geometry().capacity, SIZE, "{name}");
        assert_eq!(read(&disk, 0, 4096), vec![1; 4096], "{name}");
        write(&disk, 4096, vec![3; 4096]);
        flush(&disk);
        let locked = RawFile::open(&kept, true);
        assert!(matches!(locked, Err(OpenError::Locked { .. })), "{name}");
        drop(disk);
        let options = OpenOptions::reading(Some(Format::of_name(Path::new(name)).unwrap()));
        assert_eq!(read(&open(&kept, &options).unwrap(), 4096, 4096), vec![3; 4096], "{name}");
    }
}

#[test]
fn test_tools_use_the_image_that_they_opened() {
    let folder = Folder::new();
    for (name, other) in PAIRS {
        let format = Format::of_name(Path::new(name)).unwrap();
        let replaced = |folder: &Folder| {
            let path = image(folder, name, SIZE, 1);
            let other = image(folder, other, 2 * SIZE, 2);
            replaced_when_opened(folder, &path, other);
            path
        };
        let found = info(&replaced(&folder), None, Parents::Named).unwrap();
        assert_eq!((found.format, found.virtual_size), (format, SIZE), "{name}");
        for repair in [false, true] {
            let report = check(&replaced(&folder), None, repair, Parents::Named).unwrap();
            assert!(report.is_sound() && report.format == format, "{name}: {report}");
        }
        let target = folder.unique("target.img");
        convert(&replaced(&folder), &target, &ConvertOptions::to(Format::Raw), &mut |_| ())
            .unwrap();
        let bytes = std::fs::read(&target).unwrap();
        assert_eq!((bytes.len() as u64, bytes[0]), (SIZE, 1), "{name}");
    }
}

#[test]
fn test_parent_replaced_when_opened_stays_in_use_and_locked() {
    let folder = Folder::new();
    let parent = image(&folder, "parent.vhdx", SIZE, 1);
    let other = image(&folder, "other.vhdx", SIZE, 2);
    let child = folder.unique("child.vhdx");
    let options = CreateOptions::child(Format::Vhdx, parent.clone());
    create(&child, &options).unwrap();
    let kept = folder.unique("kept");
    hard_link(&parent, &kept).unwrap();
    // The child is opened before its parent.
    after_next_open(move |_| {
        after_next_open(move |opened| rename(other, opened).unwrap());
    });
    let disk = open(&child, &OpenOptions::default()).unwrap();
    assert_eq!(read(&disk, 0, 4096), vec![1; 4096]);
    assert!(matches!(RawFile::open(&kept, false), Err(OpenError::Locked { .. })));
}
