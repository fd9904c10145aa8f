//! Simulated power losses: every possible state of an image's file is sound and holds the bytes
//! that the disk promised.
//!
//! [`Case`] is a kind of image; [`Case::prove`] runs a script on a new one and checks all states.
//! The simulator itself is `synthvm_block::conformance::powerloss`.

mod qcow2;
mod vhd;
mod vhdx;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use synthvm_block::conformance::powerloss::{
    Change, Limits, Log, Op, Promises, Recorder, Source, State, Step, run_script,
};
use synthvm_block::conformance::{one, pattern};
use synthvm_block::{Backend, IoMode, Operation};
use vmm_sys_util::tempdir::TempDir;

use crate::{CreateOptions, Format, OpenOptions, Parents, check, create, open};

/// A kind of image, and a folder with one.
pub(crate) struct Case {
    folder: TempDir,
    path: PathBuf,
    format: Format,
    /// The content of the disk before the script.
    pub(crate) promises: Promises,
    /// The interval of the states that QEMU checks. `None`: QEMU cannot check the format well.
    pub(crate) qemu: Option<usize>,
    pub(crate) limits: Limits,
    /// Folders of other files that the image needs.
    kept: Vec<TempDir>,
}

/// The record of a script's changes, and the promises made to it.
pub(crate) struct Run {
    pub(crate) log: Log,
    pub(crate) promises: Promises,
}

impl Case {
    /// Creates an image of the kind.
    pub(crate) fn new(name: &str, options: &CreateOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join(name);
        create(&path, options).unwrap();
        let capacity = open(&path, &OpenOptions::reading(None)).unwrap().geometry().capacity;
        Self {
            folder,
            path,
            format: options.format,
            promises: Promises::new(capacity),
            qemu: None,
            limits: Limits { exhaustive: 7, samples: 24, seed: 0x5EED },
            kept: Vec::new(),
        }
    }

    /// Makes this image the parent of the one that `child` creates with `options`, after writing 40
    /// sectors of data from each of the sectors `places` on. The promises become the child's.
    pub(crate) fn with_child(
        self,
        places: &[u64],
        options: &CreateOptions,
        child: fn(&CreateOptions) -> Self,
    ) -> Self {
        let content: Vec<(u64, u64, u32)> =
            (1..).zip(places).map(|(stamp, first)| (first + 5, 40, stamp)).collect();
        let promises = fill(&self.path, &content);
        let options =
            CreateOptions { size: None, parent: Some(self.path.clone()), ..options.clone() };
        let mut case = child(&options);
        case.promises = promises;
        case.kept.push(self.folder);
        case
    }

    /// Runs `steps` on the image and records them.
    pub(crate) fn run(&self, steps: &[Step]) -> Run {
        let recorder = Recorder::new();
        let options = OpenOptions {
            // One thread, so that a failure can be repeated.
            io: IoMode::Sync,
            recorder: Some(recorder.clone()),
            ..OpenOptions::default()
        };
        let promises = run_script(steps, &recorder, self.promises.clone(), &|| {
            open(&self.path, &options).unwrap()
        });
        Run { log: recorder.log(), promises }
    }

    /// Runs `steps` and checks every state. Returns the number of states.
    ///
    /// # Panics
    /// A state is not sound, or breaks a promise.
    pub(crate) fn prove(&self, steps: &[Step]) -> usize {
        let run = self.run(steps);
        let (count, broken) = self.first_broken(&run.log, &run.promises);
        if let Some(reason) = broken {
            panic!("{reason}");
        }
        count
    }

    /// Returns the number of states that were checked, and the flaw of the last of them, if it has
    /// one.
    pub(crate) fn first_broken(&self, log: &Log, promises: &Promises) -> (usize, Option<String>) {
        let folder = in_memory();
        let mut count = 0;
        for state in log.states(&self.limits) {
            count += 1;
            let path = state.write(folder.as_path()).unwrap().remove(0);
            if let Err(reason) = self.judge(&path, &state, promises) {
                return (count, Some(format!("{reason}\n{state}")));
            }
        }
        (count, None)
    }

    /// Runs `steps`, which is sound, and again without the first barrier from change `find` on.
    /// Returns the flaw of the latter.
    pub(crate) fn broken_without_barrier(
        &self,
        steps: &[Step],
        find: fn(&[Op]) -> Option<usize>,
    ) -> Option<String> {
        let run = self.run(steps);
        assert_eq!(self.first_broken(&run.log, &run.promises).1, None);
        let ops = run.log.ops();
        let from = find(ops).unwrap();
        let barrier = (from..ops.len()).find(|&at| ops[at].change == Change::Sync).unwrap();
        let log = run.log.without(|at, _| at == barrier);
        self.first_broken(&log, &run.promises).1
    }

