//! The log of changes to files, in order of issue and of completion.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::change::Change;
use super::contents::Contents;

/// The part of an image that a change belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The disk's bytes, through a queue of the raw backend.
    Data,
    /// The structures of a format.
    Structures,
}

/// A change in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Index of the file in the order of [`Recorder::attach`].
    pub file: usize,
    /// The part of the image.
    pub source: Source,
    /// The change. A short write has only the bytes that were written.
    pub change: Change,
    /// Number of the event of its issue. Issues and completions are numbered together, from 0.
    pub issued: usize,
    /// Number of the event of its completion. `None` while it is in progress.
    pub completed: Option<usize>,
}

/// Records changes of files. Clones share one log.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    files: Vec<Attached>,
    ops: Vec<Op>,
    events: usize,
}

#[derive(Debug)]
struct Attached {
    /// Device and inode. A file that is opened again continues its part of the log.
    identity: (u64, u64),
    name: String,
    begin: Contents,
}

impl Recorder {
    /// Returns a recorder with an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the handle that records changes of `file` at `path`. The present content of the file
    /// counts as durable. A file that was attached before continues its part of the log.
    ///
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn attach(&self, path: &Path, file: &File, source: Source) -> io::Result<Trace> {
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        let mut inner = self.lock();
        let known = inner.files.iter().position(|attached| attached.identity == identity);
        let file = match known {
            Some(index) => index,
            None => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let begin = Contents::read(file, metadata.len())?;
                inner.files.push(Attached { identity, name, begin });
                inner.files.len() - 1
            }
        };
        Ok(Trace { recorder: self.clone(), file, source })
    }

    /// Returns the number of events so far. All of them lie before this position of the log.
    pub fn position(&self) -> usize {
        self.lock().events
    }

    /// Returns a copy of the log.
    pub fn log(&self) -> Log {
        let inner = self.lock();
        let files =
            inner.files.iter().map(|file| (file.name.clone(), file.begin.clone())).collect();
        Log { files, ops: inner.ops.clone(), events: inner.events }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the changes of one file.
#[derive(Clone, Debug)]
pub struct Trace {
    recorder: Recorder,
    file: usize,
    source: Source,
}

/// The record of a change that was issued.
#[derive(Debug)]
#[must_use = "a change that never completes is never durable"]
pub struct Ticket(usize);

impl Trace {
    /// Records the issue of `change`. The caller must call it before the system call.
    pub fn issue(&self, change: Change) -> Ticket {
        let mut inner = self.recorder.lock();
        let issued = inner.events;
        inner.events += 1;
        inner.ops.push(Op {
            file: self.file,
            source: self.source,
            change,
            issued,
            completed: None,
        });
        Ticket(inner.ops.len() - 1)
    }

    /// Records the completion of the change of `ticket`, after the system call. The result is the
    /// number of bytes of a write that were written, or `None` if all of the change was made. An
    /// error removes the change from the log.
    pub fn complete(&self, Ticket(index): Ticket, result: Result<Option<usize>, ()>) {
        let mut inner = self.recorder.lock();
        let event = inner.events;
        inner.events += 1;
        let Some(op) = inner.ops.get_mut(index) else { return };
        op.completed = Some(event);
        match (result, &mut op.change) {
            (Ok(Some(count)), Change::Write { bytes, .. }) => bytes.truncate(count),
            (Ok(_), _) => {}
            // No test makes the file system fail in part. A failed change stays in the log as a
            // change of no bytes.
            (Err(()), change) => {
                *change = Change::Write { offset: 0, bytes: Vec::new(), durable: false }
            }
        }
    }

    /// Makes a change by `call` and records its issue and its completion.
    ///
    /// # Errors
    /// The errors of `call`.
    pub fn record<T, E>(
        &self,
        change: Change,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let ticket = self.issue(change);
        let result = call();
        self.complete(ticket, result.as_ref().map(|_| None).map_err(|_| ()));
        result
    }
}

/// A recorded log.
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) files: Vec<(String, Contents)>,
    pub(super) ops: Vec<Op>,
    pub(super) events: usize,
}

impl Log {
    /// The changes, in order of issue.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Removes the changes that `which` selects, as if the program had not made them. A test
    /// removes a barrier in this way, and shows that the states reveal it. The positions of the
    /// other changes stay.
    #[must_use]
    pub fn without(mut self, which: impl Fn(usize, &Op) -> bool) -> Self {
        let mut index = 0;
        self.ops.retain(|op| {
            index += 1;
            !which(index - 1, op)
        });
        self
    }
}
