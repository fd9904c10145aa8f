//! Tests of the simulator: the states that it returns, and the flaws that it finds.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::{Backend, IoMode, RawFile, RawOptions};

/// Returns a file of `length` bytes and the trace of its changes, which are recorded but not made.
fn traced(length: u64) -> (TempDir, Recorder, Trace) {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("disk.img");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(length).unwrap();
    let recorder = Recorder::new();
    let trace = recorder.attach(&path, &file, Source::Structures).unwrap();
    (folder, recorder, trace)
}

fn change(trace: &Trace, change: Change) {
    trace.record(change, || Ok::<(), ()>(())).unwrap();
}

fn write(offset: u64, bytes: Vec<u8>) -> Change {
    Change::Write { offset, bytes, durable: false }
}

/// Returns the different files of all states of a log with their positions, each as the first byte
/// of each of its sectors.
fn states(folder: &TempDir, recorder: &Recorder, limits: &Limits) -> BTreeSet<(usize, Vec<u8>)> {
    let log = recorder.log();
    let first_bytes = |state: State| {
        let bytes = std::fs::read(&state.write(folder.as_path()).unwrap()[0]).unwrap();
        (state.position, bytes.chunks(512).map(|sector| sector[0]).collect())
    };
    log.states(limits).map(first_bytes).collect()
}

#[test]
fn test_states_of_unsynced_writes_are_all_subsets_and_a_sync_ends_them() {
    let (folder, recorder, trace) = traced(1024);
    change(&trace, write(0, vec![1; 512]));
    change(&trace, write(512, vec![2; 512]));
    change(&trace, Change::Sync);
    change(&trace, write(0, vec![3; 512]));
    let expected = [(5, [0, 0]), (5, [0, 2]), (5, [1, 0]), (5, [1, 2]), (8, [1, 2]), (8, [3, 2])]
        .map(|(at, bytes)| (at, bytes.to_vec()));
    assert_eq!(states(&folder, &recorder, &Limits::default()), expected.into());
}

#[test]
fn test_states_of_one_write_are_torn_at_every_sector() {
    let (folder, recorder, trace) = traced(1536);
    change(&trace, write(0, vec![7; 1536]));
    let found = states(&folder, &recorder, &Limits::default());
    assert_eq!(found.len(), 8, "{found:?}");
    // With more sectors than are tried one by one, only some torn states are tried.
    let found = states(&folder, &recorder, &Limits { exhaustive: 2, ..Limits::default() });
    assert!(found.iter().any(|(_, bytes)| bytes.contains(&7) && bytes.contains(&0)), "{found:?}");
}

#[test]
fn test_states_of_a_write_issued_before_a_sync_and_completed_after_may_miss_it() {
    let (folder, recorder, trace) = traced(512);
    let writing = trace.issue(write(0, vec![1; 512]));
    change(&trace, Change::Sync);
    trace.complete(writing, Ok(None));
    let found = states(&folder, &recorder, &Limits::default());
    assert_eq!(found, [(4, vec![0]), (4, vec![1])].into());
}

#[test]
fn test_states_of_a_durable_write_keep_it_and_nothing_else() {
    let (folder, recorder, trace) = traced(1024);
    change(&trace, write(0, vec![1; 512]));
    change(&trace, Change::Write { offset: 512, bytes: vec![2; 512], durable: true });
    let last: BTreeSet<_> = states(&folder, &recorder, &Limits::default())
        .into_iter()
        .filter(|(at, _)| *at == 4)
        .collect();
    assert_eq!(last, [(4, vec![0, 2]), (4, vec![1, 2])].into());
}

#[test]
fn test_states_of_two_writes_to_one_sector_are_its_contents_in_order() {
    let (folder, recorder, trace) = traced(512);
    change(&trace, write(0, vec![1; 1]));
    change(&trace, write(1, vec![2; 1]));
    let log = recorder.log();
    let pairs: BTreeSet<[u8; 2]> = log
        .states(&Limits::default())
        .map(|state| {
            let bytes = std::fs::read(&state.write(folder.as_path()).unwrap()[0]).unwrap();
            [bytes[0], bytes[1]]
        })
        .collect();
    // The page cache has one content of a sector: the second write never remains without the first.
    assert_eq!(pairs, [[0, 0], [1, 0], [1, 2]].into());
}

#[test]
fn test_states_of_length_and_holes_may_or_may_not_have_them() {
    let (folder, recorder, trace) = traced(512);
    change(&trace, write(0, vec![1; 512]));
    change(&trace, Change::Sync);
    change(&trace, Change::Length(1024));
    change(&trace, write(512, vec![2; 512]));
    change(&trace, Change::Zero { offset: 0, length: 512 });
    let last: BTreeSet<_> = states(&folder, &recorder, &Limits::default())
        .into_iter()
        .filter(|(at, _)| *at == 10)
        .map(|(_, bytes)| bytes)
        .collect();
    let expected = [vec![1], vec![0], vec![1, 0], vec![0, 0], vec![1, 2], vec![0, 2]];
    assert_eq!(last, expected.into());
}

