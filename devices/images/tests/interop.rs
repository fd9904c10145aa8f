//! QEMU reads the images of this crate, and this crate reads QEMU's.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Folder, Random, flush, qemu, read, text, write};
use synthvm_block::conformance::over;
use synthvm_block::{Backend, Operation};
use synthvm_images::{
    ConvertOptions, CreateOptions, Format, OpenOptions, Parents, check, convert, create, info, open,
};

const SIZE: u64 = 96 << 20;

/// Returns a raw file with data in some parts, and zeroes between them.
fn sample(folder: &Folder, seed: u64) -> std::path::PathBuf {
    let path = folder.unique("sample.raw");
    let mut random = Random(seed);
    let mut bytes = vec![0; SIZE as usize];
    for _ in 0..60 {
        let length = (1 + random.below(400)) as usize * 512;
        let at = random.below((SIZE - length as u64) / 512) as usize * 512;
        bytes[at..at + length].copy_from_slice(&random.bytes(length));
    }
    // The last sector too.
    bytes[SIZE as usize - 512..].copy_from_slice(&random.bytes(512));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn assert_same_content(backend: &Arc<dyn Backend>, raw: &Path) {
    let expected = std::fs::read(raw).unwrap();
    for (index, expected) in expected.chunks(4 << 20).enumerate() {
        let at = index as u64 * (4 << 20);
        assert!(read(backend, at, expected.len()) == expected, "from {at} on");
    }
}

/// QEMU's name of a format, and its options.
const QEMU_KINDS: [(&str, Format, &str, &str); 6] = [
    ("vhdx", Format::Vhdx, "a.vhdx", "subformat=dynamic,block_size=1M"),
    ("vhdx", Format::Vhdx, "b.vhdx", "subformat=fixed"),
    ("vpc", Format::Vhd, "c.vhd", "subformat=fixed,force_size=on"),
    ("vpc", Format::Vhd, "d.vhd", "subformat=dynamic,force_size=on"),
    ("qcow2", Format::Qcow2, "e.qcow2", "compat=1.1"),
    ("qcow2", Format::Qcow2, "f.qcow2", "compat=0.10,cluster_size=4k"),
];

#[test]
fn test_images_made_by_qemu_are_read_here() {
    let folder = Folder::new();
    let raw = sample(&folder, 1);
    for (qemu_format, format, name, options) in QEMU_KINDS {
        let path = folder.join(name);
        qemu("qemu-img", &["convert", "-O", qemu_format, "-o", options, text(&raw), text(&path)]);
        let image = open(&path, &OpenOptions::reading(None)).unwrap();
        assert_eq!(image.geometry().capacity, SIZE, "{name}");
        assert_same_content(&image, &raw);
        let info = info(&path, None, Parents::Named).unwrap();
        assert_eq!((info.format, info.virtual_size), (format, SIZE));
        assert!(check(&path, None, false, Parents::Named).unwrap().is_sound());
    }
}

#[test]
fn test_compressed_qcow2_is_read_and_its_copies_are_counted() {
    let folder = Folder::new();
    let path = folder.join("c.qcow2");
    // Bytes that can be compressed.
    let raw = folder.join("c.raw");
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 4096 % 7) as u8).collect();
    std::fs::write(&raw, bytes).unwrap();
    qemu("qemu-img", &["convert", "-c", "-O", "qcow2", text(&raw), text(&path)]);
    let image = open(&path, &OpenOptions::reading(None)).unwrap();
    assert_same_content(&image, &raw);
    let buffer = synthvm_block::IoBuffer::from_vec(vec![0; 65536]);
    let request = synthvm_block::Request::new(1, Operation::Read, 65536, 65536, buffer);
    let done = synthvm_block::conformance::run(&mut *image.queue().unwrap(), vec![request]);
    assert_eq!(done[0].copied, 65536);
}

/// The kinds of images of this crate, and QEMU's name of their format.
fn our_kinds() -> Vec<(&'static str, &'static str, CreateOptions)> {
    let new = |format| CreateOptions::new(format, SIZE);
    vec![
        ("dynamic.vhdx", "vhdx", CreateOptions { block_size: Some(1 << 20), ..new(Format::Vhdx) }),
        ("default.vhdx", "vhdx", new(Format::Vhdx)),
        ("fixed.vhdx", "vhdx", CreateOptions { fixed: true, ..new(Format::Vhdx) }),
        ("fixed.vhd", "vpc", CreateOptions { fixed: true, ..new(Format::Vhd) }),
        ("disk.qcow2", "qcow2", new(Format::Qcow2)),
        ("small.qcow2", "qcow2", CreateOptions { block_size: Some(4096), ..new(Format::Qcow2) }),
    ]
}

#[test]
fn test_images_after_random_writes_here_are_sound_and_the_same_for_qemu() {
    let folder = Folder::new();
    for (name, qemu_format, options) in our_kinds() {
        let path = folder.join(name);
        create(&path, &options).unwrap();
        let image = open(&path, &OpenOptions::default()).unwrap();
        let mut expected = vec![0; SIZE as usize];
        let mut random = Random(7);
        for _ in 0..300 {
            let length = (1 + random.below(600)) * 512;
            let at = random.below((SIZE - length) / 512) * 512;
            let range = at as usize..(at + length) as usize;
            let operation = [
                Operation::Discard,
                Operation::WriteZeroes { unmap: true },
                Operation::WriteZeroes { unmap: false },
            ];
            match random.below(8) {
                // Some steps release whole blocks.
                0 => {
                    let block = at >> 20 << 20;
                    over(&mut *image.queue().unwrap(), operation[0], block, 1 << 20).unwrap();
                    if image.geometry().discard.is_some() {
                        expected[block as usize..][..1 << 20].fill(0);
                    }
                }
                kind @ 1..=2 => {
                    over(&mut *image.queue().unwrap(), operation[kind as usize], at, length)
                        .unwrap();
                    expected[range].fill(0);
                }
                _ => {
                    let bytes = random.bytes(length as usize);
                    expected[range].copy_from_slice(&bytes);
                    write(&image, at, bytes);
                }
            }
        }
        flush(&image);
        drop(image);
        if qemu_format != "vpc" {
            qemu("qemu-img", &["check", "-f", qemu_format, text(&path)]);
        }
        let back = folder.unique("back.raw");
        qemu("qemu-img", &["convert", "-f", qemu_format, "-O", "raw", text(&path), text(&back)]);
        assert!(std::fs::read(&back).unwrap() == expected, "{name}");
        let report = check(&path, None, false, Parents::Named).unwrap();
        assert!(report.is_sound(), "{report}");
    }
}

