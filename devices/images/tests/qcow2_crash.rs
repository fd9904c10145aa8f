//! Tests that kill a writer of a qcow2 image before any flush, with tables all over a large disk.
//! No two parts of the disk ever share a cluster, and no data that a flush acknowledged is lost.

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::crash::{self, Reported, run_and_kill};
use common::{Folder, Random, flush, qemu, qemu_output, read, text, write};
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, check, create, open};

const GIB: u64 = 1 << 30;
const SIZE: u64 = 8 * GIB;
const BLOCK: usize = 4096;
/// The number of offsets that are written. They are so far apart that most need a table of their
/// own.
const PLACES: u64 = 64;

/// Returns the offset of write number `step`, and its value.
fn step(seed: u64, step: u64) -> (u64, u64) {
    let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(step));
    let place = random.below(PLACES);
    let offset =
        place * (SIZE / PLACES) + random.below(4) * 65536 + random.below(16) * BLOCK as u64;
    (offset, step + 1)
}

fn content(offset: u64, value: u64) -> Vec<u8> {
    let word = if value == 0 { 0 } else { value << 40 | offset >> 12 };
    word.to_le_bytes().repeat(BLOCK / 8)
}

/// The child process, and no test of its own.
#[test]
#[ignore = "runs in a process that the other tests start and kill"]
fn writer() {
    let (seed, every) = (crash::number("SEED"), crash::number("FLUSH"));
    crash::write_until_killed(|image, at| {
        let (offset, value) = step(seed, at);
        write(image, offset, content(offset, value));
        at % every == every - 1
    });
}

/// Checks that `qemu-img check` finds no flaw except leaks.
fn assert_no_error(path: &Path, what: &str) {
    let checked = qemu_output("qemu-img", &["check", "-f", "qcow2", text(path)]);
    assert!(matches!(checked.status.code(), Some(0 | 3)), "{what}: {checked:?}");
    let report = check(path, None, false, Parents::Named).unwrap();
    assert!(report.is_sound(), "{what}: {report}");
}

/// Kills a writer many times. Between two kills another process uses the image.
fn kill_many_times(make: impl FnOnce(&Folder) -> std::path::PathBuf, rounds: u64) {
    let folder = Folder::new();
    let path = make(&folder);
    let seed = 0x00D1_5EA5;
    let mut random = Random(seed);
    // Each block must hold one of these values.
    let mut allowed: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut next = 0;
    for round in 0..rounds {
        // The first two writers never flush.
        let every = if round < 2 { u64::MAX } else { 3 + random.below(20) };
        let reports = 1 + random.below(60);
        let Reported { done, flushed } = run_and_kill(&path, seed, next, every, reports);
        let end = done.map_or(next, |done| done + 1);
        for number in next..=end {
            let (offset, value) = step(seed, number);
            let values = allowed.entry(offset).or_insert_with(|| vec![0]);
            if flushed.is_some_and(|flushed| number <= flushed) {
                values.clear();
            }
            values.push(value);
        }
        next = end + 1;
        assert_no_error(&path, &format!("round {round}, after the kill"));
        let image = open(&path, &OpenOptions::default()).unwrap();
        for (&offset, values) in &mut allowed {
            let found = read(&image, offset, BLOCK);
            let value = values.iter().copied().find(|&value| content(offset, value) == found);
            let word = u64::from_le_bytes(found[..8].try_into().unwrap());
            *values = vec![value.unwrap_or_else(|| {
                panic!("round {round}, {offset:#x}: {word:#x} is none of {values:x?}")
            })];
        }
        // Another part of the disk: earlier writes must stay.
        let offset = SIZE / PLACES * random.below(PLACES) + (1 << 24) + round * 65536;
        let value = 1 << 20 | round;
        write(&image, offset, content(offset, value));
        flush(&image);
        allowed.insert(offset, vec![value]);
        for (&offset, values) in &allowed {
            assert!(
                read(&image, offset, BLOCK) == content(offset, values[0]),
                "round {round}, {offset:#x}"
            );
        }
        drop(image);
        assert_no_error(&path, &format!("round {round}, closed"));
    }
}

fn ours(name: &'static str, cluster: u64) -> impl FnOnce(&Folder) -> std::path::PathBuf {
    move |folder| {
        let path = folder.join(name);
        create(&path, &CreateOptions::new(Format::Qcow2, SIZE).with_block_size(cluster)).unwrap();
        path
    }
}

fn qemus(name: &'static str, options: &'static str) -> impl FnOnce(&Folder) -> std::path::PathBuf {
    move |folder| {
        let path = folder.join(name);
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, text(&path), "8G"]);
        path
    }
}

#[test]
fn test_killed_writer_leaves_no_shared_cluster_in_version_3() {
    kill_many_times(ours("killed.qcow2", 65536), 12);
}

#[test]
fn test_killed_writer_leaves_no_shared_cluster_in_small_clusters() {
    kill_many_times(ours("killed.qcow2", 4096), 8);
}

#[test]
fn test_killed_writer_leaves_no_shared_cluster_in_version_2() {
    kill_many_times(qemus("killed.qcow2", "compat=0.10"), 8);
}

#[test]
fn test_killed_writer_leaves_no_shared_cluster_with_lazy_counts_of_one_bit() {
    kill_many_times(qemus("killed.qcow2", "lazy_refcounts=on,refcount_bits=1"), 6);
}

#[test]
fn test_killed_writer_of_an_overlay_keeps_what_the_backing_file_shows() {
    let make = |folder: &Folder| {
        let base = folder.join("base.qcow2");
        create(&base, &CreateOptions::new(Format::Qcow2, SIZE)).unwrap();
        let path = folder.join("top.qcow2");
        create(&path, &CreateOptions::child(Format::Qcow2, base)).unwrap();
        path
    };
    kill_many_times(make, 6);
}

/// A defect of an earlier version: one write, no flush, a kill; then a write to another offset took
/// the same cluster for its table.
#[test]
fn test_table_of_an_unflushed_write_is_not_taken_again_after_a_kill() {
    let folder = Folder::new();
    let path = ours("killed.qcow2", 65536)(&folder);
    let (offset, value) = step(1, 0);
    run_and_kill(&path, 1, 0, u64::MAX, 1);
    let image = open(&path, &OpenOptions::default()).unwrap();
    let other = (offset + 2 * GIB) % SIZE;
    write(&image, other, vec![0xBB; BLOCK]);
    flush(&image);
    let found = read(&image, offset, BLOCK);
    assert!(found == content(offset, value) || found == content(offset, 0), "{:#x}", found[0]);
    write(&image, offset, vec![0xCC; BLOCK]);
    flush(&image);
    assert!(read(&image, other, BLOCK) == vec![0xBB; BLOCK], "the write elsewhere is still there");
    drop(image);
    assert_no_error(&path, "closed");
}