#[test]
fn test_states_are_the_same_for_the_same_seed() {
    let (folder, recorder, trace) = traced(64 * 512);
    for sector in 0..64 {
        change(&trace, write(sector * 512, vec![1; 512]));
    }
    let limits = Limits { samples: 20, ..Limits::default() };
    let found = states(&folder, &recorder, &limits);
    assert_eq!(found, states(&folder, &recorder, &limits));
    assert_ne!(found, states(&folder, &recorder, &Limits { seed: 1, ..limits }));
    // Each change alone, each one missing, prefixes, all, none.
    assert!(found.len() > 3 * 64, "{}", found.len());
}

/// Runs `steps` on a raw image of 1 MiB in `io` mode.
fn run_raw(folder: &Path, io: IoMode, steps: &[Step]) -> (Log, Promises) {
    let path = folder.join("disk.img");
    let _ = std::fs::remove_file(&path);
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let recorder = Recorder::new();
    let promises = run_script(steps, &recorder, Promises::new(1 << 20), &|| {
        let mut raw =
            RawFile::open_with(&path, &RawOptions { io, ..RawOptions::default() }).unwrap();
        raw.record(&recorder).unwrap();
        Arc::new(raw)
    });
    (recorder.log(), promises)
}

/// Checks each state of `log`. Returns the first that breaks a promise, if any.
fn first_broken(
    folder: &Path,
    log: &Log,
    promises: &Promises,
    limits: &Limits,
) -> (usize, Option<String>) {
    let folder = folder.join("after");
    let _ = std::fs::create_dir(&folder);
    let mut count = 0;
    for state in log.states(limits) {
        count += 1;
        let path = state.write(&folder).unwrap().remove(0);
        let disk: Arc<dyn Backend> = Arc::new(RawFile::open(&path, true).unwrap());
        if let Err(reason) = promises.judge(&disk, state.position) {
            return (count, Some(format!("{reason}\n{state}")));
        }
    }
    (count, None)
}

fn raw_script() -> Vec<Step> {
    let mut steps = random_script(11, 60, &[0, 256, 1024], 64);
    steps.extend([
        Step::Batch(vec![
            Step::write(0, 8),
            Step::fua(64, 16),
            Step::discard(256, 64),
            Step::Flush,
        ]),
        Step::Resize(3 << 20),
        Step::fua(2048, 4),
        Step::write(4096, 64),
        Step::Reopen,
        Step::write(5000, 3),
        Step::Flush,
        Step::zeroes(4096, 64, false),
    ]);
    steps
}

#[test]
fn test_raw_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let folder = TempDir::new().unwrap();
    for io in [IoMode::Sync, IoMode::Threads, IoMode::Auto] {
        let (log, promises) = run_raw(folder.as_path(), io, &raw_script());
        let (count, broken) = first_broken(folder.as_path(), &log, &promises, &Limits::default());
        assert!(broken.is_none(), "{io:?}: {}", broken.unwrap_or_default());
        assert!(count > 500, "{count} states");
    }
}

#[test]
fn test_raw_makes_the_same_changes_in_every_mode() {
    let folder = TempDir::new().unwrap();
    let steps = random_script(12, 200, &[0, 256, 1024], 64);
    let changes = |io| {
        let (log, _) = run_raw(folder.as_path(), io, &steps);
        log.ops().iter().map(|op| op.change.clone()).collect::<Vec<_>>()
    };
    let sync = changes(IoMode::Sync);
    assert_eq!(sync, changes(IoMode::Threads));
    assert_eq!(sync, changes(IoMode::Auto));
}

#[test]
fn test_raw_flush_that_is_left_out_is_found() {
    let folder = TempDir::new().unwrap();
    let steps = [Step::write(0, 4), Step::Flush, Step::write(0, 4)];
    let (log, promises) = run_raw(folder.as_path(), IoMode::Sync, &steps);
    let (_, broken) = first_broken(folder.as_path(), &log, &promises, &Limits::default());
    assert_eq!(broken, None);
    let log = log.without(|_, op| op.change == Change::Sync);
    let (_, broken) = first_broken(folder.as_path(), &log, &promises, &Limits::default());
    assert!(broken.is_some_and(|reason| reason.contains("sector 0 may have the stamps")));
}

#[test]
fn test_raw_write_that_is_not_forced_is_found() {
    let folder = TempDir::new().unwrap();
    let (log, _) = run_raw(folder.as_path(), IoMode::Sync, &[Step::write(0, 4)]);
    // The same request counts as if it had been forced (FUA).
    let mut promises = Promises::new(1 << 20);
    promises.wrote(0, 4, 1001, Span { submitted: 0, acknowledged: 2 }, true);
    let (_, broken) = first_broken(folder.as_path(), &log, &promises, &Limits::default());
    assert!(broken.is_some());
}
