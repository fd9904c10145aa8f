//! The word that decides whether a teardown or the drop of the last view reports the end.
//!
//! Model-checked: `RUSTFLAGS="--cfg loom" cargo test -p vmbus-gpadl --release --lib count` (use
//! another target folder).

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};

/// The bit that is set once a teardown has begun; the other bits count views.
const GOING: u32 = 1 << 31;

/// The number of views of one GPADL, and whether its teardown has begun.
pub(crate) struct ViewCount(AtomicU32);

/// The result of an attempt to make a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// The mapping was made and counts as one view.
    Yes,
    /// Another mapping exists.
    Already,
    /// The teardown has begun.
    Going,
}

/// The result of the beginning of a teardown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teardown {
    /// The teardown is done: no view exists and no view can be made any more.
    Done,
    /// The teardown waits for views: [`crate::ReleaseSink::gpadl_released`] will be called, once.
    Waits,
}

impl ViewCount {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed) & !GOING
    }

    pub(crate) fn is_tearing_down(&self) -> bool {
        self.0.load(Ordering::Relaxed) & GOING != 0
    }

    /// Adds the first view, when there is none.
    pub(crate) fn map(&self) -> Mapped {
        match self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Mapped::Yes,
            Err(state) if state & GOING != 0 => Mapped::Going,
            Err(_) => Mapped::Already,
        }
    }

    /// Adds one view for the holder of another one.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes one view. Returns true for exactly one caller: the last one after a teardown that
    /// had to wait.
    pub(crate) fn drop_one(&self) -> bool {
        // Release: the accesses of this view happen before the notification. Acquire: the last
        // caller sees the accesses of all others.
        self.0.fetch_sub(1, Ordering::AcqRel) == GOING | 1
    }

    pub(crate) fn teardown(&self) -> Teardown {
        // Acquire: with no view left, all accesses of their holders to the memory happened before
        // the code that follows.
        let before = self.0.fetch_or(GOING, Ordering::AcqRel);
        if before & !GOING == 0 { Teardown::Done } else { Teardown::Waits }
    }
}

#[cfg(all(loom, test))]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32 as Count, Ordering};
    use loom::{cell::UnsafeCell, thread};

    use super::{Mapped, Teardown, ViewCount};

    /// The guest's memory. Loom reports two accesses to it that have no order between them.
    struct Memory {
        views: ViewCount,
        bytes: UnsafeCell<u32>,
        ends: Count,
    }

    impl Memory {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                views: ViewCount::new(),
                bytes: UnsafeCell::new(0),
                ends: Count::new(0),
            })
        }

        fn read(&self) {
            self.bytes.with(|_| ());
        }

        /// Sends TORNDOWN: from here on the guest may use the memory for any purpose.
        fn end(&self) {
            self.ends.fetch_add(1, Ordering::Relaxed);
            self.bytes.with_mut(|_| ());
        }

        fn drop_view(&self) {
            self.read();
            if self.views.drop_one() {
                self.end();
            }
        }

        /// Starts a thread that maps the memory, and calls `use_it` if it has the mapping.
        fn map_in_thread(memory: &Arc<Self>, use_it: fn(&Self)) -> thread::JoinHandle<()> {
            let memory = Arc::clone(memory);
            thread::spawn(move || {
                if memory.views.map() == Mapped::Yes {
                    use_it(&memory);
                }
            })
        }

        /// Writes to the memory as the holder of the only mapping, and drops it.
        fn write_alone(&self) {
            self.bytes.with_mut(|_| ());
            assert!(!self.views.drop_one());
        }

        fn teardown(&self) {
            if self.views.teardown() == Teardown::Done {
                self.end();
            }
        }
    }

    #[test]
    fn test_view_count_two_views_against_a_teardown_end_once_and_last() {
        loom::model(|| {
            let memory = Memory::new();
            assert_eq!(memory.views.map(), Mapped::Yes);
            memory.views.add();
            let threads = [0, 1].map(|_| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || memory.drop_view())
            });
            memory.teardown();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(memory.ends.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn test_view_count_mapping_against_a_teardown_is_refused_or_waited_for() {
        loom::model(|| {
            let memory = Memory::new();
            let mapper = Memory::map_in_thread(&memory, Memory::drop_view);
            memory.teardown();
            mapper.join().unwrap();
            assert_eq!(memory.ends.load(Ordering::Relaxed), 1);
            assert_eq!(memory.views.map(), Mapped::Going);
        });
    }

    #[test]
    fn test_view_count_two_mappers_have_it_one_at_a_time() {
        loom::model(|| {
            let memory = Memory::new();
            let mapper = Memory::map_in_thread(&memory, Memory::write_alone);
            if memory.views.map() == Mapped::Yes {
                memory.write_alone();
            }
            mapper.join().unwrap();
            assert_eq!(memory.views.teardown(), Teardown::Done);
        });
    }
}
