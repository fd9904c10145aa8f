//! Logs that other programs left in a VHDX.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Folder, read};
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, check, create, info, open};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;
/// The offsets of structures in our own images.
const LOG: u64 = MIB;
const BAT: u64 = 3 * MIB;
const DATA: u64 = 4 * MIB;
const GUID: [u8; 16] = [7; 16];

fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// A change of an entry.
enum Change {
    Data(u64, Vec<u8>),
    Zero(u64, u64),
}

struct Entry {
    sequence: u64,
    tail: u32,
    flushed: u64,
    last: u64,
    changes: Vec<Change>,
}

impl Entry {
    fn new(sequence: u64, tail: u32, changes: Vec<Change>) -> Self {
        Self { sequence, tail, flushed: 0, last: 0, changes }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut descriptors = Vec::new();
        let mut sectors = Vec::new();
        for change in &self.changes {
            match change {
                Change::Zero(offset, length) => {
                    descriptors.extend(
                        [b"zero".as_slice(), &[0; 4], &length.to_le_bytes(), &offset.to_le_bytes()]
                            .concat(),
                    );
                }
                Change::Data(offset, data) => {
                    assert_eq!(data.len(), 4096);
                    descriptors.extend(
                        [b"desc".as_slice(), &data[4092..], &data[..8], &offset.to_le_bytes()]
                            .concat(),
                    );
                    sectors.extend(b"data");
                    sectors.extend(((self.sequence >> 32) as u32).to_le_bytes());
                    sectors.extend(&data[8..4092]);
                    sectors.extend((self.sequence as u32).to_le_bytes());
                }
            }
            descriptors.extend(self.sequence.to_le_bytes());
        }
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(b"loge");
        bytes[12..16].copy_from_slice(&self.tail.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&(self.changes.len() as u32).to_le_bytes());
        bytes[32..48].copy_from_slice(&GUID);
        bytes[48..56].copy_from_slice(&self.flushed.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.last.to_le_bytes());
        bytes.extend(descriptors);
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        bytes.extend(sectors);
        let length = bytes.len() as u32;
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        seal(&mut bytes);
        bytes
    }
}

/// Returns a new image with space in its file for two more blocks, filled with 0xB0 and 0xB1.
fn image(folder: &Folder) -> (PathBuf, File) {
    let path = folder.unique("log.vhdx");
    create(&path, &CreateOptions::new(Format::Vhdx, SIZE).with_block_size(MIB)).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for index in 0..2 {
        file.write_all_at(&vec![0xB0 + index as u8; MIB as usize], DATA + index * MIB).unwrap();
    }
    (path, file)
}

/// Makes the header state that the log is in use.
fn announce(file: &File) {
    let mut header = vec![0; 4096];
    file.read_exact_at(&mut header, 128 << 10).unwrap();
    header[48..64].copy_from_slice(&GUID);
    header[8..16].copy_from_slice(&9_u64.to_le_bytes());
    seal(&mut header);
    file.write_all_at(&header, 128 << 10).unwrap();
}

/// The first page of the table with these blocks present.
fn table(blocks: &[(usize, u64)]) -> Vec<u8> {
    let mut page = vec![0; 4096];
    for &(block, offset) in blocks {
        page[block * 8..][..8].copy_from_slice(&(offset | 6).to_le_bytes());
    }
    page
}

fn first_bytes(path: &Path, read_only: bool) -> Vec<u8> {
    let image = open(path, &OpenOptions { read_only, ..OpenOptions::default() }).unwrap();
    (0..4).map(|block| read(&image, block * MIB, 512)[0]).collect()
}

#[test]
fn test_log_is_replayed_when_opened_and_empty_afterwards() {
    let folder = Folder::new();
    let (path, file) = image(&folder);
    let entry = Entry::new(5, 0, vec![Change::Data(BAT, table(&[(0, DATA), (2, DATA + MIB)]))]);
    file.write_all_at(&entry.bytes(), LOG).unwrap();
    announce(&file);
    assert_eq!(info(&path, None, Parents::Named).unwrap().log_entries, Some(1));
    assert_eq!(first_bytes(&path, false), [0xB0, 0, 0xB1, 0]);
    assert_eq!(info(&path, None, Parents::Named).unwrap().log_entries, Some(0));
    assert_eq!(first_bytes(&path, true), [0xB0, 0, 0xB1, 0]);
}

#[test]
fn test_read_only_image_is_replayed_in_memory_and_not_changed() {
    let folder = Folder::new();
    let (path, file) = image(&folder);
    // Entries that overwrite entries: the later one is in force, and so are its zeroes.
    let entries = [
        Entry::new(5, 0, vec![Change::Data(BAT, table(&[(0, DATA), (1, DATA + MIB)]))]),
        Entry::new(6, 0, vec![Change::Zero(BAT, 4096), Change::Data(BAT, table(&[(3, DATA)]))]),
    ];
    let bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
    file.write_all_at(&bytes, LOG).unwrap();
    announce(&file);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(first_bytes(&path, true), [0, 0, 0, 0xB0]);
    let report = check(&path, None, false, Parents::Named).unwrap();
    assert!(report.is_sound() && report.notes[0].contains("2 log entries"), "{report}");
    assert!(std::fs::read(&path).unwrap() == before);
    let report = check(&path, None, true, Parents::Named).unwrap();
    assert!(report.repaired[0].contains("2 log entries were replayed"), "{report}");
    assert_eq!(first_bytes(&path, true), [0, 0, 0, 0xB0]);
}

