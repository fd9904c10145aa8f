//! A point at which a test changes what the code under test sees.

use std::cell::RefCell;
use std::path::Path;

type Action = dyn FnOnce(&Path);

thread_local! {
    static NEXT: RefCell<Option<Box<Action>>> = const { RefCell::new(None) };
}

/// Has `action` run on this thread right after the next image file is opened by its path, before it
/// is locked or read.
pub fn after_next_open(action: impl FnOnce(&Path) + 'static) {
    NEXT.set(Some(Box::new(action)));
}

/// An image file was opened by its path.
pub fn opened(path: &Path) {
    if let Some(action) = NEXT.take() {
        action(path);
    }
}