    fn judge(&self, path: &Path, state: &State, promises: &Promises) -> Result<(), String> {
        let report = check(path, Some(self.format), false, Parents::Named)
            .map_err(|error| error.to_string())?;
        if !report.is_sound() {
            return Err(report.to_string());
        }
        let reading = OpenOptions::reading(Some(self.format));
        let disk = open(path, &reading).map_err(|error| error.to_string())?;
        promises.judge(&disk, state.position)?;
        drop(disk);
        if let Some(every) = self.qemu
            && state.number.is_multiple_of(every)
        {
            qemu_check(path, self.format)?;
        }
        // Writing continues after the power loss: new blocks must not take the space of others.
        if state.number.is_multiple_of(5) {
            self.go_on(path, state, promises)?;
        }
        Ok(())
    }

    /// Opens the image for writing, writes to sectors that the script did not write, and checks the
    /// rest again.
    fn go_on(&self, path: &Path, state: &State, promises: &Promises) -> Result<(), String> {
        let options =
            OpenOptions { io: IoMode::Sync, format: Some(self.format), ..OpenOptions::default() };
        let disk = open(path, &options).map_err(|error| error.to_string())?;
        promises.judge(&disk, state.position)?;
        let places = untouched(promises, disk.geometry().capacity);
        let data = |offset: u64| pattern(offset, 512);
        let mut queue = disk.queue().unwrap();
        for &offset in &places {
            one(&mut *queue, Operation::Write { fua: false }, offset, data(offset)).unwrap();
        }
        one(&mut *queue, Operation::Flush, 0, Vec::new()).unwrap();
        for &offset in &places {
            let found = one(&mut *queue, Operation::Read, offset, vec![0; 512]).unwrap();
            if found != data(offset) {
                return Err(format!("the data written at {offset:#x} after the loss is missing"));
            }
            // The check expects zeroes there.
            let zeroes = Operation::Write { fua: false };
            one(&mut *queue, zeroes, offset, vec![0; 512]).unwrap();
        }
        promises
            .judge(&disk, state.position)
            .map_err(|reason| format!("after going on: {reason}"))?;
        drop((queue, disk));
        let report = check(path, Some(self.format), false, Parents::Named)
            .map_err(|error| error.to_string())?;
        if report.is_sound() { Ok(()) } else { Err(format!("after going on: {report}")) }
    }
}

/// Returns the index of the first change that makes the file grow.
pub(crate) fn first_growth(ops: &[Op]) -> Option<usize> {
    ops.iter().position(|op| matches!(op.change, Change::Length(_)))
}

/// Returns the index of the last change that copies a part of the parent.
pub(crate) fn last_copy(ops: &[Op]) -> Option<usize> {
    let is_copy =
        |change: &Change| matches!(change, Change::Write { bytes, .. } if bytes.len() > 4096);
    ops.iter().rposition(|op| op.source == Source::Structures && is_copy(&op.change))
}

/// Returns a folder for many files that are needed only during the test: in memory, if there is
/// such a folder.
fn in_memory() -> TempDir {
    TempDir::new_in(Path::new("/dev/shm")).or_else(|_| TempDir::new()).unwrap()
}

/// Returns the offsets of some sectors all over the disk that no promise names.
fn untouched(promises: &Promises, capacity: u64) -> Vec<u64> {
    let step = (capacity / 16).next_multiple_of(512);
    let is_free = |offset: &u64| !promises.names(offset / 512);
    (0..16).map(|at| at * step + 512 * 1001).filter(|&at| at < capacity).filter(is_free).collect()
}

fn qemu_check(path: &Path, format: Format) -> Result<(), String> {
    // `cargo xtask test` names the folder of QEMU's programs.
    let program = std::env::var_os("SYNTHVM_QEMU")
        .map_or_else(|| "qemu-img".into(), |folder| Path::new(&folder).join("qemu-img"));
    let output = Command::new(program).args(["check", "-f", format.name()]).arg(path).output();
    let output = output
        .map_err(|error| format!("qemu-img: {error}; run this test by `cargo xtask test`"))?;
    // 3: leaks, which do no harm.
    if matches!(output.status.code(), Some(0 | 3)) { Ok(()) } else { Err(format!("{output:?}")) }
}

/// Writes runs of sectors (first, count, stamp) to the image at `path`. Returns its promises
/// afterwards.
fn fill(path: &Path, steps: &[(u64, u64, u32)]) -> Promises {
    let disk: Arc<dyn Backend> = open(path, &OpenOptions::default()).unwrap();
    let mut promises = Promises::new(disk.geometry().capacity);
    let mut queue = disk.queue().unwrap();
    for &(first, count, stamp) in steps {
        let bytes = (first..first + count)
            .flat_map(|sector| synthvm_block::conformance::powerloss::content(sector, stamp));
        one(&mut *queue, Operation::Write { fua: false }, first * 512, bytes.collect()).unwrap();
        promises.begin_with(first, count, stamp);
    }
    promises
}
