//! Damaged and hostile VHDX files: they are refused with a reason, or harmless.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{Folder, flush, write};
use proptest::prelude::*;
use synthvm_block::Operation;
use synthvm_block::conformance::one;
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, check, create, info, open};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SIZE: u64 = 8 * MIB;
const METADATA: u64 = 2 * MIB;
const BAT: u64 = 3 * MIB;
const DATA: u64 = 4 * MIB;

/// Structures with a checksum at bytes 4 to 8: begin and length.
const SEALED: [(u64, usize); 4] =
    [(64 * KIB, 4096), (128 * KIB, 4096), (192 * KIB, 65536), (256 * KIB, 65536)];

/// The offset of changed bytes, and their new values.
type Changes = Vec<(u64, Vec<u8>)>;

fn reseal(file: &File) {
    for (offset, length) in SEALED {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes[4..8].fill(0);
        let sum = crc32c::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&bytes, offset).unwrap();
    }
}

/// An image with three blocks.
fn sound(folder: &Folder) -> PathBuf {
    let path = folder.unique("hostile.vhdx");
    create(&path, &CreateOptions::new(Format::Vhdx, SIZE).with_block_size(MIB)).unwrap();
    let image = open(&path, &OpenOptions::default()).unwrap();
    for block in [0, 3, 7] {
        write(&image, block * MIB, vec![block as u8 + 1; MIB as usize]);
    }
    flush(&image);
    path
}

/// Opens the image read-only and for writing, and accesses all of it, if it opens.
fn exercise(path: &Path) -> Result<(), String> {
    for read_only in [true, false] {
        let image = open(path, &OpenOptions { read_only, ..OpenOptions::default() })
            .map_err(|e| e.to_string())?;
        let capacity = image.geometry().capacity;
        let mut queue = image.queue().unwrap();
        let block = u64::from(image.geometry().block_size.bytes());
        for offset in [0, capacity / 2 / block * block, capacity - block] {
            let _ = one(&mut *queue, Operation::Read, offset, vec![0; block as usize]);
            if !read_only {
                let write = Operation::Write { fua: false };
                let _ = one(&mut *queue, write, offset, vec![1; block as usize]);
            }
            let _ = image.extent(offset);
        }
        let _ = one(&mut *queue, Operation::Flush, 0, Vec::new());
    }
    Ok(())
}

#[test]
fn test_broken_structures_are_refused_with_their_reason() {
    let folder = Folder::new();
    let original = sound(&folder);
    let entry = |index: u64| BAT + index * 8;
    let value = |number: u64| number.to_le_bytes().to_vec();
    let both =
        |offsets: [u64; 2], bytes: Vec<u8>| offsets.map(|offset| (offset, bytes.clone())).to_vec();
    let headers = |at: u64, bytes: Vec<u8>| both([64 * KIB + at, 128 * KIB + at], bytes);
    let tables = |at: u64, bytes: Vec<u8>| both([192 * KIB + at, 256 * KIB + at], bytes);
    let item = |at: u64| METADATA + 64 * KIB + at;
    let cases: Vec<(&str, Changes)> = vec![
        ("neither of its two headers", headers(0, b"dead".to_vec())),
        ("VHDX of version 2", headers(66, vec![2, 0])),
        ("log (1048576 bytes at 4096)", headers(72, value(4096))),
        ("log (1048576 bytes at 1099511627776)", headers(72, value(1 << 40))),
        ("its log has version 3", headers(64, vec![3, 0])),
        ("neither copy of its region table", tables(0, b"dead".to_vec())),
        ("claims 4096 entries", tables(8, vec![0, 16, 0, 0])),
        ("no metadata", tables(8, vec![1, 0, 0, 0])),
        ("does not lie in the file", tables(16 + 16, value(1 << 50))),
        ("does not lie in the file", tables(16 + 16, value(u64::MAX - MIB + 1))),
        // The table is moved onto the log, which is all zero.
        ("overlaps", tables(16 + 16, value(MIB))),
        ("region of an unknown kind", tables(16, vec![9; 16])),
        ("metadata has no signature", vec![(METADATA, vec![0; 8])]),
        ("claims 3000 items", vec![(METADATA + 10, 3000_u16.to_le_bytes().to_vec())]),
        ("metadata of an unknown kind", vec![(METADATA + 32, vec![9; 16])]),
        ("does not lie in the region", vec![(METADATA + 32 + 16, vec![0xFF; 4])]),
        (
            "two metadata items",
            vec![(
                METADATA + 64,
                vec![
                    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa,
                    0x44, 0xe7, 0x6b,
                ],
            )],
        ),
        ("its blocks have 3 bytes", vec![(item(0), vec![3, 0, 0, 0])]),
        (
            "its blocks have 536870912 bytes",
            vec![(item(0), (512_u32 << 20).to_le_bytes().to_vec())],
        ),
        ("lacks the location of its parent", vec![(item(4), vec![2, 0, 0, 0])]),
        ("its disk has 0 bytes", vec![(item(64), value(0))]),
        ("its disk has 8388609 bytes", vec![(item(64), value(SIZE + 1))]),
        ("its disk has 140737488355328 bytes", vec![(item(64), value(1 << 47))]),
        // More blocks than the table has entries.
        ("but its disk needs", vec![(item(64), value(1 << 40))]),
        ("its sectors have 1024 bytes", vec![(item(192), vec![0, 4, 0, 0])]),
        ("a block at 4194304 overlaps a block", vec![(entry(1), value(DATA | 6))]),
        ("at 1048576 overlaps", vec![(entry(1), value(MIB | 6))]),
        ("at 0 overlaps", vec![(entry(1), value(6))]),
        ("lies beyond the file's end", vec![(entry(1), value(1 << 40 | 6))]),
        ("lies beyond the file's end", vec![(entry(1), value(!0 << 20 | 6))]),
        ("block 1 has the entry 0x4", vec![(entry(1), value(4))]),
        ("block 1 has the entry 0x700007", vec![(entry(1), value((7 * MIB) | 7))]),
    ];
    for (expected, changes) in cases {
        let path = folder.unique("case.vhdx");
        std::fs::copy(&original, &path).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        for (offset, bytes) in changes {
            file.write_all_at(&bytes, offset).unwrap();
        }
        reseal(&file);
        let error = open(&path, &OpenOptions::default()).expect_err(expected).to_string();
        assert!(
            error.contains(expected) && error.contains(path.to_str().unwrap()),
            "{expected}: {error}"
        );
        let report = check(&path, None, false, Parents::Named);
        assert!(report.map_or(true, |report| !report.is_sound()), "{expected}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn test_one_sound_header_and_one_sound_region_table_are_enough() {
    let folder = Folder::new();
    for offset in [64 * KIB, 128 * KIB, 192 * KIB, 256 * KIB] {
        let path = sound(&folder);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xFF; 100], offset + 20).unwrap();
        exercise(&path).unwrap();
        assert_eq!(info(&path, None, Parents::Named).unwrap().virtual_size, SIZE);
    }
}

