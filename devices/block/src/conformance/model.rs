//! A model of the content that each sector may have, and long scripts of random requests that are
//! checked against it.

use std::sync::Arc;

use super::super::{Backend, Completion, IoBuffer, IoError, Operation, Queue, Request};
use super::CAPACITY;
use super::drive::{request, run, skewed};

const SECTOR: u64 = 512;

/// The contents that each sector may have: one if all requests succeeded, several after failures.
#[derive(Debug)]
pub struct Model {
    sectors: Vec<Vec<u32>>,
    stamp: u32,
    discard_zeroes: bool,
}

/// The stamp of a sector that may have any content.
const ANYTHING: u32 = u32::MAX;

impl Model {
    /// Returns the model of a backend of `capacity` bytes, all zero. `discard_zeroes`: discarded
    /// sectors read as zero.
    pub fn new(capacity: u64, discard_zeroes: bool) -> Self {
        Self { sectors: vec![vec![0]; (capacity / SECTOR) as usize], stamp: 0, discard_zeroes }
    }

    /// Returns bytes to write at `offset`, in whole sectors with a content that was never used
    /// before, and their stamp for [`Model::ended`].
    pub fn data(&mut self, offset: u64, length: u64) -> (Vec<u8>, u32) {
        self.stamp += 1;
        let first = offset / SECTOR;
        let data = (first..first + length / SECTOR).flat_map(|sector| content(sector, self.stamp));
        (data.collect(), self.stamp)
    }

    /// Records the end of a request that changes the content. `stamp` is that of its bytes; only
    /// writes use it.
    pub fn ended(
        &mut self,
        operation: Operation,
        offset: u64,
        length: u64,
        stamp: u32,
        result: Result<(), IoError>,
    ) {
        let new = match operation {
            Operation::Read | Operation::Flush => return,
            Operation::Write { .. } => stamp,
            Operation::Discard if !self.discard_zeroes => ANYTHING,
            Operation::Discard | Operation::WriteZeroes { .. } => 0,
        };
        let first = (offset / SECTOR) as usize;
        for sector in &mut self.sectors[first..first + (length / SECTOR) as usize] {
            if result.is_ok() {
                sector.clear();
            }
            sector.push(new);
        }
    }

    /// Checks that a read at `offset` may return `bytes`.
    ///
    /// # Panics
    /// A sector has a content that the model excludes.
    pub fn judge(&self, offset: u64, bytes: &[u8]) {
        for (sector, seen) in (offset / SECTOR..).zip(bytes.chunks(SECTOR as usize)) {
            let may = &self.sectors[sector as usize];
            let fits = |&stamp: &u32| stamp == ANYTHING || seen == content(sector, stamp);
            if !may.iter().any(fits) {
                let word = u64::from_le_bytes(seen[..8].try_into().expect("8 bytes"));
                panic!(
                    "sector {sector} may hold {may:?}, but holds {} of sector {}",
                    word >> 32,
                    word & 0xFFFF_FFFF
                );
            }
        }
    }
}

/// Returns the content of a sector: zero for stamp 0, otherwise its number and the stamp.
fn content(sector: u64, stamp: u32) -> [u8; SECTOR as usize] {
    let word = if stamp == 0 { 0 } else { u64::from(stamp) << 32 | sector };
    let mut bytes = [0; SECTOR as usize];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&word.to_le_bytes()));
    bytes
}

/// A small generator of repeatable random numbers.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

pub(super) fn check_one_by_one(backend: &Arc<dyn Backend>) {
    script(backend, 1, 1, 600);
}

pub(super) fn check_in_batches(backend: &Arc<dyn Backend>) {
    script(backend, 1, 16, 120);
}

pub(super) fn check_on_two_queues(backend: &Arc<dyn Backend>) {
    script(backend, 2, 8, 120);
}

/// Runs `rounds` batches of up to `most` requests, each in a range of its own, on the queues in
/// rotation. Then it reads the whole disk.
fn script(backend: &Arc<dyn Backend>, queues: usize, most: u64, rounds: u64) {
    let mut queues: Vec<_> = (0..queues).map(|_| backend.queue().unwrap()).collect();
    let mut model = model_of(backend);
    let mut random = Random(0x5EED_0001 + most);
    for _ in 0..rounds {
        let turn = random.below(queues.len() as u64) as usize;
        step(&mut *queues[turn], &mut model, &mut random, most);
    }
    for queue in &mut queues {
        read_all(&mut **queue, &model);
    }
}

/// Returns the model of a fresh backend of the suite.
pub(super) fn model_of(backend: &Arc<dyn Backend>) -> Model {
    Model::new(CAPACITY, backend.geometry().discard.is_some_and(|discard| discard.zeroes))
}

fn step(queue: &mut dyn Queue, model: &mut Model, random: &mut Random, most: u64) {
    let count = 1 + random.below(most);
    let stretch = CAPACITY / SECTOR / count;
    let mut sent = Vec::new();
    let mut batch = Vec::new();
    for id in 0..count {
        let first = random.below(stretch);
        let limit = [8, 64, 600][random.below(3) as usize];
        let length = (1 + random.below((stretch - first).min(limit))) * SECTOR;
        let offset = (id * stretch + first) * SECTOR;
        let (request, stamp) = draw(id, model, random, offset, length);
        sent.push((request.operation, offset, length, stamp));
        batch.push(request);
    }
    for (done, (operation, offset, length, stamp)) in run(queue, batch).into_iter().zip(sent) {
        assert_eq!(done.result, Ok(()), "{operation:?} of {length} at {offset}");
        judge(done, model, operation, offset, length);
        model.ended(operation, offset, length, stamp, Ok(()));
    }
}

fn judge(done: Completion, model: &Model, operation: Operation, offset: u64, length: u64) {
    if operation == Operation::Read {
        let mut buffer = done.request.buffer;
        let bytes = buffer.host_bytes().expect("host memory");
        model.judge(offset, &bytes[bytes.len() - length as usize..]);
    }
}

pub(super) fn draw(
    tag: u64,
    model: &mut Model,
    random: &mut Random,
    offset: u64,
    length: u64,
) -> (Box<Request>, u32) {
    let skew = [0, 512, 4, 3][random.below(4) as usize];
    match random.below(12) {
        0..=3 => (skewed(tag, Operation::Read, offset, &vec![0xCC; length as usize], skew), 0),
        write @ 4..=8 => {
            let (data, stamp) = model.data(offset, length);
            (skewed(tag, Operation::Write { fua: write == 8 }, offset, &data, skew), stamp)
        }
        9 => (request(tag, Operation::Flush, 0, vec![]), 0),
        clear => {
            let operation = match clear + random.below(2) {
                10 => Operation::Discard,
                clear => Operation::WriteZeroes { unmap: clear == 11 },
            };
            (Request::new(tag, operation, offset, length, IoBuffer::empty()), 0)
        }
    }
}

/// Reads the whole disk. A read may fail once.
pub(super) fn read_all(queue: &mut dyn Queue, model: &Model) {
    for offset in (0..CAPACITY).step_by(1 << 20) {
        let read = |queue: &mut dyn Queue| {
            run(queue, vec![request(0, Operation::Read, offset, vec![0xCC; 1 << 20])]).remove(0)
        };
        let mut done = read(queue);
        if done.result.is_err() {
            done = read(queue);
        }
        assert_eq!(done.result, Ok(()), "a read at {offset}, tried twice");
        judge(done, model, Operation::Read, offset, 1 << 20);
    }
}
