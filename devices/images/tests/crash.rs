//! Tests that kill a writer at random moments: the image then opens, and keeps its promises.
//!
//! Each round starts a child process, and kills it at a random moment. The child executes a script
//! of steps and reports each step that is done and each that is flushed.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::crash::{self, Reported, run_and_kill};
use common::{Folder, Random, qemu, qemu_output, read, text, write};
use synthvm_block::conformance::over;
use synthvm_block::{Backend, Operation};
use synthvm_images::{CreateOptions, Format, OpenOptions, Parents, check, create, open};

const SIZE: u64 = 32 << 20;
const SECTOR: u64 = 512;

/// One change, which parent and child process compute alike.
struct Step {
    /// The kind of zeroing; `None`: data is written.
    clear: Option<Operation>,
    first: u64,
    sectors: u64,
    flush: bool,
}

impl Step {
    fn number(seed: u64, number: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let clear = match random.below(10) {
            0 => Some(Operation::Discard),
            1 => Some(Operation::WriteZeroes { unmap: true }),
            2 => Some(Operation::WriteZeroes { unmap: false }),
            _ => None,
        };
        // Some steps release whole blocks.
        let (first, sectors) = match clear {
            Some(_) if random.below(2) == 0 => (random.below(SIZE >> 20) << 11, 1 << 11),
            _ => {
                let sectors = 1 + random.below(64);
                (random.below(SIZE / SECTOR - sectors), sectors)
            }
        };
        Self { clear, first, sectors, flush: random.below(5) == 0 }
    }

    /// Returns the value of a sector after this step.
    fn value(&self, number: u64) -> u64 {
        if self.clear.is_some() { 0 } else { number + 1 }
    }
}

fn content(sector: u64, value: u64) -> Vec<u8> {
    let word = if value == 0 { 0 } else { value << 32 | sector };
    word.to_le_bytes().repeat(SECTOR as usize / 8)
}

/// The child process, and no test of its own.
#[test]
#[ignore = "runs in a process that the other tests start and kill"]
fn writer() {
    let seed = crash::number("SEED");
    crash::write_until_killed(|image, number| {
        let step = Step::number(seed, number);
        let offset = step.first * SECTOR;
        if let Some(operation) = step.clear {
            let mut queue = image.queue().unwrap();
            over(&mut *queue, operation, offset, step.sectors * SECTOR).unwrap();
        } else {
            let sectors = step.first..step.first + step.sectors;
            let bytes = sectors.flat_map(|sector| content(sector, step.value(number)));
            write(image, offset, bytes.collect());
        }
        step.flush
    });
}

/// The promise of an image.
#[derive(Clone, Copy, PartialEq)]
enum Promise {
    /// Every step that was done is in the image.
    Done,
    /// Every step that was flushed is in the image.
    Flushed,
}

/// The expected values of the sectors. An uncertain sector may have one of several values.
struct Expected {
    sure: Vec<u64>,
    open: HashMap<u64, Vec<u64>>,
}

impl Expected {
    fn apply(&mut self, seed: u64, number: u64, sure: bool) {
        let step = Step::number(seed, number);
        for sector in step.first..step.first + step.sectors {
            if sure {
                self.sure[sector as usize] = step.value(number);
            } else {
                let before = self.sure[sector as usize];
                self.open.entry(sector).or_insert_with(|| vec![before]).push(step.value(number));
            }
        }
    }

    /// Checks the sectors, and makes the values in `bytes` the only expected ones.
    fn settle(&mut self, bytes: &[u8]) {
        for (sector, found) in bytes.chunks_exact(SECTOR as usize).enumerate() {
            let allowed =
                self.open.remove(&(sector as u64)).unwrap_or_else(|| vec![self.sure[sector]]);
            let value = allowed.iter().find(|&&value| content(sector as u64, value) == found);
            let word = u64::from_le_bytes(found[..8].try_into().unwrap());
            self.sure[sector] = *value
                .unwrap_or_else(|| panic!("sector {sector}: {word:#x} is none of {allowed:x?}"));
        }
    }
}

fn whole(image: &Arc<dyn Backend>) -> Vec<u8> {
    (0..SIZE >> 20).flat_map(|index| read(image, index << 20, 1 << 20)).collect()
}

fn kill_many_times(
    name: &str,
    options: &CreateOptions,
    qemu_format: Option<&str>,
    promise: Promise,
    rounds: u64,
) {
    let folder = Folder::new();
    let path = folder.join(name);
    create(&path, options).unwrap();
    let seed = 0xC0FFEE;
    let mut expected = Expected { sure: vec![0; (SIZE / SECTOR) as usize], open: HashMap::new() };
    let mut random = Random(seed);
    let mut next = 0;
    for round in 0..rounds {
        let reports = 1 + random.below(80);
        let Reported { done, flushed } = run_and_kill(&path, seed, next, u64::MAX, reports);
        let safe = if promise == Promise::Done { done } else { flushed };
        // The step after the last reported one may have been in progress.
        let end = done.map_or(next, |done| done + 1);
        for number in next..=end {
            expected.apply(seed, number, safe.is_some_and(|safe| number <= safe));
        }
        next = end + 1;
        let report = check(&path, None, false, Parents::Named).unwrap();
        assert!(report.is_sound(), "round {round}: {report}");
        let image = open(&path, &OpenOptions::reading(None)).unwrap();
        let bytes = whole(&image);
        drop(image);
        expected.settle(&bytes);
        if let Some(format) = qemu_format {
            // QEMU must agree. Leaks (3) are no errors.
            let checked = qemu_output("qemu-img", &["check", "-f", format, text(&path)]);
            assert!(matches!(checked.status.code(), Some(0 | 3)), "round {round}: {checked:?}");
            let back = folder.join("back.raw");
            qemu("qemu-img", &["convert", "-f", format, "-O", "raw", text(&path), text(&back)]);
            assert!(std::fs::read(&back).unwrap() == bytes, "round {round}");
        }
    }
}

#[test]
fn test_dynamic_vhdx_keeps_all_that_was_done_when_its_writer_is_killed() {
    let options = CreateOptions::new(Format::Vhdx, SIZE).with_block_size(1 << 20);
    kill_many_times("killed.vhdx", &options, Some("vhdx"), Promise::Done, 30);
}

#[test]
fn test_differencing_vhdx_keeps_all_that_was_done_when_its_writer_is_killed() {
    let folder = Folder::new();
    let parent = folder.join("parent.vhdx");
    create(&parent, &CreateOptions::new(Format::Vhdx, SIZE)).unwrap();
    let options = CreateOptions::child(Format::Vhdx, parent).with_block_size(1 << 20);
    kill_many_times("child.vhdx", &options, None, Promise::Done, 10);
}

#[test]
fn test_qcow2_keeps_all_that_was_flushed_when_its_writer_is_killed() {
    kill_many_times(
        "killed.qcow2",
        &CreateOptions::new(Format::Qcow2, SIZE),
        Some("qcow2"),
        Promise::Flushed,
        15,
    );
}
