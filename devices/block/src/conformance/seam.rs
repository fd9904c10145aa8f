//! Points at which a test intervenes in the code under test.

use std::cell::RefCell;
use std::path::Path;

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
