//! Damaged and hostile qcow2 files: they are refused with a reason, or harmless.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use common::{Folder, write};
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, check, create, open};

const SIZE: u64 = 8 << 20;

/// Offsets of header fields.
const CLUSTER_BITS: u64 = 20;
const DISK_SIZE: u64 = 24;
const TABLE_ENTRIES: u64 = 36;
const TABLE: u64 = 40;
const COUNTS: u64 = 48;
const COUNTS_CLUSTERS: u64 = 56;

#[test]
fn test_disk_that_its_tables_do_not_reach_and_tables_outside_the_file_are_refused() {
    let folder = Folder::new();
    let (large, huge) = ((1_u64 << 62).to_be_bytes(), (u64::MAX - 511).to_be_bytes());
    let cases: [(&str, u64, &[u8]); 9] = [
        // A walk over this table would never end.
        ("its table has", DISK_SIZE, &large),
        ("its table has", DISK_SIZE, &huge),
        ("its table has 1 entries", TABLE_ENTRIES, &1_u32.to_be_bytes()),
        ("are supported", TABLE_ENTRIES, &u32::MAX.to_be_bytes()),
        ("does not lie in the file", TABLE_ENTRIES, &(4_u32 << 20).to_be_bytes()),
        ("first-level table", TABLE, &large),
        ("first-level table", TABLE, &huge),
        ("reference count table", COUNTS, &large),
        ("reference count table", COUNTS_CLUSTERS, &u32::MAX.to_be_bytes()),
    ];
    for (expected, at, bytes) in cases {
        let path = folder.unique("hostile.qcow2");
        let options = CreateOptions::new(Format::Qcow2, SIZE).with_block_size(512);
        create(&path, &options).unwrap();
        write(&open(&path, &OpenOptions::default()).unwrap(), 0, vec![1; 4096]);
        File::options().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
        let error = open(&path, &OpenOptions::default()).expect_err(expected).to_string();
        assert!(
            error.contains(expected) && error.contains(path.to_str().unwrap()),
            "{expected}: {error}"
        );
        assert!(
            check(&path, None, false, Parents::Named).map_or(true, |report| !report.is_sound())
        );
    }
}

#[test]
fn test_clusters_of_any_size_in_the_header_never_panic() {
    let folder = Folder::new();
    for bits in [0, 1, 8, 9, 21, 22, 31, 32, 63, 64, u32::MAX] {
        let path = folder.unique("bits.qcow2");
        create(&path, &CreateOptions::new(Format::Qcow2, SIZE)).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&bits.to_be_bytes(), CLUSTER_BITS)
            .unwrap();
        let _ = open(&path, &OpenOptions::default());
    }
}

/// An earlier library recursed until its stack was full when it searched for space in a part of the
/// file without reference counts.
#[test]
fn test_file_with_parts_without_reference_counts_can_only_be_read() {
    let folder = Folder::new();
    let entries = |table: u64, byte: u8| (table, vec![byte; 8]);
    for (at, bytes) in [
        (COUNTS_CLUSTERS, vec![0; 4]),
        entries(0, 0),
        entries(0, 0xFF),
        entries(8, 0),
        entries(16, 1),
    ] {
        let path = folder.unique("counts.qcow2");
        let options = CreateOptions::new(Format::Qcow2, SIZE).with_block_size(512);
        create(&path, &options).unwrap();
        // Several blocks of counts; each of them is for 128 KiB.
        write(&open(&path, &OpenOptions::default()).unwrap(), 0, vec![1; 1 << 20]);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut table = [0; 8];
        file.read_exact_at(&mut table, COUNTS).unwrap();
        let place = if at == COUNTS_CLUSTERS { at } else { u64::from_be_bytes(table) + at };
        file.write_all_at(&bytes, place).unwrap();
        let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains("reference counts") && error.contains("readonly=on"), "{error}");
        drop(open(&path, &OpenOptions { read_only: true, ..OpenOptions::default() }));
    }
}
