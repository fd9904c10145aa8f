//! Writing a trace. Records go through a bounded queue to a thread, so that a slow file never
//! holds up the machine: records that find the queue full are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tracing::warn;
use vmbus_host::{BusTrace, TracedPacket};
use vmbus_protocol::message::Direction;

use super::format;

/// Records that wait for the file: at most some hundred KiB.
const MAX_QUEUED: usize = 4096;
/// Bytes of the longest trace. Later records are dropped and counted.
const MAX_FILE: u64 = 1 << 30;

/// A new file for a trace. Dropping it removes the file; `start` writes to it.
#[derive(Debug)]
pub struct TraceFile {
    /// `None` once the trace has started.
    file: Option<File>,
    path: PathBuf,
}

impl TraceFile {
    /// Creates the file.
    ///
    /// # Errors
    /// It exists, or cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(TraceFile { file: Some(file), path: path.to_owned() })
    }

    /// Starts the thread that writes the trace. Dropping the guard ends the trace.
    pub(crate) fn start(mut self) -> io::Result<(Arc<Trace>, TraceGuard)> {
        let file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        start(file, self.path.clone(), MAX_QUEUED, MAX_FILE)
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The machine did not start: the file is empty, and new.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The sink of a bus.
#[derive(Debug)]
pub(crate) struct Trace {
    queue: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    begin: Instant,
}

/// Ends the trace on drop.
pub(crate) struct TraceGuard {
    queue: SyncSender<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

pub(super) fn start(
    file: impl Write + Send + 'static,
    path: PathBuf,
    queued: usize,
    limit: u64,
) -> io::Result<(Arc<Trace>, TraceGuard)> {
    let (queue, records) = sync_channel(queued);
    let dropped = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let writer = Writer {
        file: BufWriter::new(file),
        path,
        dropped: Arc::clone(&dropped),
        begin,
        left: limit,
    };
    let thread = thread::Builder::new()
        .name("trace".to_owned())
        .stack_size(256 << 10)
        .spawn(move || writer.run(&records))?;
    let trace = Arc::new(Trace { queue: queue.clone(), dropped, begin });
    Ok((trace, TraceGuard { queue, thread: Some(thread) }))
}

impl Trace {
    fn put(&self, record: Vec<u8>) {
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        nanoseconds(self.begin)
    }
}

impl BusTrace for Trace {
    fn message(&self, direction: Direction, message: &[u8]) {
        self.put(format::message(self.now(), direction, message));
    }

    fn packet(&self, packet: &TracedPacket<'_>) {
        self.put(format::packet(self.now(), packet));
    }
}

impl Drop for TraceGuard {
    fn drop(&mut self) {
        // An empty record ends the thread. It fails when the thread has ended.
        let _ = self.queue.send(Vec::new());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer<W: Write> {
    file: BufWriter<W>,
    path: PathBuf,
    dropped: Arc<AtomicU64>,
    begin: Instant,
    /// Bytes until the trace has its largest size.
    left: u64,
}

impl<W: Write> Writer<W> {
    fn run(mut self, records: &Receiver<Vec<u8>>) {
        if let Err(error) = self.write_all(records) {
            warn!("--trace-bus {}: {error}; the trace ends here", self.path.display());
        }
    }

    fn write_all(&mut self, records: &Receiver<Vec<u8>>) -> io::Result<()> {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.file.write_all(&format::header(u64::try_from(start).unwrap_or(u64::MAX)))?;
        loop {
            let record = match records.try_recv() {
                Ok(record) => record,
                Err(TryRecvError::Empty) => {
                    // Nothing is left to write: a machine that is killed now has a whole trace.
                    self.file.flush()?;
                    match records.recv() {
                        Ok(record) => record,
                        Err(_) => return Ok(()),
                    }
                }
                Err(TryRecvError::Disconnected) => return self.file.flush(),
            };
            if record.is_empty() {
                self.count_dropped()?;
                return self.file.flush();
            }
            match self.left.checked_sub(record.len() as u64) {
                Some(left) => {
                    self.left = left;
                    self.count_dropped()?;
                    self.file.write_all(&record)?;
                }
                None => {
                    self.left = 0;
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Writes how many records were dropped since the last time, if any.
    fn count_dropped(&mut self) -> io::Result<()> {
        match self.dropped.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            count => self.file.write_all(&format::dropped(nanoseconds(self.begin), count)),
        }
    }
}

fn nanoseconds(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
