//! Images of hostile authors: opened, checked, read, written, resized, closed and opened again, and
//! compared with the written data. No other file is ever opened, except the parent that the user
//! names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use synthvm_block::conformance::one;
use synthvm_block::{Backend, IoBuffer, IoError, IoMode, Operation, Queue, Request};
use synthvm_images::{Format, OpenOptions, Parents, check, info, open};

use crate::image_bases::{self, Base, MIB};
use crate::image_changes::change;
use crate::input::Input;
use crate::memory_file::{MemoryFile, PAGE};

/// Most steps of one input.
const MAX_STEPS: usize = 24;
/// Number of locations that are read when the whole disk is.
const LOOKS: u64 = 64;
/// Most bytes by which a disk grows.
const MAX_GROWTH: u64 = 64 * MIB;

struct Fixture {
    bases: Vec<Base>,
    image: MemoryFile,
    parent: MemoryFile,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new({
        let bases = image_bases::all();
        Fixture { bases, image: MemoryFile::new(), parent: MemoryFile::new() }
    });
}

/// Runs one input. Layout: the number of the sound image, flags (1: read-only, 2: its parent is not
/// named), its changes (`image_changes::change`), then steps.
pub fn run(data: &[u8]) {
    FIXTURE.with_borrow_mut(|fixture| {
        let mut input = Input::new(data);
        let base = &fixture.bases[usize::from(input.u8()) % fixture.bases.len()];
        let flags = input.u8();
        fixture.image.fill(base.length, &base.pages);
        let is_changed = change(base, &fixture.image, &mut input);
        let parent = (base.has_parent && flags & 2 == 0).then(|| {
            let parent = &fixture.bases[0];
            fixture.parent.fill(parent.length, &parent.pages);
            fixture.parent.path()
        });
        let path = fixture.image.path();
        let options = OpenOptions {
            read_only: flags & 1 != 0 || base.read_only,
            format: Some(base.format),
            io: IoMode::Sync,
            parent,
            parents: Parents::Refuse,
            ..OpenOptions::default()
        };
        look(&path, base.format);
        // The structures of a qcow2 image are not checked as a whole: if two clusters have one
        // location, both are lost.
        let strict = base.format != Format::Qcow2 || !is_changed;
        let mut session =
            Session { path: &path, options, strict, open: None, known: BTreeMap::new() };
        let opened = session.reopen();
        assert!(
            opened || is_changed || (base.format, base.has_parent) != (Format::Vhdx, false),
            "a sound image opens"
        );
        if opened {
            session.read_all();
            for _ in 0..MAX_STEPS {
                if input.is_empty() {
                    break;
                }
                session.step(&mut input);
            }
            session.close_and_compare();
        }
        drop(session);
        assert_eq!(
            (fixture.image.users(), fixture.parent.users()),
            (1, 1),
            "every file is closed again"
        );
        if base.has_parent && flags & 2 == 0 {
            let parent = &fixture.bases[0];
            assert_eq!(fixture.parent.len(), parent.length);
            parent.pages.iter().for_each(|(offset, page)| {
                assert_eq!(fixture.parent.read(*offset, page.len()), *page)
            });
        }
    });
}

/// Runs the tools on the image. Without repair, they must not change it.
fn look(path: &Path, format: Format) {
    let _ = info(path, Some(format), Parents::Refuse).map(|info| info.to_string());
    let _ = check(path, Some(format), false, Parents::Refuse).map(|report| report.to_string());
}

struct Session<'a> {
    path: &'a Path,
    options: OpenOptions,
    /// Whether all data must be there that was written without an error.
    strict: bool,
    open: Option<Open>,
    /// The content that each page of the disk must have, for pages that this input wrote.
    known: BTreeMap<u64, u8>,
}

struct Open {
    // Fields drop in order, and the queue must be dropped before its image.
    queue: Box<dyn Queue>,
    image: Arc<dyn Backend>,
}

