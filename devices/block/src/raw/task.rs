//! A request as a series of system calls: the next call, and the effect of its result. It makes no
//! call itself, so that rings and threads share it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bounce::Bounce;
use super::call::{Call, Memory, Way};
use super::image::Image;
use super::limits::{
    BOUNCE, MAX_CLEAR, MAX_IDLE_CALLS, MAX_IDLE_CALLS_WITHOUT_MEMORY, MAX_PIECE, MAX_PIECES,
};
use super::vectored::skip;
use crate::{Completion, IoError, Operation, Request};

/// Zeroes to write, for storage without an operation that zeroes.
#[repr(C, align(4096))]
struct Zeroes([u8; 64 << 10]);

static ZEROES: Zeroes = Zeroes([0; 64 << 10]);

/// A request in progress.
#[derive(Debug)]
pub(super) struct Task {
    request: Box<Request>,
    /// Offset of the remaining range.
    progress: u64,
    /// Index of the first incomplete piece of the buffer.
    first: usize,
    stage: Stage,
    bounce: Option<Bounce>,
    /// Whether direct I/O was refused for this request.
    cached: bool,
    copied: u64,
    idle_calls: u32,
}

/// The next step of a [`Task`].
#[derive(Debug)]
pub(super) enum Next {
    /// Make this call, and pass its result to [`Task::returned`].
    Call(Call),
    /// The request is complete.
    Done(Result<(), IoError>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Move,
    /// A part of the move goes through the bounce buffer.
    Bounce(usize),
    Sync,
    Punch,
    ZeroRange,
    WriteZeroes,
    DiscardBlocks,
    Done(Result<(), IoError>),
}

impl Task {
    pub(super) fn new(request: Box<Request>) -> Self {
        Self {
            request,
            progress: 0,
            first: 0,
            stage: Stage::Begin,
            bounce: None,
            cached: false,
            copied: 0,
            idle_calls: 0,
        }
    }

