//! File copy to the guest. A thread reads the file, so that slow storage holds up nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::ServiceError;
use crate::operation::{Completion, Done, Operation, Step, succeeded};
use crate::port::Port;
use crate::protocol::copy::{self, Destination, MAX_CHUNK};
use crate::protocol::{Agreed, Response, ServiceKind};

/// The time that the guest has to answer. Linux waits 30 s for its daemon, and then answers that it
/// failed.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Number of chunks that are read ahead: 48 KiB.
const READ_AHEAD: usize = 8;

/// Stack of the reading thread in bytes.
const THREAD_STACK: usize = 128 << 10;

/// O_NONBLOCK: opening a FIFO without a writer must not wait.
const NONBLOCK: i32 = 0o4000;

const KIND: ServiceKind = ServiceKind::Copy;

/// The progress of a copy. Clones show the same copy.
#[derive(Clone, Debug)]
pub struct CopyProgress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: u64,
    sent: AtomicU64,
    is_cancelled: AtomicBool,
    /// `None` while the copy runs.
    result: Mutex<Option<Result<(), ServiceError>>>,
}

impl CopyProgress {
    fn new(size: u64) -> Self {
        Self(Arc::new(Shared {
            size,
            sent: AtomicU64::new(0),
            is_cancelled: AtomicBool::new(false),
            result: Mutex::default(),
        }))
    }

    /// Returns the size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Returns the number of bytes that the guest has written.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Returns the result; `None` while the copy runs.
    pub fn result(&self) -> Option<Result<(), ServiceError>> {
        self.0.result.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Relaxed)
    }

    fn finish(&self, result: Result<(), ServiceError>) {
        let mut known = self.0.result.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert(result);
    }
}

/// A part of the file: its next bytes, or the error of reading them.
type Chunk = io::Result<Vec<u8>>;

/// Opens the file at `path` on a thread of its own, begins the copy on `port`, and reads the file.
/// `done` is called when the guest has accepted the copy.
pub(crate) fn start(
    port: Arc<Port>,
    path: PathBuf,
    destination: Destination,
    ready_timeout: Duration,
    done: Done<CopyProgress>,
) {
    let mut completion = Completion::new(KIND, done);
    // A completion that fails here is called by its drop.
    let builder = thread::Builder::new().name("copy".to_owned()).stack_size(THREAD_STACK);
    let _ = builder.spawn(move || {
        let opened = open(&path).and_then(|(file, size)| {
            let start = copy::start(&destination, size)
                .map_err(|error| ServiceError::Argument(format!("the destination: {error}")))?;
            Ok((file, size, start))
        });
        let (file, size, start) = match opened {
            Ok(opened) => opened,
            Err(error) => return completion.call(Err(error)),
        };
        let (sender, chunks) = sync_channel(READ_AHEAD);
        let copy = Copy {
            progress: CopyProgress::new(size),
            start,
            chunks,
            offset: 0,
            in_flight: 0,
            step: CopyStep::New,
            completion,
        };
        port.submit(Box::new(copy), ready_timeout);
        read(file, size, &sender, &port);
    });
}

/// Opens a file to copy. Returns its size.
fn open(path: &Path) -> Result<(File, u64), ServiceError> {
    let fail = |what: String| ServiceError::Host(format!("{}: {what}", path.display()));
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path);
    let file = file.map_err(|error| fail(format!("cannot open: {error}")))?;
    let metadata = file.metadata().map_err(|error| fail(error.to_string()))?;
    if !metadata.is_file() {
        return Err(fail("is no file; only files are copied".to_owned()));
    }
    Ok((file, metadata.len()))
}

/// Reads the file until its end, or until the copy ends.
fn read(mut file: File, size: u64, chunks: &SyncSender<Chunk>, port: &Port) {
    let mut left = size;
    while left != 0 {
        let length = usize::try_from(left).unwrap_or(MAX_CHUNK).min(MAX_CHUNK);
        let mut bytes = vec![0; length];
        let read = file.read_exact(&mut bytes).map(|()| bytes);
        let is_error = read.is_err();
        // The receiver is gone when the copy has ended.
        if chunks.send(read).is_err() || is_error {
            break;
        }
        port.wake();
        left -= length as u64;
    }
    port.wake();
}

/// The operation that copies a file.
struct Copy {
    progress: CopyProgress,
    /// The body of the first request.
    start: Vec<u8>,
    chunks: Receiver<Chunk>,
    /// Bytes that were sent, and of them those in the outstanding request.
    offset: u64,
    in_flight: u64,
    step: CopyStep,
    completion: Completion<CopyProgress>,
}

/// The last request of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyStep {
    New,
    Started,
    Copying,
    Completed,
    Cancelled,
}

impl Copy {
    fn send(&mut self, step: CopyStep, body: Vec<u8>) -> Step {
        self.step = step;
        Step::Send { body, timeout: TIMEOUT }
    }

    /// Ends the copy with an error. The guest removes the file.
    fn cancel(&mut self, error: ServiceError) -> Step {
        self.progress.finish(Err(error));
        self.send(CopyStep::Cancelled, copy::cancel())
    }

    /// Sends the next chunk.
    fn next_chunk(&mut self) -> Step {
        if self.progress.is_cancelled() {
            let message = "the copy was cancelled, because its client has disconnected";
            return self.cancel(ServiceError::Host(message.to_owned()));
        }
        if self.offset == self.progress.size() {
            return self.send(CopyStep::Completed, copy::complete());
        }
        match self.chunks.try_recv() {
            Ok(Ok(bytes)) => {
                let body = copy::write(self.offset, &bytes);
                self.in_flight = bytes.len() as u64;
                self.offset += self.in_flight;
                self.send(CopyStep::Copying, body)
            }
            Ok(Err(error)) => self.cancel(ServiceError::Host(format!("reading the file: {error}"))),
            Err(TryRecvError::Empty) => Step::Wait,
            Err(TryRecvError::Disconnected) => {
                self.cancel(ServiceError::Host("reading the file has ended early".to_owned()))
            }
        }
    }
}

impl Operation for Copy {
    fn next(&mut self, last: Option<Response>, _agreed: Agreed) -> Step {
        let result = last.as_ref().map_or(Ok(()), succeeded);
        match (self.step, result) {
            (CopyStep::New, _) => {
                let body = std::mem::take(&mut self.start);
                self.send(CopyStep::Started, body)
            }
            (CopyStep::Started, Err(error)) => {
                self.progress.finish(Err(error.clone()));
                self.completion.call(Err(error));
                Step::Done
            }
            (CopyStep::Started, Ok(())) => {
                self.completion.call(Ok(self.progress.clone()));
                self.step = CopyStep::Copying;
                self.next_chunk()
            }
            (CopyStep::Copying, Err(error)) => self.cancel(error),
            (CopyStep::Copying, Ok(())) => {
                let sent = std::mem::take(&mut self.in_flight);
                self.progress.0.sent.fetch_add(sent, Ordering::Relaxed);
                self.next_chunk()
            }
            (CopyStep::Completed, result) => {
                self.progress.finish(result);
                Step::Done
            }
            (CopyStep::Cancelled, _) => Step::Done,
        }
    }

    fn fail(mut self: Box<Self>, error: ServiceError) {
        self.progress.finish(Err(error.clone()));
        self.completion.call(Err(error));
    }
}