#[test]
fn test_file_that_was_cut_off_is_refused() {
    let folder = Folder::new();
    let original = sound(&folder);
    let length = std::fs::metadata(&original).unwrap().len();
    for keep in [512, 65536, 200 * KIB, MIB, 2 * MIB, 3 * MIB + 512, length - MIB] {
        let path = folder.unique("cut.vhdx");
        std::fs::copy(&original, &path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(keep).unwrap();
        let error = exercise(&path).unwrap_err();
        assert!(error.contains("damaged"), "{keep}: {error}");
    }
}

#[test]
fn test_table_that_is_too_large_to_keep_is_refused() {
    let folder = Folder::new();
    let path = folder.join("huge.vhdx");
    // A sparse file costs its author no space.
    create(&path, &CreateOptions::new(Format::Vhdx, 63 << 40).with_block_size(MIB)).unwrap();
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("504 MiB, and at most 128 MiB are supported")
            && error.contains("larger blocks"),
        "{error}"
    );
    // One byte below the limit is accepted.
    let path = folder.join("large.vhdx");
    create(&path, &CreateOptions::new(Format::Vhdx, 63 << 40).with_block_size(4 * MIB)).unwrap();
    open(&path, &OpenOptions::default()).unwrap();
}

/// Returns the offsets of structures, where mutations have an effect.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        64 * KIB..64 * KIB + 80,
        128 * KIB..128 * KIB + 80,
        192 * KIB..192 * KIB + 80,
        256 * KIB..256 * KIB + 80,
        METADATA..METADATA + 200,
        METADATA + 64 * KIB..METADATA + 64 * KIB + 260,
        BAT..BAT + 80,
        MIB..MIB + 200,
        0..DATA,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_mutated_files_never_panic(
        changes in prop::collection::vec((place(), prop_oneof![any::<u8>(), Just(0), Just(0xFF), Just(1)]), 1..6),
        log in any::<bool>(),
    ) {
        static ORIGINAL: OnceLock<Vec<u8>> = OnceLock::new();
        let original = ORIGINAL.get_or_init(|| {
            let folder = Folder::new();
            std::fs::read(sound(&folder)).unwrap()
        });
        let folder = Folder::new();
        let path = folder.join("mutant.vhdx");
        std::fs::write(&path, original).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        if log {
            file.write_all_at(&[7; 16], 64 * KIB + 48).unwrap();
            file.write_all_at(&[7; 16], 128 * KIB + 48).unwrap();
        }
        for (offset, byte) in changes {
            file.write_all_at(&[byte], offset).unwrap();
        }
        reseal(&file);
        let _ = exercise(&path);
    }
}
