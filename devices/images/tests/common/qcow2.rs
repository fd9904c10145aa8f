//! Helpers for several tests of qcow2 images.

use std::path::{Path, PathBuf};

use synthvm_images::{OpenOptions, Parents, check, open};

use super::{Folder, qemu, read, text};

/// Bytes of each disk.
pub(crate) const SIZE: u64 = 12 << 20;

pub(crate) fn reading() -> OpenOptions {
    OpenOptions { read_only: true, ..OpenOptions::default() }
}

pub(crate) fn make(folder: &Folder, options: &str) -> PathBuf {
    let path = folder.unique("image.qcow2");
    qemu(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", options, text(&path), &SIZE.to_string()],
    );
    path
}

pub(crate) fn qemu_io(path: &Path, command: &str) {
    qemu("qemu-io", &["-f", "qcow2", "-c", command, text(path)]);
}

/// Checks that the image shows `expected` and is sound.
pub(crate) fn assert_intact(path: &Path, expected: &[u8], what: &str) {
    assert_content(path, expected, what);
    assert_sound(path, what);
}

/// Checks that the image is sound for this code, and for QEMU without even a leak.
pub(crate) fn assert_sound(path: &Path, what: &str) {
    qemu("qemu-img", &["check", "-q", "-f", "qcow2", text(path)]);
    let report = check(path, None, false, Parents::Named).unwrap();
    assert!(report.is_sound() && report.leaked == 0, "{what}: {report}");
}

pub(crate) fn assert_content(path: &Path, expected: &[u8], what: &str) {
    let image = open(path, &reading()).unwrap();
    assert_eq!(image.geometry().capacity, expected.len() as u64, "{what}");
    for (index, expected) in expected.chunks(1 << 20).enumerate() {
        assert!(
            read(&image, (index as u64) << 20, expected.len()) == expected,
            "{what}: MiB {index}"
        );
    }
    drop(image);
    let back = path.with_extension("back");
    qemu("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(path), text(&back)]);
    assert!(std::fs::read(&back).unwrap() == expected, "{what}: as QEMU sees it");
}