#[test]
fn test_vhdx_written_by_both_in_turns_stays_sound() {
    let folder = Folder::new();
    let path = folder.join("turns.vhdx");
    create(&path, &CreateOptions::new(Format::Vhdx, SIZE).with_block_size(1 << 20)).unwrap();
    let mut expected = vec![0; SIZE as usize];
    let mut random = Random(99);
    for round in 0..6_u8 {
        let image = open(&path, &OpenOptions::default()).unwrap();
        for _ in 0..10 {
            let at = random.below(SIZE / 4096) * 4096;
            let bytes = random.bytes(4096);
            expected[at as usize..][..4096].copy_from_slice(&bytes);
            write(&image, at, bytes);
        }
        flush(&image);
        drop(image);
        for _ in 0..5 {
            let (at, value) = (random.below(SIZE / 65536) * 65536, round + 1);
            qemu(
                "qemu-io",
                &["-f", "vhdx", "-c", &format!("write -P {value} {at} 65536"), text(&path)],
            );
            expected[at as usize..][..65536].fill(value);
        }
        qemu("qemu-img", &["check", "-f", "vhdx", text(&path)]);
        let image = open(&path, &OpenOptions::reading(None)).unwrap();
        for (index, expected) in expected.chunks(1 << 20).enumerate() {
            assert!(
                read(&image, (index as u64) << 20, 1 << 20) == expected,
                "round {round}, block {index}"
            );
        }
    }
}

#[test]
fn test_conversion_keeps_content_size_and_holes() {
    let folder = Folder::new();
    let raw = sample(&folder, 3);
    for to in [Format::Vhdx, Format::Vhd, Format::Qcow2, Format::Raw] {
        let path = folder.join(&format!("to.{to}"));
        let mut last = 0;
        let state = convert(&raw, &path, &ConvertOptions::to(to), &mut |progress| {
            assert!(progress.done >= last && progress.done <= progress.total);
            last = progress.done;
        })
        .unwrap();
        assert_eq!((last, state.total), (SIZE, SIZE));
        assert!(state.written < SIZE / 2, "holes are left out: {}", state.written);
        assert_same_content(&open(&path, &OpenOptions::reading(None)).unwrap(), &raw);
        let format = if to == Format::Vhd { "vpc" } else { to.name() };
        let compared =
            qemu("qemu-img", &["compare", "-f", "raw", "-F", format, text(&raw), text(&path)]);
        assert!(compared.contains("identical"), "{compared}");
        // No file is overwritten, and no temporary file is left.
        assert!(
            convert(&raw, &path, &ConvertOptions::to(to), &mut |_| {})
                .unwrap_err()
                .to_string()
                .contains("exists already")
        );
        let back = folder.unique("back.raw");
        convert(&path, &back, &ConvertOptions::to(Format::Raw), &mut |_| {}).unwrap();
        assert!(std::fs::read(&back).unwrap() == std::fs::read(&raw).unwrap());
    }
    assert!(!folder_has_partial(&raw));
}

fn folder_has_partial(path: &Path) -> bool {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name())
        .any(|name| name.to_string_lossy().ends_with(".partial"))
}

#[test]
fn test_qcow2_over_a_backing_file_shows_it_and_leaves_it_alone() {
    let folder = Folder::new();
    let raw = sample(&folder, 5);
    let base = folder.join("base.qcow2");
    convert(&raw, &base, &ConvertOptions::to(Format::Qcow2), &mut |_| {}).unwrap();
    let before = std::fs::read(&base).unwrap();
    let path = folder.join("top.qcow2");
    let options = CreateOptions::child(Format::Qcow2, base.clone());
    create(&path, &options).unwrap();
    let image = open(&path, &OpenOptions::default()).unwrap();
    assert_same_content(&image, &raw);
    write(&image, 512, vec![0xEE; 4096]);
    flush(&image);
    drop(image);
    assert!(std::fs::read(&base).unwrap() == before);
    let mut expected = std::fs::read(&raw).unwrap();
    expected[512..512 + 4096].fill(0xEE);
    let back = folder.join("back.raw");
    qemu("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&path), text(&back)]);
    assert!(std::fs::read(&back).unwrap() == expected);
    qemu("qemu-img", &["check", "-f", "qcow2", text(&path)]);
}

#[test]
fn test_a_raw_image_that_looks_like_another_format_is_not_guessed_at() {
    let folder = Folder::new();
    let path = folder.join("guest.img");
    qemu("qemu-img", &["create", "-f", "qcow2", text(&path), "1M"]);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("looks like qcow2") && error.contains("format=raw"), "{error}");
    let as_raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    assert_eq!(
        open(&path, &as_raw).unwrap().geometry().capacity,
        std::fs::metadata(&path).unwrap().len()
    );
}
