//! qcow2 images that were not closed, that are refused, and of the largest size.

mod common;

use common::qcow2::{SIZE, assert_intact, assert_sound, make, reading};
use common::{Folder, flush, qemu, read, text, write};
use synthvm_block::IoError;
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, check, create, open};

#[test]
fn test_image_that_qemu_left_dirty_is_repaired_when_it_is_written_and_only_read_when_not() {
    let folder = Folder::new();
    let path = make(&folder, "lazy_refcounts=on");
    // The program is stopped before it writes any count.
    let script =
        format!("qemu-io -f qcow2 -c 'write -P 5 0 3M' -c 'flush' -c 'abort' '{}'", text(&path));
    let _ = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(before[79] & 1, 1, "it is marked as dirty");
    let report = check(&path, None, false, Parents::Named).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("not closed")), "{report}");
    let image = open(&path, &reading()).unwrap();
    assert!(read(&image, 0, 3 << 20) == vec![5; 3 << 20]);
    drop(image);
    assert!(std::fs::read(&path).unwrap() == before, "reading changes nothing");
    let image = open(&path, &OpenOptions::default()).unwrap();
    write(&image, 8 << 20, vec![6; 1 << 20]);
    drop(image);
    let mut expected = vec![0; SIZE as usize];
    expected[..3 << 20].fill(5);
    expected[8 << 20..9 << 20].fill(6);
    assert_intact(&path, &expected, "repaired");
}

#[test]
fn test_image_is_marked_as_dirty_from_the_first_write_until_it_is_closed() {
    let folder = Folder::new();
    let path = folder.join("image.qcow2");
    create(&path, &CreateOptions::new(Format::Qcow2, SIZE)).unwrap();
    let dirty = || std::fs::read(&path).unwrap()[79] & 1 != 0;
    let image = open(&path, &OpenOptions::default()).unwrap();
    read(&image, 0, 4096);
    flush(&image);
    assert!(!dirty(), "only read");
    write(&image, 0, vec![1; 512]);
    assert!(dirty());
    drop(image);
    assert!(!dirty(), "closed");
    assert_sound(&path, "closed");
}

#[test]
fn test_bitmaps_that_are_not_kept_up_are_marked_so() {
    let folder = Folder::new();
    let path = make(&folder, "compat=1.1");
    qemu("qemu-img", &["bitmap", "--add", text(&path), "changes"]);
    assert_eq!(std::fs::read(&path).unwrap()[95] & 1, 1);
    let image = open(&path, &OpenOptions::default()).unwrap();
    write(&image, 0, vec![1; 512]);
    drop(image);
    assert_eq!(std::fs::read(&path).unwrap()[95] & 1, 0);
    let report = check(&path, None, false, Parents::Named).unwrap();
    assert!(
        report.is_sound() && report.notes.iter().any(|note| note.contains("bitmaps")),
        "{report}"
    );
}

#[test]
fn test_encrypted_corrupt_and_unknown_images_are_refused_with_advice() {
    let folder = Folder::new();
    let patch = |at: usize, bytes: &[u8]| {
        let path = make(&folder, "compat=1.1");
        let mut content = std::fs::read(&path).unwrap();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, content).unwrap();
        path
    };
    for (at, bytes, expected) in [
        (35, &[1_u8][..], "encrypted"),
        (79, &[2], "corrupt"),
        (78, &[1], "incompatible features 0x100"),
        (79, &[8], "unsupported compression"),
        (7, &[4], "version 4"),
    ] {
        let path = patch(at, bytes);
        let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("qemu-img"), "{error}");
    }
    open(&patch(79, &[2]), &reading()).unwrap();
}

#[test]
fn test_chain_of_backing_files_at_its_limit_opens_and_one_past_it_is_refused() {
    let folder = Folder::new();
    let mut path = folder.join("0.qcow2");
    create(&path, &CreateOptions::new(Format::Qcow2, 1 << 20)).unwrap();
    write(&open(&path, &OpenOptions::default()).unwrap(), 0, vec![9; 512]);
    for depth in 1..=33 {
        let child = folder.join(&format!("{depth}.qcow2"));
        let options = format!("backing_file={},backing_fmt=qcow2", text(&path));
        qemu(
            "qemu-img",
            &["create", "-q", "-u", "-f", "qcow2", "-o", &options, text(&child), "1M"],
        );
        path = child;
        match open(&path, &reading()) {
            Ok(image) => {
                assert!(depth <= 32, "{depth} files below");
                assert!(read(&image, 0, 512) == vec![9; 512]);
            }
            Err(error) => {
                assert!(
                    depth > 32 && error.to_string().contains("longer than 32"),
                    "{depth}: {error}"
                );
            }
        }
    }
}

#[test]
fn test_disk_beyond_the_largest_table_is_refused() {
    let folder = Folder::new();
    // 32 MiB of entries for 64 tables of 32 KiB each.
    let limit = (32 << 20) / 8 * (512 / 8) * 512;
    let options = |size| CreateOptions::new(Format::Qcow2, size).with_block_size(512);
    let path = folder.join("limit.qcow2");
    create(&path, &options(limit)).unwrap();
    let image = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(image.resize(limit + 512), Err(IoError::NoSpace));
    write(&image, limit - 512, vec![1; 512]);
    drop(image);
    let error = create(&folder.join("past.qcow2"), &options(limit + 512)).unwrap_err().to_string();
    assert!(error.contains("--size") && error.contains("--block-size"), "{error}");
}
