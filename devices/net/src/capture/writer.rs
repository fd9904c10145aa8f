//! The thread that writes a capture.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::format::{self, Direction, PACKET_OVERHEAD};

/// Bytes of blocks that wait for the thread.
pub(super) const CAPACITY: usize = 4 << 20;

/// Takes records from queues, for the thread to write.
#[derive(Debug, Default)]
pub(super) struct Sink {
    state: Mutex<State>,
    changed: Condvar,
    recorded: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole blocks.
    blocks: Vec<u8>,
    /// The file cannot be written, or has ended: records are dropped.
    failed: bool,
    closing: bool,
}

/// The thread. Dropping it writes what waits and ends the file.
#[derive(Debug)]
pub(super) struct Writer {
    sink: Arc<Sink>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Records a frame of `length` bytes, which `copy` appends, or drops and counts it.
    pub(super) fn record(
        &self,
        direction: Direction,
        length: usize,
        copy: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut state = self.lock();
        let needed = length.next_multiple_of(4) + PACKET_OVERHEAD;
        if state.failed || state.blocks.len() + needed > CAPACITY {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.blocks.is_empty();
        format::packet(&mut state.blocks, direction, length, copy);
        drop(state);
        self.recorded.fetch_add(1, Ordering::Relaxed);
        if was_empty {
            self.changed.notify_one();
        }
    }

    /// Returns how many frames were recorded.
    pub(super) fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Returns how many frames were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Exchanges `empty` for the blocks that wait, and waits for some. `false`: the file ends.
    fn take(&self, empty: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        while state.blocks.is_empty() && !state.closing {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(empty, &mut state.blocks);
        !empty.is_empty()
    }

    /// Drops all records from now on.
    fn fail(&self) {
        let mut state = self.lock();
        state.failed = true;
        state.blocks = Vec::new();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread and writes the start of the file.
    pub(super) fn start(
        mut out: impl Write + Send + 'static,
        name: &str,
    ) -> io::Result<(Self, Arc<Sink>)> {
        let mut start = Vec::new();
        format::start(&mut start, name);
        out.write_all(&start)?;
        let sink = Arc::new(Sink::default());
        let shared = Arc::clone(&sink);
        let thread = thread::Builder::new().name("net-capture".into()).spawn(move || {
            if let Err(error) = write(&shared, &mut out) {
                tracing::warn!(%error, "a capture file cannot be written: it ends here");
                let mut state = shared.lock();
                state.failed = true;
                state.blocks = Vec::new();
            }
        })?;
        Ok((Self { sink: Arc::clone(&sink), thread: Some(thread) }, sink))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sink.lock().closing = true;
        self.sink.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; its result would be no use here.
            let _ = thread.join();
        }
        // Queues may outlive the file.
        self.sink.fail();
    }
}

fn write(sink: &Sink, out: &mut impl Write) -> io::Result<()> {
    let mut blocks = Vec::new();
    while sink.take(&mut blocks) {
        out.write_all(&blocks)?;
        blocks.clear();
    }
    format::statistics(&mut blocks, sink.recorded() + sink.dropped(), sink.dropped());
    out.write_all(&blocks)?;
    out.flush()
}