impl Session<'_> {
    fn reopen(&mut self) -> bool {
        self.open = None;
        let Ok(image) = open(self.path, &self.options) else { return false };
        let queue = image.queue().expect("a queue");
        self.open = Some(Open { queue, image });
        true
    }

    fn open(&mut self) -> &mut Open {
        self.open.as_mut().expect("an open image")
    }

    fn capacity(&mut self) -> u64 {
        self.open().image.geometry().capacity
    }

    fn execute(
        &mut self,
        operation: Operation,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, IoError> {
        one(&mut *self.open().queue, operation, offset, bytes)
    }

    /// Reads locations all over the disk, and checks its extents.
    fn read_all(&mut self) {
        let capacity = self.capacity();
        let block = u64::from(self.open().image.geometry().block_size.bytes());
        assert!(capacity >= block && capacity % block == 0);
        let step = (capacity / LOOKS).next_multiple_of(block).max(block);
        let mut at = 0;
        while at < capacity {
            let length = PAGE.min(capacity - at);
            let _ = self.execute(Operation::Read, at, vec![0; length as usize]);
            at += step;
        }
        let mut at = 0;
        for _ in 0..LOOKS {
            match self.open().image.extent(at) {
                Ok(extent) if at < capacity => {
                    assert!(
                        extent.length != 0 && extent.length <= capacity - at,
                        "{extent:?} at {at} of {capacity}"
                    );
                    at += extent.length;
                }
                _ => break,
            }
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.u8();
        match operation % 9 {
            0 | 1 => self.write(input, operation & 0x80 != 0),
            2 => {
                let Some((first, count, _)) = self.pages(input) else { return };
                let read = self.execute(
                    Operation::Read,
                    first * PAGE,
                    vec![0xA5; (count * PAGE) as usize],
                );
                if let Ok(bytes) = read {
                    self.compare(first, &bytes);
                }
            }
            3 => self.clear(input, Operation::Discard),
            4 => self.clear(input, Operation::WriteZeroes { unmap: operation & 0x80 != 0 }),
            5 => {
                if self.execute(Operation::Flush, 0, Vec::new()).is_err() {
                    self.known.clear();
                }
            }
            6 => self.resize(input),
            7 => self.close_and_compare(),
            _ => self.read_all(),
        }
    }

    /// Returns the first page, the pages (up to 600 KiB: more than a table of a small qcow2 image
    /// covers) and a byte. `None`: the disk is too small.
    fn pages(&mut self, input: &mut Input<'_>) -> Option<(u64, u64, u8)> {
        let (place, count, byte) = (input.u16(), input.u8(), input.u8());
        let pages = self.capacity() / PAGE;
        let near = u64::from(place & 0x3FFF);
        let first = match place >> 14 {
            0 | 1 => near,
            2 => pages / 2 + near,
            _ => pages.checked_sub(1 + near)?,
        };
        let count = 1 + u64::from(count) % 150;
        (first < pages).then(|| (first, count.min(pages - first), byte))
    }

    fn write(&mut self, input: &mut Input<'_>, fua: bool) {
        let Some((first, count, byte)) = self.pages(input) else { return };
        let bytes = vec![byte; (count * PAGE) as usize];
        let written = self.execute(Operation::Write { fua }, first * PAGE, bytes);
        self.know(first, count, written.is_ok().then_some(byte));
    }

    fn clear(&mut self, input: &mut Input<'_>, operation: Operation) {
        let Some((first, count, _)) = self.pages(input) else { return };
        let discard = self.open().image.geometry().discard;
        let zeroes =
            operation != Operation::Discard || discard.is_some_and(|discard| discard.zeroes);
        if operation == Operation::Discard && discard.is_none() {
            return;
        }
        let queue = &mut *self.open().queue;
        let request = Request::new(0, operation, first * PAGE, count * PAGE, IoBuffer::empty());
        let done = synthvm_block::conformance::run(queue, vec![request]);
        self.know(first, count, (zeroes && done[0].result.is_ok()).then_some(0));
    }

    fn know(&mut self, first: u64, count: u64, byte: Option<u8>) {
        for page in first..first + count {
            match byte {
                Some(byte) => self.known.insert(page, byte),
                None => self.known.remove(&page),
            };
        }
    }

    fn resize(&mut self, input: &mut Input<'_>) {
        let (by, capacity) = (input.u16(), self.capacity());
        let by = u64::from(by) * PAGE;
        let wanted = if by % (2 * PAGE) == 0 {
            capacity.saturating_add(by.min(MAX_GROWTH))
        } else {
            capacity.saturating_sub(by)
        };
        let result = self.open().image.resize(wanted);
        let now = self.capacity();
        assert_eq!(now, if result.is_ok() { wanted } else { capacity });
        self.known.retain(|page, _| (page + 1) * PAGE <= now);
    }

    fn compare(&self, first: u64, bytes: &[u8]) {
        if !self.strict {
            return;
        }
        for (page, bytes) in (first..).zip(bytes.chunks(PAGE as usize)) {
            if let Some(&byte) = self.known.get(&page) {
                assert!(bytes.iter().all(|&found| found == byte), "page {page} is not {byte:#x}");
            }
        }
    }

    /// Checks that the written data is there when the image is opened again.
    fn close_and_compare(&mut self) {
        if self.execute(Operation::Flush, 0, Vec::new()).is_err() {
            self.known.clear();
        }
        if !self.reopen() {
            assert!(
                !self.strict,
                "what could be opened once opens again: {:?}",
                open(self.path, &self.options).err()
            );
            // The image cannot be written any more, so it is opened read-only.
            self.options.read_only = true;
            if !self.reopen() {
                self.open = Some(Open::nothing());
                self.known.clear();
            }
            return;
        }
        for page in self.known.keys().copied().collect::<Vec<_>>() {
            match self.execute(Operation::Read, page * PAGE, vec![0xA5; PAGE as usize]) {
                Ok(bytes) => self.compare(page, &bytes),
                Err(error) => {
                    assert!(!self.strict, "page {page} was written and cannot be read: {error}")
                }
            }
        }
    }
}

impl Open {
    /// Returns an empty disk that replaces a lost one.
    fn nothing() -> Self {
        let image: Arc<dyn Backend> = Arc::new(synthvm_block::RamDisk::new(PAGE).expect("a page"));
        Self { queue: image.queue().expect("a queue"), image }
    }
}
