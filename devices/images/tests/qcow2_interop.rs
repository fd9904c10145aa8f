//! qcow2 of all kinds, written alternately by this crate and by QEMU.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::qcow2::{SIZE, assert_content, assert_intact, assert_sound, make, qemu_io, reading};
use common::{Folder, Random, flush, qemu, read, text, write};
use synthvm_block::conformance::over;
use synthvm_block::{Backend, CacheMode, Operation};
use synthvm_images::{OpenOptions, open};

/// Executes writes, zeroing and discards at random offsets.
fn change(image: &Arc<dyn Backend>, expected: &mut [u8], random: &mut Random, steps: u64) {
    for _ in 0..steps {
        let length = (1 + random.below(300)) * 512;
        let at = random.below((expected.len() as u64 - length) / 512) * 512;
        let range = at as usize..(at + length) as usize;
        let clearing = match random.below(6) {
            0 => Some(Operation::WriteZeroes { unmap: false }),
            1 => Some(Operation::WriteZeroes { unmap: true }),
            2 if image.geometry().discard.is_some() => Some(Operation::Discard),
            _ => None,
        };
        if let Some(operation) = clearing {
            over(&mut *image.queue().unwrap(), operation, at, length).unwrap();
            expected[range].fill(0);
        } else {
            let bytes = random.bytes(length as usize);
            expected[range].copy_from_slice(&bytes);
            write(image, at, bytes);
        }
    }
    flush(image);
}

/// Changes the disk in the file at `path`, which is closed afterwards.
fn change_file(path: &Path, expected: &mut [u8], random: &mut Random, steps: u64) {
    let image = open(path, &OpenOptions::default()).unwrap();
    change(&image, expected, random, steps);
}

const KINDS: [&str; 12] = [
    "compat=0.10",
    "compat=0.10,cluster_size=512",
    "compat=1.1,cluster_size=512",
    "compat=1.1,cluster_size=2M",
    "refcount_bits=1",
    "refcount_bits=2,cluster_size=1k",
    "refcount_bits=4,cluster_size=4k",
    "refcount_bits=8",
    "refcount_bits=32,cluster_size=512",
    "refcount_bits=64,cluster_size=2k",
    "lazy_refcounts=on",
    "preallocation=metadata",
];

#[test]
fn test_image_of_every_kind_is_written_here_and_by_qemu_in_turns() {
    let folder = Folder::new();
    for kind in KINDS {
        let path = make(&folder, kind);
        let mut expected = vec![0; SIZE as usize];
        let mut random = Random(11);
        for round in 0..3_u8 {
            change_file(&path, &mut expected, &mut random, 25);
            assert_sound(&path, kind);
            for _ in 0..3 {
                let at = random.below(SIZE / 65536) * 65536;
                qemu_io(&path, &format!("write -P {} {at} 65536", round + 1));
                expected[at as usize..][..65536].fill(round + 1);
            }
            qemu_io(&path, "discard 1M 1M");
            expected[1 << 20..2 << 20].fill(0);
            // Version 2 does not promise zeroes.
            qemu_io(&path, "write -z 1M 1M");
        }
        assert_intact(&path, &expected, kind);
    }
}

#[test]
fn test_internal_snapshot_keeps_its_content_while_the_disk_is_written() {
    let folder = Folder::new();
    for kind in ["compat=1.1", "compat=0.10,cluster_size=4k", "refcount_bits=2,cluster_size=512"] {
        let path = make(&folder, kind);
        let mut expected = vec![0; SIZE as usize];
        let mut random = Random(5);
        change_file(&path, &mut expected, &mut random, 20);
        let snapshot = expected.clone();
        qemu("qemu-img", &["snapshot", "-c", "before", text(&path)]);
        change_file(&path, &mut expected, &mut random, 60);
        assert_intact(&path, &expected, kind);
        qemu("qemu-img", &["snapshot", "-a", "before", text(&path)]);
        assert_content(&path, &snapshot, kind);
        qemu("qemu-img", &["snapshot", "-d", "before", text(&path)]);
        assert_sound(&path, kind);
    }
}