    /// Makes all calls of the request on this thread.
    pub(super) fn run(mut self, image: &Image) -> Completion {
        loop {
            match self.next(image) {
                Next::Done(result) => return self.into_completion(result),
                Next::Call(Call::Sync) => {
                    let _alone =
                        image.flushing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let result = image.perform(Call::Sync);
                    self.returned(image, result);
                }
                Next::Call(call) => {
                    let result = image.perform(call);
                    self.returned(image, result);
                }
            }
        }
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    pub(super) fn into_completion(self, result: Result<(), IoError>) -> Completion {
        self.request.complete(result, self.copied)
    }

    /// Returns where the rest of the range begins.
    fn offset(&self) -> u64 {
        // Beyond the last offset only for a range that `begin` refuses.
        self.request.offset.saturating_add(self.progress)
    }

    /// Returns the bytes of the range that are not done.
    fn left(&self) -> u64 {
        self.request.length - self.progress
    }

    /// Returns the next call. The task must not be dropped or changed before the result of the call
    /// is known.
    pub(super) fn next(&mut self, image: &Image) -> Next {
        if self.stage == Stage::Begin {
            self.stage = match self.begin(image) {
                Ok(stage) => stage,
                Err(error) => Stage::Done(Err(error)),
            };
        }
        loop {
            let lacks = |what: &AtomicBool| what.load(Ordering::Relaxed);
            let clear = |mode| Call::Allocate {
                mode: mode | libc::FALLOC_FL_KEEP_SIZE,
                offset: self.offset(),
                length: self.left().min(MAX_CLEAR),
            };
            return Next::Call(match self.stage {
                Stage::Done(result) => return Next::Done(result),
                Stage::Begin | Stage::Move | Stage::Bounce(_) => self.next_move(image),
                Stage::Sync => Call::Sync,
                Stage::Punch if lacks(&image.lacks.punching) => {
                    self.stage = self.without_punching();
                    continue;
                }
                Stage::Punch => clear(libc::FALLOC_FL_PUNCH_HOLE),
                Stage::ZeroRange if lacks(&image.lacks.zeroing) => {
                    self.stage = Stage::WriteZeroes;
                    continue;
                }
                Stage::ZeroRange => clear(libc::FALLOC_FL_ZERO_RANGE),
                Stage::WriteZeroes => self.write_zeroes(image),
                Stage::DiscardBlocks if lacks(&image.lacks.discarding) => {
                    return Next::Done(Ok(()));
                }
                Stage::DiscardBlocks => Call::DiscardBlocks {
                    offset: self.offset(),
                    length: self.left().min(MAX_CLEAR),
                },
            });
        }
    }

    /// Takes the result of the last call: its count, or a negative error number.
    pub(super) fn returned(&mut self, image: &Image, result: i32) {
        let next = match result {
            0.. => self.succeeded(image, result as usize),
            _ => self.failed(image, result.saturating_neg()),
        };
        self.stage = next.unwrap_or_else(|error| Stage::Done(Err(error)));
    }

    fn begin(&mut self, image: &Image) -> Result<Stage, IoError> {
        if !image.contains(self.offset(), self.left()) {
            return Err(IoError::EndOfImage);
        }
        match self.request.operation {
            Operation::Flush if image.read_only => return Ok(Stage::Done(Ok(()))),
            Operation::Flush => {
                image.check_flushes()?;
                return Ok(Stage::Sync);
            }
            Operation::Read => {}
            _ if image.read_only => return Err(IoError::ReadOnly),
            Operation::Write { fua: true } => image.check_flushes()?,
            _ => {}
        }
        if self.left() == 0 {
            return Ok(Stage::Done(Ok(())));
        }
        Ok(match self.request.operation {
            Operation::Discard if image.is_device => Stage::DiscardBlocks,
            Operation::Discard | Operation::WriteZeroes { unmap: true } => Stage::Punch,
            Operation::WriteZeroes { unmap: false } => Stage::ZeroRange,
            _ => Stage::Move,
        })
    }

    /// Returns the next call of a read or write.
    fn next_move(&mut self, image: &Image) -> Call {
        let rest = self.request.buffer.iovecs().get(self.first..).unwrap_or_default();
        let align = image
            .align()
            .filter(|align| !self.cached && align.fits_medium(self.offset(), self.left()));
        let way = if align.is_some() { Way::Direct } else { Way::Cached };
        self.stage = Stage::Move;
        let memory = if align.is_some_and(|align| !align.fits_memory(rest)) {
            let len = BOUNCE.min(self.left() as usize);
            let bounce = self.bounce.get_or_insert_with(Bounce::new);
            if self.request.operation != Operation::Read {
                bounce.gather(rest, len);
            }
            self.stage = Stage::Bounce(len);
            Memory::One(bounce.as_ptr(), len as u32)
        } else {
            match rest {
                [piece, others @ ..] if others.is_empty() || piece.iov_len >= MAX_PIECE => {
                    Memory::One(piece.iov_base.cast(), piece.iov_len.min(MAX_PIECE) as u32)
                }
                _ => Memory::Many(rest.as_ptr(), rest.len().min(MAX_PIECES) as u32),
            }
        };
        let offset = self.offset();
        match self.request.operation {
            Operation::Read => Call::Read { memory, offset, way },
            operation => {
                let forced = operation == Operation::Write { fua: true };
                let durable = forced && !image.lacks.dsync.load(Ordering::Relaxed);
                Call::Write { memory, offset, way, durable }
            }
        }
    }

    fn write_zeroes(&mut self, image: &Image) -> Call {
        let align = image
            .align()
            .filter(|align| !self.cached && align.fits_medium(self.offset(), self.left()));
        let way = if align.is_some() { Way::Direct } else { Way::Cached };
        let len = self.left().min(ZEROES.0.len() as u64) as u32;
        let memory = Memory::One(ZEROES.0.as_ptr().cast_mut(), len);
        Call::Write { memory, offset: self.offset(), way, durable: false }
    }

    fn succeeded(&mut self, image: &Image, count: usize) -> Result<Stage, IoError> {
        self.idle_calls = 0;
        match self.stage {
            Stage::Move | Stage::Bounce(_) | Stage::WriteZeroes if count == 0 => {
                Err(IoError::EndOfImage)
            }
            Stage::Move | Stage::Bounce(_) => {
                self.moved(image, count);
                match self.request.operation {
                    _ if self.left() != 0 => Ok(Stage::Move),
                    Operation::Write { fua: true } if image.lacks.dsync.load(Ordering::Relaxed) => {
                        Ok(Stage::Sync)
                    }
                    _ => Ok(Stage::Done(Ok(()))),
                }
            }
            Stage::Sync => {
                // Another flush may have received the error of data that this flush covers, too.
                image.check_flushes()?;
                image.check_length()?;
                Ok(Stage::Done(Ok(())))
            }
            Stage::WriteZeroes => Ok(self.cleared(count as u64)),
            Stage::Punch | Stage::ZeroRange | Stage::DiscardBlocks => Ok(self.cleared(MAX_CLEAR)),
            Stage::Begin | Stage::Done(_) => Ok(self.stage),
        }
    }

    fn moved(&mut self, image: &Image, count: usize) {
        let count = count.min(self.left() as usize);
        let (offset, left) = (self.offset(), self.left());
        let rest = self.request.buffer.iovecs_mut().get_mut(self.first..).unwrap_or_default();
        if let (Stage::Bounce(_), Some(bounce)) = (self.stage, &self.bounce) {
            self.copied += count as u64;
            if self.request.operation == Operation::Read {
                bounce.scatter(rest, count);
            }
        } else if let Some(align) = image.align()
            && (self.cached || !align.fits_medium(offset, left))
        {
            // These bytes should have bypassed the page cache.
            self.copied += count as u64;
        }
        self.first += skip(rest, count);
        self.progress += count as u64;
    }

    /// Counts `count` bytes as cleared without data, at most the rest of the range.
    fn cleared(&mut self, count: u64) -> Stage {
        let count = count.min(self.left());
        self.progress += count;
        if self.left() == 0 { Stage::Done(Ok(())) } else { self.stage }
    }

    fn failed(&mut self, image: &Image, code: i32) -> Result<Stage, IoError> {
        if matches!(code, libc::EINTR | libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS) {
            self.idle_calls += 1;
            let limit = match code {
                libc::ENOMEM | libc::ENOBUFS => MAX_IDLE_CALLS_WITHOUT_MEMORY,
                _ => MAX_IDLE_CALLS,
            };
            if code == libc::EINTR || self.idle_calls < limit {
                return Ok(self.stage);
            }
        }
        let unknown = matches!(code, libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY);
        let refused = unknown || code == libc::EINVAL;
        let forced = self.request.operation == Operation::Write { fua: true };
        let lacks = |what: &AtomicBool| {
            what.swap(unknown || what.load(Ordering::Relaxed), Ordering::Relaxed)
        };
        match self.stage {
            Stage::Move | Stage::Bounce(_) | Stage::WriteZeroes
                if code == libc::EINVAL && !self.cached && image.align().is_some() =>
            {
                // The storage needs a larger alignment than it reported.
                self.cached = true;
                Ok(if self.stage == Stage::WriteZeroes { self.stage } else { Stage::Move })
            }
            Stage::Move | Stage::Bounce(_)
                if refused && forced && !image.lacks.dsync.load(Ordering::Relaxed) =>
            {
                image.lacks.dsync.store(true, Ordering::Relaxed);
                Ok(Stage::Move)
            }
            Stage::Move | Stage::Bounce(_) if forced => {
                if code == libc::EIO {
                    image.lose_flush();
                }
                Err(error(code))
            }
            Stage::Sync => {
                image.lose_flush();
                Err(error(code))
            }
            // A refused range is no reason to stop trying others.
            Stage::Punch if refused => {
                lacks(&image.lacks.punching);
                Ok(self.without_punching())
            }
            Stage::ZeroRange if refused => {
                lacks(&image.lacks.zeroing);
                Ok(Stage::WriteZeroes)
            }
            Stage::DiscardBlocks if refused => {
                lacks(&image.lacks.discarding);
                Ok(Stage::Done(Ok(())))
            }
            _ => Err(error(code)),
        }
    }

    fn without_punching(&self) -> Stage {
        match self.request.operation {
            Operation::Discard => Stage::Done(Ok(())),
            _ => Stage::ZeroRange,
        }
    }
}

fn error(code: i32) -> IoError {
    io::Error::from_raw_os_error(code).into()
}
