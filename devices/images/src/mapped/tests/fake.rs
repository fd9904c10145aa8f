//! A format over a disk in memory: from [`SLOW`] on, every lookup needs the metadata thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use synthvm_block::BlockSize;
use synthvm_block::conformance::Gate;
use synthvm_block::{Backend, Discard, Fault, Faulty, Geometry, IoError, Operation, RamDisk};

use crate::mapped::{Changes, Clearing, Extents, InFile, Known, Location, Map, Step, StepResult};

pub(super) const CAPACITY: u64 = 64 << 20;
/// The offset from which on lookups block.
pub(super) const SLOW: u64 = 1 << 20;
/// Bytes that one step handles.
pub(super) const BLOCK: u64 = 4096;

/// A call of the format, or a request to its first file, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    Locate,
    Allocate,
    Clear,
    Barrier,
    WriteBack,
    /// The file is flushed.
    Flush,
    /// A part of the file is zeroed.
    Zeroes,
}

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) files: Vec<Arc<dyn Backend>>,
    pub(super) written: Vec<usize>,
    /// The bytes at [`SLOW`], if they are not in the file.
    pub(super) memory: Option<Arc<[u8]>>,
    /// The file with runs that are known without a lookup, below [`SLOW`].
    pub(super) runs: Option<usize>,
    /// Whether each write needs a barrier.
    pub(super) needs_barrier: bool,
    pub(super) capacity: AtomicU64,
    pub(super) fail_barrier: AtomicBool,
    pub(super) panics: AtomicBool,
    /// Whether structures exist only in memory.
    pub(super) dirty: AtomicBool,
    pub(super) changes: Changes,
    /// The gate at which every call that may block waits.
    pub(super) gate: Gate,
    pub(super) barriers: AtomicU64,
    pub(super) log: Arc<Mutex<Vec<Log>>>,
}

impl Default for Fake {
    fn default() -> Self {
        let log = Arc::<Mutex<Vec<Log>>>::default();
        let seen = Arc::clone(&log);
        let disk = Arc::new(RamDisk::new(CAPACITY).unwrap());
        let file = Arc::new(Faulty::new(disk, move |request| {
            match request.operation {
                Operation::Flush => seen.lock().unwrap().push(Log::Flush),
                Operation::WriteZeroes { .. } => seen.lock().unwrap().push(Log::Zeroes),
                _ => {}
            }
            Fault::None
        }));
        Self {
            files: vec![file],
            written: vec![0],
            memory: None,
            runs: None,
            needs_barrier: false,
            capacity: AtomicU64::new(CAPACITY),
            fail_barrier: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            changes: Changes::new(),
            gate: Gate::default(),
            barriers: AtomicU64::new(0),
            log,
        }
    }
}

impl Fake {
    pub(super) fn log(&self) -> Vec<Log> {
        self.log.lock().unwrap().clone()
    }

    fn enter(&self, entry: Log) {
        self.log.lock().unwrap().push(entry);
        self.gate.pass();
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants it");
    }

    fn locate_any(&self, offset: u64, length: u64, extents: &mut Extents) {
        let Some(memory) = &self.memory else {
            return extents.push(length, Location::File { file: 0, offset });
        };
        let (mut at, end, memory_end) = (offset, offset + length, SLOW + memory.len() as u64);
        while at < end {
            let (until, location) = match at {
                _ if at < SLOW => (SLOW, Location::File { file: 0, offset: at }),
                _ if at < memory_end => {
                    let offset = (at - SLOW) as usize;
                    (memory_end, Location::Memory { bytes: Arc::clone(memory), offset })
                }
                _ => (end, Location::File { file: 0, offset: at }),
            };
            extents.push(until.min(end) - at, location);
            at = until.min(end);
        }
    }
}

fn step(length: u64) -> u64 {
    length.min(BLOCK)
}

impl Map for Fake {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.capacity.load(Ordering::Relaxed),
            block_size: BlockSize::B512,
            physical_block_size: 4096,
            read_only: false,
            write_cache: true,
            rotational: false,
            discard: Some(Discard { granularity: 4096, zeroes: true }),
        }
    }

    fn identity(&self) -> &[u8] {
        b"fake"
    }

    fn files(&self) -> &[Arc<dyn Backend>] {
        &self.files
    }

    fn written_files(&self) -> &[usize] {
        &self.written
    }

    fn try_run(&self, _write: bool, offset: u64, length: u64) -> Option<InFile> {
        self.runs.filter(|_| offset + length <= SLOW).map(|file| InFile { file, offset })
    }

    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        if offset + length > SLOW {
            // The answer `None` makes this addition void.
            extents.push(1, Location::Zero);
            return None;
        }
        extents.push(length, Location::File { file: 0, offset });
        Some(Ok(()))
    }

    fn try_allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        self.try_locate(offset, length, extents)
    }

    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        self.enter(Log::Locate);
        self.locate_any(offset, length, extents);
        Ok(Step::Done(length))
    }

    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        self.enter(Log::Allocate);
        if self.needs_barrier && self.barriers.load(Ordering::Relaxed) == 0 {
            return Ok(Step::Barrier);
        }
        self.locate_any(offset, length, extents);
        Ok(Step::Done(length))
    }

    /// Clears every other block, so that neighbours are not merged.
    fn clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        self.enter(Log::Clear);
        if !how.may_unmap() {
            let half = step(length) / 2;
            extents.push(step(length) - half, Location::File { file: 0, offset: offset + half });
            extents.push(half, Location::File { file: 0, offset });
        }
        Ok(Step::Done(step(length)))
    }

    fn barrier(&self) -> Result<(), IoError> {
        self.enter(Log::Barrier);
        if self.fail_barrier.load(Ordering::Relaxed) {
            return Err(IoError::Os(libc::EIO));
        }
        self.barriers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn is_written_back(&self) -> bool {
        !self.dirty.load(Ordering::Relaxed)
    }

    fn write_back(&self) -> StepResult {
        self.enter(Log::WriteBack);
        self.dirty.store(false, Ordering::Relaxed);
        Ok(Step::Done(0))
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.capacity.store(capacity, Ordering::Relaxed);
        Ok(())
    }
}