/// Files of QEMU may end in the middle of a sector, after a table or a name.
#[test]
fn test_last_bytes_of_a_file_of_no_whole_sectors_are_kept() {
    let folder = Folder::new();
    let path = make(&folder, "compat=1.1");
    qemu_io(&path, "write -P 1 0 64k");
    qemu("qemu-img", &["snapshot", "-c", "before", text(&path)]);
    let before = std::fs::read(&path).unwrap();
    assert_ne!(before.len() % 512, 0);
    drop(open(&path, &reading()).unwrap());
    drop(open(&path, &OpenOptions::default()).unwrap());
    assert!(std::fs::read(&path).unwrap() == before, "opening changes nothing");
    let image = open(&path, &OpenOptions::default()).unwrap();
    write(&image, 0, vec![2; 512]);
    drop(image);
    let last = before.len() / 512 * 512;
    assert!(std::fs::read(&path).unwrap()[last..before.len()] == before[last..]);
}

/// A file that was truncated within a cluster: the remaining bytes are read, and the others are
/// zero.
#[test]
fn test_cluster_that_the_file_ends_in_is_read_as_far_as_it_is_there() {
    let folder = Folder::new();
    let path = make(&folder, "compat=1.1");
    qemu_io(&path, "write -P 7 0 64k");
    let content = std::fs::read(&path).unwrap();
    let begin = content.iter().rposition(|&byte| byte != 7).unwrap() + 1;
    assert_eq!(begin % 65536, 0);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(begin as u64 + 1000).unwrap();
    let mut expected = vec![0; 65536];
    expected[..1000].fill(7);
    let image = open(&path, &reading()).unwrap();
    assert!(read(&image, 0, 65536) == expected);
    assert!(read(&image, 512, 1024) == expected[512..1536]);
    drop(image);
    let image = open(&path, &OpenOptions::default()).unwrap();
    assert!(read(&image, 0, 65536) == expected);
    write(&image, 4096, vec![1; 512]);
    expected[4096..4096 + 512].fill(1);
    assert!(read(&image, 0, 65536) == expected);
}

fn compressible(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..SIZE / 4096).flat_map(|_| [random.below(7) as u8].repeat(4096)).collect()
}

#[test]
fn test_compressed_image_is_read_and_overwritten() {
    let folder = Folder::new();
    for kind in [
        "compression_type=zlib",
        "compression_type=zstd",
        "compression_type=zlib,cluster_size=4k",
        "compression_type=zstd,cluster_size=2M",
    ] {
        let (raw, path) = (folder.unique("raw"), folder.unique("image.qcow2"));
        let mut expected = compressible(3);
        std::fs::write(&raw, &expected).unwrap();
        qemu(
            "qemu-img",
            &["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", kind, text(&raw), text(&path)],
        );
        assert_content(&path, &expected, kind);
        change_file(&path, &mut expected, &mut Random(9), 80);
        assert_intact(&path, &expected, kind);
    }
}

#[test]
fn test_image_over_any_backing_file_shows_it_and_is_written_above_it() {
    let folder = Folder::new();
    let short = SIZE - (3 << 20) - 512;
    let bytes = Random(21).bytes(short as usize);
    let raw = folder.join("base.raw");
    std::fs::write(&raw, &bytes).unwrap();
    for (format, options) in [
        ("raw", ""),
        ("qcow2", "cluster_size=4k"),
        ("qcow2", "compat=0.10"),
        ("vhdx", "block_size=1M"),
    ] {
        for top in [
            "compat=1.1",
            "compat=0.10",
            "compat=1.1,cluster_size=512",
            "compat=1.1,cluster_size=1M",
        ] {
            let base = folder.unique(&format!("base.{format}"));
            let mut convert = vec!["convert", "-f", "raw", "-O", format, text(&raw), text(&base)];
            if !options.is_empty() {
                convert.extend(["-o", options]);
            }
            qemu("qemu-img", &convert);
            let before = std::fs::read(&base).unwrap();
            let path =
                make(&folder, &format!("{top},backing_file={},backing_fmt={format}", text(&base)));
            let mut expected = bytes.clone();
            // A VHDX has whole MiB.
            expected.resize(SIZE as usize, 0);
            let what = format!("{top} over {format}");
            assert_content(&path, &expected, &what);
            change_file(&path, &mut expected, &mut Random(4), 40);
            assert_intact(&path, &expected, &what);
            assert!(
                std::fs::read(&base).unwrap() == before,
                "{what}: the backing file is as it was"
            );
        }
    }
}

