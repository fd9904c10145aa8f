//! The other files of a qcow2 image: data files and backing files are locked like the image, and
//! the locked file is the file in use.

mod common;

use std::path::{Path, PathBuf};

use common::{Folder, flush, qemu, read, text, write};
use synthvm_block::conformance::over;
use synthvm_block::{Operation, RawFile};
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, check, create, open};

const MIB: usize = 1 << 20;

fn with_data_file(folder: &Folder, options: &str) -> (PathBuf, PathBuf) {
    let (path, data) = (folder.unique("image.qcow2"), folder.unique("data.raw"));
    let options = format!("data_file={},{options}", text(&data));
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &options, text(&path), "8M"]);
    (path, data)
}

fn reading() -> OpenOptions {
    OpenOptions { read_only: true, ..OpenOptions::default() }
}

#[test]
fn test_data_file_of_a_writable_image_is_locked_exclusively() {
    let folder = Folder::new();
    let (path, data) = with_data_file(&folder, "data_file_raw=on");
    let image = open(&path, &OpenOptions::default()).unwrap();
    for read_only in [false, true] {
        let error = RawFile::open(&data, read_only).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains(text(&data)), "{error}");
    }
    // A second image over the same data.
    let other = folder.join("other.qcow2");
    std::fs::copy(&path, &other).unwrap();
    let error = open(&other, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("in use") && error.contains(text(&data)), "{error}");
    drop(image);
    open(&other, &OpenOptions::default()).unwrap();
}

#[test]
fn test_data_file_of_a_read_only_image_is_shared_by_readers() {
    let folder = Folder::new();
    let (path, data) = with_data_file(&folder, "data_file_raw=on");
    let first = open(&path, &reading()).unwrap();
    let second = open(&path, &reading()).unwrap();
    RawFile::open(&data, true).unwrap();
    assert!(RawFile::open(&data, false).is_err(), "no writer beside readers");
    assert_eq!(read(&first, 0, 512), read(&second, 0, 512));
}

#[test]
fn test_data_file_is_written_in_place_and_agrees_with_qemu() {
    let folder = Folder::new();
    for options in
        ["data_file_raw=on", "data_file_raw=off", "data_file_raw=on,preallocation=metadata"]
    {
        let (path, data) = with_data_file(&folder, options);
        let image = open(&path, &OpenOptions::default()).unwrap();
        let mut expected = vec![0; 8 * MIB];
        for (at, length, value) in
            [(0, 512, 1), (65536 * 3 + 512, 65536, 2), (8 * MIB - 512, 512, 3), (MIB, MIB, 4)]
        {
            write(&image, at as u64, vec![value; length]);
            expected[at..at + length].fill(value);
        }
        over(&mut *image.queue().unwrap(), Operation::Discard, MIB as u64, 65536).unwrap();
        expected[MIB..MIB + 65536].fill(0);
        over(
            &mut *image.queue().unwrap(),
            Operation::WriteZeroes { unmap: false },
            MIB as u64 + 65536,
            512,
        )
        .unwrap();
        expected[MIB + 65536..MIB + 65536 + 512].fill(0);
        flush(&image);
        drop(image);
        qemu("qemu-img", &["check", "-f", "qcow2", text(&path)]);
        assert!(check(&path, None, false, Parents::Named).unwrap().is_sound());
        let back = folder.unique("back.raw");
        qemu("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&path), text(&back)]);
        assert!(std::fs::read(&back).unwrap() == expected, "{options}");
        let image = open(&path, &reading()).unwrap();
        assert!(read(&image, 0, 8 * MIB) == expected, "{options}");
        if options.contains("raw=on") {
            assert!(
                std::fs::read(&data).unwrap() == expected,
                "the data file is a raw image: {options}"
            );
        }
    }
}

#[test]
fn test_old_content_of_a_data_file_does_not_show_through() {
    let folder = Folder::new();
    let (path, data) = with_data_file(&folder, "data_file_raw=off");
    std::fs::write(&data, vec![0xEE; 8 * MIB]).unwrap();
    let image = open(&path, &OpenOptions::default()).unwrap();
    assert!(read(&image, 0, MIB) == vec![0; MIB], "nothing is allocated");
    write(&image, 65536 + 4096, vec![1; 512]);
    let mut expected = vec![0; 65536];
    expected[4096..4096 + 512].fill(1);
    assert!(read(&image, 65536, 65536) == expected);
}

#[test]
fn test_data_file_is_refused_where_an_image_brings_no_files_along() {
    let folder = Folder::new();
    let (path, data) = with_data_file(&folder, "data_file_raw=on");
    let refuse = OpenOptions { parents: Parents::Refuse, ..OpenOptions::default() };
    for there in [true, false] {
        if !there {
            std::fs::remove_file(&data).unwrap();
        }
        let error = open(&path, &refuse).unwrap_err().to_string();
        assert!(error.contains("parents=refuse") && error.contains(text(&data)), "{error}");
    }
}

/// A file that takes the image's name after it was locked is another image, which is not locked.
#[test]
fn test_file_that_was_locked_is_the_file_in_use_whatever_has_its_name() {
    let folder = Folder::new();
    let path = folder.join("image.qcow2");
    create(&path, &CreateOptions::new(Format::Qcow2, 8 << 20)).unwrap();
    let image = open(&path, &OpenOptions::default()).unwrap();
    let moved = folder.join("moved.qcow2");
    std::fs::rename(&path, &moved).unwrap();
    create(&path, &CreateOptions::new(Format::Qcow2, 8 << 20)).unwrap();
    let before = std::fs::read(&path).unwrap();
    write(&image, 0, vec![7; MIB]);
    image.resize(16 << 20).unwrap();
    flush(&image);
    drop(image);
    assert!(std::fs::read(&path).unwrap() == before, "the file of that name is as it was");
    let image = open(&moved, &reading()).unwrap();
    assert!(read(&image, 0, MIB) == vec![7; MIB]);
    assert_eq!(image.geometry().capacity, 16 << 20);
}

#[test]
fn test_backing_file_is_locked_for_readers() {
    let folder = Folder::new();
    let base = folder.join("base.qcow2");
    create(&base, &CreateOptions::new(Format::Qcow2, 8 << 20)).unwrap();
    let top = |name: &str| {
        let path = folder.join(name);
        let options = CreateOptions::child(Format::Qcow2, base.clone());
        create(&path, &options).unwrap();
        path
    };
    let open = |path: &Path| open(path, &OpenOptions::default());
    let (first, second) = (open(&top("a.qcow2")).unwrap(), open(&top("b.qcow2")).unwrap());
    let error = open(&base).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    drop((first, second));
    open(&base).unwrap();
}
