//! Tests of differencing VHDX: children of parents.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Folder, Random, flush, read, write};
use synthvm_block::conformance::over;
use synthvm_block::{IoError, Operation};
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, create, info, open};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;
/// Blocks of 1 MiB in sectors of 512 bytes that one bitmap covers. The entry of the bitmap follows
/// theirs.
const RATIO: u64 = 4096;
const BAT: u64 = 3 * MIB;

fn parent(folder: &Folder) -> (PathBuf, Vec<u8>) {
    let path = folder.join("parent.vhdx");
    create(&path, &CreateOptions::new(Format::Vhdx, SIZE).with_block_size(2 * MIB)).unwrap();
    let image = open(&path, &OpenOptions::default()).unwrap();
    let mut content = vec![0; SIZE as usize];
    let mut random = Random(11);
    for block in [0, 1, 2, 5, 9] {
        let bytes = random.bytes(MIB as usize);
        content[(block * MIB) as usize..][..MIB as usize].copy_from_slice(&bytes);
        write(&image, block * MIB, bytes);
    }
    flush(&image);
    (path, content)
}

fn child(folder: &Folder, parent: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let options = CreateOptions::child(Format::Vhdx, parent.to_owned()).with_block_size(MIB);
    create(&path, &options).unwrap();
    path
}

fn assert_content(path: &Path, options: &OpenOptions, expected: &[u8]) {
    let image = open(path, options).unwrap();
    for (index, expected) in expected.chunks(MIB as usize).enumerate() {
        assert!(read(&image, index as u64 * MIB, expected.len()) == expected, "block {index}");
    }
}

#[test]
fn test_child_shows_its_parent_and_keeps_changes_to_itself() {
    let folder = Folder::new();
    let (parent, mut content) = parent(&folder);
    let before = std::fs::read(&parent).unwrap();
    let path = child(&folder, &parent, "child.vhdx");
    assert_content(&path, &OpenOptions::default(), &content);
    let image = open(&path, &OpenOptions::default()).unwrap();
    // Ranges over a block's end, in free space, and zeroes over the parent's data: whole blocks and
    // parts.
    for (offset, length) in [(MIB - 512, 1024), (7 * MIB + 4096, 4096), (9 * MIB + 512, 512)] {
        content[offset as usize..][..length].fill(0xC1);
        write(&image, offset, vec![0xC1; length]);
    }
    for (operation, offset, length) in [
        (Operation::Discard, 2 * MIB, MIB),
        (Operation::WriteZeroes { unmap: true }, 5 * MIB + 512, 1024),
        (Operation::WriteZeroes { unmap: false }, 9 * MIB + 4096, 512),
    ] {
        over(&mut *image.queue().unwrap(), operation, offset, length).unwrap();
        content[offset as usize..][..length as usize].fill(0);
    }
    flush(&image);
    assert_eq!(image.resize(2 * SIZE), Err(IoError::Unsupported));
    drop(image);
    assert_content(&path, &OpenOptions::reading(None), &content);
    assert!(std::fs::read(&parent).unwrap() == before);
    let info = info(&path, None, Parents::Named).unwrap();
    assert_eq!(info.parent.unwrap().path, parent.canonicalize().unwrap());
}

/// Gives the child a block of which only the sectors `mine` are its own, in the form in which
/// Windows writes it.
fn make_partial(path: &Path, block: u64, mine: impl Fn(u64) -> bool, fill: u8) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let data = file.metadata().unwrap().len();
    let bitmap = data + MIB;
    file.set_len(data + 2 * MIB).unwrap();
    let mut bits = vec![0_u8; MIB as usize];
    for sector in 0..MIB / 512 {
        // The child's bytes of the parent's sectors must not be read.
        let byte = if mine(sector) { fill } else { 0xDD };
        file.write_all_at(&[byte; 512], data + sector * 512).unwrap();
        let bit = block * (MIB / 512) + sector;
        bits[bit as usize / 8] |= u8::from(mine(sector)) << (bit % 8);
    }
    file.write_all_at(&bits, bitmap).unwrap();
    file.write_all_at(&(data | 7).to_le_bytes(), BAT + block * 8).unwrap();
    file.write_all_at(&(bitmap | 6).to_le_bytes(), BAT + RATIO * 8).unwrap();
}