#[test]
fn test_writers_of_parts_of_one_cluster_over_a_backing_file_lose_nothing() {
    let folder = Folder::new();
    let base = folder.join("base.raw");
    let mut expected = Random(8).bytes(4 << 20);
    std::fs::write(&base, &expected).unwrap();
    let options = format!("cluster_size=1M,backing_file={},backing_fmt=raw", text(&base));
    let path = folder.join("top.qcow2");
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &options, text(&path), "4M"]);
    let image = open(&path, &OpenOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let image = &image;
            scope.spawn(move || {
                for sector in (writer..8192).step_by(4).filter(|sector| sector % 13 < 5) {
                    write(image, sector * 512, vec![writer as u8 + 1; 512]);
                }
            });
        }
    });
    for sector in (0..8192_usize).filter(|sector| sector / 4 * 4 <= *sector) {
        if sector % 13 < 5 {
            expected[sector * 512..][..512].fill((sector % 4) as u8 + 1);
        }
    }
    flush(&image);
    assert!(read(&image, 0, 4 << 20) == expected);
    drop(image);
    assert_content(&path, &expected, "after it was closed");
    assert_sound(&path, "closed");
}

#[test]
fn test_disk_grows_and_shrinks_and_what_is_new_is_zero() {
    let folder = Folder::new();
    let base = folder.join("base.raw");
    std::fs::write(&base, Random(2).bytes(SIZE as usize)).unwrap();
    let over = |top: &str| format!("{top},backing_file={},backing_fmt=raw", text(&base));
    for kind in [
        "compat=1.1".to_owned(),
        "cluster_size=512".to_owned(),
        "compat=0.10".to_owned(),
        over("compat=1.1"),
        over("compat=0.10"),
    ] {
        let path = make(&folder, &kind);
        let mut expected = if kind.contains("backing") {
            std::fs::read(&base).unwrap()
        } else {
            vec![0; SIZE as usize]
        };
        let mut random = Random(6);
        for size in [SIZE / 2 + 512, SIZE * 2, SIZE - 4096, SIZE * 4, SIZE * 4 + 512] {
            let image = open(&path, &OpenOptions::default()).unwrap();
            change(&image, &mut expected, &mut random, 10);
            image.resize(size).unwrap();
            expected.resize(size as usize, 0);
            change(&image, &mut expected, &mut random, 10);
            drop(image);
            assert_content(&path, &expected, &format!("{kind}, {size}"));
            assert_sound(&path, &kind);
        }
    }
}

#[test]
fn test_subclusters_are_read_and_not_written() {
    let folder = Folder::new();
    let base = folder.join("base.raw");
    let mut expected = Random(2).bytes(SIZE as usize);
    std::fs::write(&base, &expected).unwrap();
    let path =
        make(&folder, &format!("extended_l2=on,backing_file={},backing_fmt=raw", text(&base)));
    for (at, value) in [(0, 1), (2048 * 5, 2), (65536 + 2048, 3), (1 << 20, 4)] {
        qemu_io(&path, &format!("write -P {value} {at} 2048"));
        expected[at..at + 2048].fill(value);
    }
    qemu_io(&path, "write -z 4096 2048");
    expected[4096..4096 + 2048].fill(0);
    assert_content(&path, &expected, "subclusters");
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("extended L2") && error.contains("readonly=on"), "{error}");
}

#[test]
fn test_image_with_direct_io_is_the_same() {
    let folder = Folder::new();
    for kind in ["cluster_size=512", "cluster_size=64k"] {
        let path = make(&folder, kind);
        let options = OpenOptions { cache: CacheMode::None, ..OpenOptions::default() };
        // If the file system has no direct I/O, the test cannot run.
        let Ok(image) = open(&path, &options) else { return };
        let mut expected = vec![0; SIZE as usize];
        change(&image, &mut expected, &mut Random(3), 60);
        drop(image);
        assert_intact(&path, &expected, kind);
    }
}

#[test]
fn test_version_2_offers_no_discard_and_takes_zeroes_as_data() {
    let folder = Folder::new();
    let base = folder.join("base.raw");
    std::fs::write(&base, Random(2).bytes(SIZE as usize)).unwrap();
    let path = make(&folder, &format!("compat=0.10,backing_file={},backing_fmt=raw", text(&base)));
    let image = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(image.geometry().discard, None);
    let mut expected = std::fs::read(&base).unwrap();
    for (unmap, at, length) in
        [(false, 512, 1024), (true, 1 << 20, 1 << 20), (true, (4 << 20) - 512, (3 << 20) + 1024)]
    {
        over(&mut *image.queue().unwrap(), Operation::WriteZeroes { unmap }, at, length).unwrap();
        expected[at as usize..(at + length) as usize].fill(0);
    }
    drop(image);
    assert_intact(&path, &expected, "zeroes");
}
