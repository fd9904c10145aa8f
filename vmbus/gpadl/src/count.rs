//! The word that decides whether a teardown or the last view reports the end.
//!
//! Model-checked: `RUSTFLAGS="--cfg loom" cargo test -p vmbus-gpadl --release --lib count` (use
//! another target folder).

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};

/// Set once a teardown has begun; the other bits count views.
const GOING: u32 = 1 << 31;

/// Views of one GPADL, and whether its teardown has begun.
pub(crate) struct ViewCount(AtomicU32);

/// Whether a mapping could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// It counts as one view.
    Yes,
    /// Another mapping exists.
    Already,
    /// The teardown has begun.
    Going,
}

/// The condition for which a teardown waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teardown {
    /// Nothing: no view exists and none can be made any more.
    Done,
    /// Views exist: [`crate::ReleaseSink::gpadl_released`] will be called, once.
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

    /// The first view, when there is none.
    pub(crate) fn map(&self) -> Mapped {
        match self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Mapped::Yes,
            Err(state) if state & GOING != 0 => Mapped::Going,
            Err(_) => Mapped::Already,
        }
    }

    /// One more view, by the holder of one.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One view less. True for exactly one caller: the last after a teardown that had to wait.
    pub(crate) fn drop_one(&self) -> bool {
        // Release: our accesses come before the notice. Acquire: the last one has seen those of the
        // others.
        self.0.fetch_sub(1, Ordering::AcqRel) == GOING | 1
    }

    pub(crate) fn teardown(&self) -> Teardown {
        // Acquire: with no view left, everything that their holders did to the memory happened
        // before what follows.
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

    /// The guest's memory: loom finds two that use it at once without an order between them.
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

        /// TORNDOWN: from here on the guest may use the memory for anything.
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
            let mapper = {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    if memory.views.map() == Mapped::Yes {
                        memory.drop_view();
                    }
                })
            };
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
            let mapper = {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    if memory.views.map() == Mapped::Yes {
                        memory.bytes.with_mut(|_| ());
                        assert!(!memory.views.drop_one());
                    }
                })
            };
            if memory.views.map() == Mapped::Yes {
                memory.bytes.with_mut(|_| ());
                assert!(!memory.views.drop_one());
            }
            mapper.join().unwrap();
            assert_eq!(memory.views.teardown(), Teardown::Done);
        });
    }
}