#[test]
fn test_sectors_of_a_partial_block_come_from_child_and_parent() {
    let folder = Folder::new();
    let (parent, mut content) = parent(&folder);
    let path = child(&folder, &parent, "partial.vhdx");
    let mine = |sector: u64| sector.is_multiple_of(3) || (100..200).contains(&sector);
    make_partial(&path, 1, mine, 0xCC);
    for sector in (0..MIB / 512).filter(|&sector| mine(sector)) {
        content[(MIB + sector * 512) as usize..][..512].fill(0xCC);
    }
    assert_content(&path, &OpenOptions::reading(None), &content);
    // A write completes the block, and loses no sector of child or parent.
    let image = open(&path, &OpenOptions::default()).unwrap();
    content[(MIB + 50 * 512) as usize..][..512].fill(0x11);
    write(&image, MIB + 50 * 512, vec![0x11; 512]);
    flush(&image);
    drop(image);
    assert_content(&path, &OpenOptions::reading(None), &content);
    assert_content(&path, &OpenOptions::default(), &content);
}

#[test]
fn test_partial_block_without_bitmap_is_refused() {
    let folder = Folder::new();
    let (parent, _) = parent(&folder);
    let path = child(&folder, &parent, "broken.vhdx");
    make_partial(&path, 1, |_| true, 1);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 8], BAT + RATIO * 8).unwrap();
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("block 1 has no sector bitmap"), "{error}");
}

#[test]
fn test_chain_of_three_shows_the_nearest() {
    let folder = Folder::new();
    let (parent, mut content) = parent(&folder);
    let middle = child(&folder, &parent, "middle.vhdx");
    let image = open(&middle, &OpenOptions::default()).unwrap();
    write(&image, MIB, vec![2; MIB as usize]);
    flush(&image);
    drop(image);
    let top = child(&folder, &middle, "top.vhdx");
    let image = open(&top, &OpenOptions::default()).unwrap();
    write(&image, 2 * MIB - 512, vec![3; 1024]);
    flush(&image);
    drop(image);
    content[MIB as usize..][..MIB as usize].fill(2);
    content[(2 * MIB - 512) as usize..][..1024].fill(3);
    assert_content(&top, &OpenOptions::reading(None), &content);
}

#[test]
fn test_parent_changed_missing_or_moved_is_reported() {
    let folder = Folder::new();
    let (parent, content) = parent(&folder);
    let path = child(&folder, &parent, "child.vhdx");
    let moved = folder.join("moved.vhdx");
    std::fs::rename(&parent, &moved).unwrap();
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("does not exist") && error.contains("parent=PATH"), "{error}");
    let with_parent = OpenOptions { parent: Some(moved.clone()), ..OpenOptions::reading(None) };
    assert_content(&path, &with_parent, &content);
    let image = open(&moved, &OpenOptions::default()).unwrap();
    write(&image, 0, vec![1; 512]);
    drop(image);
    let error = open(&path, &with_parent).unwrap_err().to_string();
    assert!(error.contains("was changed since"), "{error}");
}

#[test]
fn test_parent_in_use_by_a_writer_is_refused_and_parents_are_shared() {
    let folder = Folder::new();
    let (parent, _) = parent(&folder);
    let (one, two) = (child(&folder, &parent, "one.vhdx"), child(&folder, &parent, "two.vhdx"));
    let first = open(&one, &OpenOptions::default()).unwrap();
    let second = open(&two, &OpenOptions::default()).unwrap();
    assert!(open(&parent, &OpenOptions::default()).unwrap_err().to_string().contains("is in use"));
    drop((first, second));
    let writer = open(&parent, &OpenOptions::default()).unwrap();
    let error = open(&one, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("parent") && error.contains("is in use"), "{error}");
    drop(writer);
    open(&one, &OpenOptions::default()).unwrap();
}

#[test]
fn test_image_that_is_its_own_parent_is_refused() {
    let folder = Folder::new();
    let (parent, _) = parent(&folder);
    let path = child(&folder, &parent, "circle.vhdx");
    // The child takes its parent's path, and the parent's id.
    let mut header = vec![0; 4096];
    let file = File::open(&parent).unwrap();
    let ids: Vec<[u8; 16]> = [64 << 10, 128 << 10]
        .into_iter()
        .map(|offset| {
            file.read_exact_at(&mut header, offset).unwrap();
            (
                u64::from_le_bytes(header[8..16].try_into().unwrap()),
                header[32..48].try_into().unwrap(),
            )
        })
        .max_by_key(|&(sequence, _): &(u64, [u8; 16])| sequence)
        .map(|(_, id)| id)
        .into_iter()
        .collect();
    std::fs::copy(&path, &parent).unwrap();
    let file = File::options().read(true).write(true).open(&parent).unwrap();
    for offset in [64 << 10, 128 << 10] {
        file.read_exact_at(&mut header, offset).unwrap();
        header[32..48].copy_from_slice(&ids[0]);
        header[4..8].fill(0);
        let sum = crc32c::crc32c(&header);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, offset).unwrap();
    }
    let error = open(&path, &OpenOptions::reading(None)).unwrap_err().to_string();
    assert!(error.contains("longer than 32, or runs in a circle"), "{error}");
}
