//! Scripts of requests to a disk, and the promises that follow from their answers.

use std::sync::Arc;

use super::Recorder;
use super::contents::SECTOR;
use super::promises::{Promises, Span, content};
use crate::conformance::drive::{request, run};
use crate::conformance::model::Random;
use crate::{Backend, IoBuffer, Operation, Request};

/// One step of a script. Ranges are in sectors of 512 bytes: first and count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A write of new content.
    Write {
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
        /// Force unit access.
        fua: bool,
    },
    /// A discard or zeroing.
    Clear {
        /// [`Operation::Discard`] or [`Operation::WriteZeroes`].
        operation: Operation,
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// A flush: all acknowledged changes become durable.
    Flush,
    /// Several of the steps above, submitted together. Their ranges do not overlap.
    Batch(Vec<Step>),
    /// Another capacity of the disk, in bytes.
    Resize(u64),
    /// The disk is closed properly and opened again.
    Reopen,
}

impl Step {
    /// Returns a write without force unit access.
    pub const fn write(first: u64, count: u64) -> Self {
        Self::Write { first, count, fua: false }
    }

    /// Returns a write with force unit access.
    pub const fn fua(first: u64, count: u64) -> Self {
        Self::Write { first, count, fua: true }
    }

    /// Returns a discard.
    pub const fn discard(first: u64, count: u64) -> Self {
        Self::Clear { operation: Operation::Discard, first, count }
    }

    /// Returns a write of zeroes.
    pub const fn zeroes(first: u64, count: u64, unmap: bool) -> Self {
        Self::Clear { operation: Operation::WriteZeroes { unmap }, first, count }
    }
}

/// Runs `steps` on the disk that `open` returns and closes it properly. Returns the promises of the
/// disk. `promises` are those of the fresh disk.
///
///
/// # Panics
/// A request fails.
pub fn run_script(
    steps: &[Step],
    recorder: &Recorder,
    mut promises: Promises,
    open: &dyn Fn() -> Arc<dyn Backend>,
) -> Promises {
    let mut disk = open();
    let mut queue = disk.queue().expect("a queue");
    // Lower stamps are those of the content before the script.
    let mut stamp = 1000;
    for step in steps {
        let submitted = recorder.position();
        let span = |recorder: &Recorder| Span { submitted, acknowledged: recorder.position() };
        match step {
            Step::Resize(capacity) => {
                disk.resize(*capacity).expect("another capacity");
                promises.resized(*capacity, span(recorder));
            }
            Step::Reopen => {
                drop(queue);
                drop(disk);
                disk = open();
                queue = disk.queue().expect("a queue");
            }
            step => {
                let steps =
                    if let Step::Batch(steps) = step { steps } else { std::slice::from_ref(step) };
                let zeroes = disk.geometry().discard.is_none_or(|discard| discard.zeroes);
                batch(steps, &mut *queue, recorder, &mut promises, &mut stamp, zeroes);
            }
        }
    }
    promises
}

fn batch(
    steps: &[Step],
    queue: &mut dyn crate::Queue,
    recorder: &Recorder,
    promises: &mut Promises,
    stamp: &mut u32,
    discard_zeroes: bool,
) {
    let submitted = recorder.position();
    let first_stamp = *stamp;
    let mut requests = Vec::new();
    for (id, step) in (0..).zip(steps) {
        *stamp += 1;
        requests.push(match step {
            Step::Write { first, count, fua } => {
                let bytes =
                    (*first..first + count).flat_map(|sector| content(sector, *stamp)).collect();
                request(id, Operation::Write { fua: *fua }, first * SECTOR, bytes)
            }
            Step::Clear { operation, first, count } => {
                let (offset, length) = (first * SECTOR, count * SECTOR);
                Request::new(id, *operation, offset, length, IoBuffer::empty())
            }
            Step::Flush => request(id, Operation::Flush, 0, Vec::new()),
            Step::Batch(_) | Step::Resize(_) | Step::Reopen => panic!("{step:?} in a batch"),
        });
    }
    let done = run(queue, requests);
    let span = Span { submitted, acknowledged: recorder.position() };
    for ((step, done), stamp) in steps.iter().zip(done).zip(first_stamp + 1..) {
        assert_eq!(done.result, Ok(()), "{step:?}");
        match *step {
            Step::Write { first, count, fua } => promises.wrote(first, count, stamp, span, fua),
            Step::Clear { operation: Operation::Discard, first, count } if !discard_zeroes => {
                promises.discarded(first, count, span);
            }
            Step::Clear { first, count, .. } => promises.wrote(first, count, 0, span, false),
            _ => promises.flushed(span),
        }
    }
}

/// Returns a random script of `count` steps on some blocks of a disk. `blocks`: the first sector of
/// each block, which has `block` sectors. Equal seeds give equal scripts.
pub fn random_script(seed: u64, count: usize, blocks: &[u64], block: u64) -> Vec<Step> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let range = |random: &mut Random| {
        let begin = blocks[random.below(blocks.len() as u64) as usize];
        let within = random.below(block);
        (begin + within, 1 + random.below((block - within).min(24)))
    };
    let mut step = || {
        let (first, count) = range(&mut random);
        let whole = first / block * block;
        match random.below(16) {
            0..=7 => Step::write(first, count),
            8 | 9 => Step::fua(first, count),
            10 => Step::discard(whole, block),
            11 => Step::discard(first, count),
            12 => Step::zeroes(whole, block, true),
            13 => Step::zeroes(first, count, random.below(2) == 0),
            _ => Step::Flush,
        }
    };
    (0..count).map(|_| step()).collect()
}
