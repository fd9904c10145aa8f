//! A process that is killed while firmware writes variables leaves the old variables or the new
//! ones.
//!
//! The process replays what OVMF wrote to its flash in QEMU (bookworm's 2 MiB image, trace event
//! `pflash_io_write`): a script of the UEFI shell sets one variable until the store is full, so the
//! firmware's journal copies all of it through the spare space, and goes on. The file is then read
//! as the firmware reads it.

mod recording;
mod store;

use std::fs;
use std::io::{BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use synthvm_firmware::{FLASH_BLOCK, Flash, Variables};

use recording::{Operation, Recording};

/// Tells the helper process the file and the number of the write at which it stops.
const ENV: &str = "SYNTHVM_FLASH_TEST_KILLED";

/// The byte that the helper writes after this number of writes.
const REPORT_INTERVAL: usize = 1000;
const REPORT: u8 = 1;

/// The variable that the recorded script sets, to another value each time.
const NAME: &str = "SynthVm";

/// Commands of the flash: erase a block, and its confirmation.
const ERASE: u8 = 0x20;
const CONFIRM: u8 = 0xD0;

/// The process that is killed, and no test of its own. Stops itself by the kernel's SIGKILL after
/// the given number of writes.
#[test]
fn test_killed_helper_process() {
    let Some(what) = std::env::var_os(ENV) else { return };
    let what = what.into_string().unwrap();
    let (end, path) = what.split_once(':').unwrap();
    let end: usize = end.parse().unwrap();
    let recording = Recording::read();
    let variables = Variables::open(Path::new(path), recording.template()).unwrap();
    let mut flash = Flash::new(variables);
    let mut out = std::io::stdout();
    for (number, (offset, value)) in (1..).zip(recording.writes()) {
        flash.write(offset, &[value]);
        if number == end {
            // SAFETY: ends this process, which has no more to do.
            unsafe { libc::raise(libc::SIGKILL) };
        }
        if number % REPORT_INTERVAL == 0 {
            out.write_all(&[REPORT]).and_then(|()| out.flush()).unwrap();
        }
    }
}

/// A value of the variable, and the number of the write after which the firmware finds it.
type Value = (usize, Option<Vec<u8>>);

/// Returns the values that the firmware finds after each of its operations.
fn values(recording: &Recording) -> Vec<Value> {
    let mut flash = recording.template().to_vec();
    let mut values = vec![(0, store::value(&flash, NAME).unwrap())];
    let (mut number, mut block) = (0, 0);
    for operation in recording.operations() {
        number += operation.writes();
        match operation {
            Operation::Program(start, bytes) => {
                flash[*start..start + bytes.len()].copy_from_slice(bytes);
                continue;
            }
            Operation::Write(offset, ERASE) => block = offset / FLASH_BLOCK * FLASH_BLOCK,
            Operation::Write(_, CONFIRM) => flash[block..block + FLASH_BLOCK].fill(0xFF),
            Operation::Write(..) => {}
        }
        let value = store::value(&flash, NAME).unwrap_or_else(|why| panic!("{number}: {why}"));
        if values.last().is_some_and(|(_, last)| *last != value) {
            values.push((number, value));
        }
    }
    values
}

/// Returns the writes from the first erasure of a block to the last one.
fn copies(recording: &Recording) -> Range<usize> {
    let mut number = 0;
    let erasures = recording.operations().iter().filter_map(|operation| {
        number += operation.writes();
        matches!(operation, Operation::Write(_, ERASE)).then_some(number)
    });
    let erasures: Vec<usize> = erasures.collect();
    erasures[0]..erasures[erasures.len() - 1]
}

/// Returns the index of the value that the firmware finds after `number` writes, at least.
fn index(values: &[Value], number: usize) -> usize {
    values.partition_point(|(first, _)| *first <= number) - 1
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("synthvm-killed-{name}-{}", std::process::id()))
}

/// Starts the helper.
fn start(path: &Path, end: usize) -> Child {
    let _ = fs::remove_file(path);
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "test_killed_helper_process"])
        .env(ENV, format!("{end}:{}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads the file of a helper that has been killed. Returns the index of the variable's value.
fn found(recording: &Recording, values: &[Value], path: &Path) -> usize {
    // The next machine accepts the file.
    drop(Variables::open(path, recording.template()).unwrap());
    let file = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    let value = store::value(&file, NAME).unwrap();
    values.iter().position(|(_, known)| *known == value).expect("a value that was set")
}

#[test]
fn test_recording_sets_many_values_and_copies_the_full_store_through_the_journal() {
    let recording = Recording::read();
    let values = values(&recording);
    assert_eq!(values[0].1, None);
    assert!(values.len() > 700, "{} values", values.len());
    let erases = |operation: &&Operation| matches!(operation, Operation::Write(_, ERASE));
    assert!(recording.operations().iter().filter(erases).count() >= 2 * 14);
}

#[test]
fn test_process_stopped_at_any_write_leaves_the_old_or_the_new_value() {
    const TIMES: usize = 25;
    let recording = Recording::read();
    let values = values(&recording);
    let (path, all) = (path("stopped"), 1..recording.writes().count());
    for time in 0..TIMES {
        // Half of them while the firmware copies the full store, the others anywhere.
        let range = if time % 2 == 0 { copies(&recording) } else { all.clone() };
        let end = range.start + range.len() / TIMES * time + time;
        let status = start(&path, end).wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
        let (old, index) = (index(&values, end), found(&recording, &values, &path));
        assert!(index == old || index == old + 1, "{index} after write {end}, which left {old}");
    }
}

#[test]
fn test_process_killed_at_any_time_leaves_a_value_that_is_not_older_than_reported() {
    const TIMES: usize = 25;
    let recording = Recording::read();
    let values = values(&recording);
    let (path, all) = (path("killed"), recording.writes().count());
    for time in 1..=TIMES {
        let mut helper = start(&path, usize::MAX);
        let reports = all / REPORT_INTERVAL / (TIMES + 1) * time;
        let output = helper.stdout.take().unwrap();
        // The test harness has printed lines before.
        let mut seen =
            BufReader::new(output).bytes().map(Result::unwrap).filter(|byte| *byte == REPORT);
        assert!(seen.nth(reports).is_some(), "the helper ended");
        helper.kill().unwrap();
        assert_eq!(helper.wait().unwrap().signal(), Some(libc::SIGKILL));
        let old = index(&values, reports * REPORT_INTERVAL);
        let index = found(&recording, &values, &path);
        assert!(index >= old, "{index} after {reports} reports, of which the last left {old}");
    }
}
