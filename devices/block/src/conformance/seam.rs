//! Points at which a test intervenes in the code under test.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// A wait that takes this long has failed, because nothing here depends on time.
const FOREVER: Duration = Duration::from_secs(60);

type Action = dyn FnOnce(&Path);

thread_local! {
    static NEXT: RefCell<Option<Box<Action>>> = const { RefCell::new(None) };
}

/// Makes `action` run on this thread immediately after the next image file is opened by its path,
/// before the file is locked or read.
pub fn after_next_open(action: impl FnOnce(&Path) + 'static) {
    NEXT.set(Some(Box::new(action)));
}

/// Runs the action of a test after an image file was opened by its path.
pub fn opened(path: &Path) {
    if let Some(action) = NEXT.take() {
        action(path);
    }
}

/// The gate at which every discard of a block device waits (see `RawFile::open_as_slow_device`).
#[derive(Debug, Default)]
pub struct DiscardGate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_open: bool,
    /// The thread of each call that arrived.
    callers: Vec<ThreadId>,
}

impl DiscardGate {
    /// Waits until the gate is open.
    ///
    /// # Panics
    /// The gate stays shut for a minute: the thread that would open it waits for this call.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.callers.push(thread::current().id());
        self.changed.notify_all();
        let shut = |state: &mut GateState| !state.is_open;
        let (state, waited) = self.changed.wait_timeout_while(state, FOREVER, shut).unwrap();
        drop(state);
        assert!(!waited.timed_out(), "the test waits for a discard that waits for the test");
    }

    /// Waits until `callers` calls have arrived. Returns the thread of each call.
    pub fn wait_for(&self, callers: usize) -> Vec<ThreadId> {
        let state = self.state.lock().unwrap();
        self.changed
            .wait_while(state, |state| state.callers.len() < callers)
            .unwrap()
            .callers
            .clone()
    }

    /// Lets all present and later calls pass.
    pub fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }
}