#[test]
fn test_torn_last_entry_is_as_if_it_were_not_there() {
    let folder = Folder::new();
    for torn in [20, 4096 + 100, 8191] {
        let (path, file) = image(&folder);
        let good = Entry::new(5, 0, vec![Change::Data(BAT, table(&[(0, DATA)]))]).bytes();
        let mut bad = Entry::new(6, 0, vec![Change::Data(BAT, table(&[(1, DATA)]))]).bytes();
        bad[torn] ^= 1;
        file.write_all_at(&[good, bad].concat(), LOG).unwrap();
        announce(&file);
        assert_eq!(first_bytes(&path, false), [0xB0, 0, 0, 0], "torn at {torn}");
    }
}

#[test]
fn test_sequence_that_runs_over_the_logs_end_is_whole() {
    let folder = Folder::new();
    let (path, file) = image(&folder);
    let tail = (MIB - 12288) as u32;
    let first = Entry::new(5, tail, vec![Change::Data(BAT, table(&[(0, DATA)]))]).bytes();
    let second =
        Entry::new(6, tail, vec![Change::Data(BAT, table(&[(1, DATA), (2, DATA + MIB)]))]).bytes();
    // Older entries of the same log, which are no longer in force.
    let old = Entry::new(3, 4096, vec![Change::Data(BAT, table(&[(3, DATA)]))]).bytes();
    let mut log = vec![0; MIB as usize];
    for (index, byte) in first.into_iter().chain(second).enumerate() {
        log[(tail as usize + index) % MIB as usize] = byte;
    }
    log[4096..4096 + old.len()].copy_from_slice(&old);
    file.write_all_at(&log, LOG).unwrap();
    announce(&file);
    assert_eq!(first_bytes(&path, false), [0, 0xB0, 0xB1, 0]);
}

#[test]
fn test_log_without_entries_of_its_own_is_empty() {
    let folder = Folder::new();
    let (path, file) = image(&folder);
    let mut other = Entry::new(5, 0, vec![Change::Data(BAT, table(&[(0, DATA)]))]).bytes();
    other[32..48].fill(8);
    seal(&mut other);
    file.write_all_at(&other, LOG).unwrap();
    announce(&file);
    assert_eq!(first_bytes(&path, false), [0; 4]);
}

#[test]
fn test_entries_may_ask_for_a_longer_file_but_not_for_a_shorter_one_than_there_was() {
    let folder = Folder::new();
    let (path, file) = image(&folder);
    let mut entry = Entry::new(5, 0, vec![Change::Data(BAT, table(&[(0, DATA + 2 * MIB)]))]);
    entry.last = DATA + 3 * MIB;
    file.write_all_at(&entry.bytes(), LOG).unwrap();
    announce(&file);
    assert_eq!(first_bytes(&path, true)[1..], [0, 0, 0]);
    assert_eq!(first_bytes(&path, false), [0; 4]);
    assert!(file.metadata().unwrap().len() >= DATA + 3 * MIB);

    let (path, file) = image(&folder);
    entry.flushed = DATA + 3 * MIB;
    file.write_all_at(&entry.bytes(), LOG).unwrap();
    announce(&file);
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("had 7340032 when it was used last"), "{error}");
}

#[test]
fn test_logs_that_cannot_be_are_refused() {
    let folder = Folder::new();
    let refused = |entries: Vec<Entry>, expected: &str| {
        let (path, file) = image(&folder);
        let bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
        file.write_all_at(&bytes, LOG).unwrap();
        announce(&file);
        for read_only in [true, false] {
            let error =
                open(&path, &OpenOptions { read_only, ..OpenOptions::default() }).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    };
    // The first entries of the sequence are lost.
    refused(vec![Entry::new(5, 8192, vec![])], "no complete sequence");
    refused(vec![Entry::new(5, 0, vec![Change::Zero(64 << 10, 4096)])], "which no log may change");
    refused(vec![Entry::new(5, 0, vec![Change::Zero(1 << 40, 4096)])], "which no log may change");
    refused(vec![Entry::new(5, 0, vec![Change::Zero(!4095, 8192)])], "which no log may change");
    let mut huge = Entry::new(5, 0, vec![]);
    huge.last = u64::MAX;
    refused(vec![huge], "impossible length");
}

#[test]
fn test_log_of_entries_within_entries_is_given_up_soon() {
    let folder = Folder::new();
    let (path, file) = image(&folder);
    let mut log = vec![0; MIB as usize];
    for at in (0..log.len()).step_by(4096) {
        let mut header = Entry::new(5, 0, vec![]).bytes();
        header.truncate(64);
        // An entry as long as the whole log, with a wrong checksum.
        header[8..12].copy_from_slice(&(MIB as u32).to_le_bytes());
        log[at..at + 64].copy_from_slice(&header);
    }
    file.write_all_at(&log, LOG).unwrap();
    announce(&file);
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("overlap each other"), "{error}");
}
