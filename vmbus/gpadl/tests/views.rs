//! Tests of counted views: the mappings that succeed, and the time at which a teardown is answered.

use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{
    Gpadl, GpadlKey, GuestBuffer, GuestRam, MapError, RangeAssembler, ReleaseSink, Teardown,
};

#[derive(Default)]
struct Heard(Mutex<Vec<GpadlKey>>);

impl ReleaseSink for Heard {
    fn gpadl_released(&self, key: GpadlKey) {
        self.0.lock().unwrap().push(key);
    }
}

const KEY: GpadlKey = GpadlKey { relid: 1, id: 0xE1E10, serial: 7 };

fn gpadl() -> (Gpadl, Arc<Heard>) {
    let ram = GuestRam::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap())
        .unwrap();
    let words = [8192_u64, 1, 2];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let buffer = RangeAssembler::assemble(GuestBuffer::new(ram), 1, &bytes).unwrap();
    let heard = Arc::new(Heard::default());
    (Gpadl::new(KEY, buffer, heard.clone()), heard)
}

#[test]
fn test_teardown_without_views_is_done_immediately_and_silent() {
    let (gpadl, heard) = gpadl();
    assert_eq!(gpadl.teardown(), Teardown::Done);
    assert!(heard.0.lock().unwrap().is_empty());
    assert_eq!(gpadl.map().err(), Some(MapError::Going(KEY.id)));
}

#[test]
fn test_teardown_with_views_is_answered_once_by_the_last_one() {
    let (gpadl, heard) = gpadl();
    let view = gpadl.map().unwrap();
    let clone = view.clone();
    assert_eq!(gpadl.views(), 2);
    assert_eq!(gpadl.teardown(), Teardown::Waits);
    assert_eq!(gpadl.teardown(), Teardown::Waits);
    assert!(view.is_tearing_down());
    drop(view);
    assert!(heard.0.lock().unwrap().is_empty());
    let mut byte = [0];
    clone.read(0, &mut byte).unwrap();
    drop(clone);
    assert_eq!(*heard.0.lock().unwrap(), [KEY]);
}

#[test]
fn test_map_twice_is_refused_until_the_first_is_unmapped() {
    let (gpadl, heard) = gpadl();
    let view = gpadl.map().unwrap();
    assert_eq!(gpadl.map().err(), Some(MapError::Mapped(KEY.id)));
    drop(view);
    assert!(gpadl.map().is_ok());
    assert!(heard.0.lock().unwrap().is_empty());
}

#[test]
fn test_teardown_against_drops_in_other_threads_is_heard_exactly_once_or_done() {
    for _ in 0..500 {
        let (gpadl, heard) = gpadl();
        let view = gpadl.map().unwrap();
        let clones: Vec<_> = (0..3).map(|_| view.clone()).collect();
        let teardown = std::thread::scope(|scope| {
            for clone in clones {
                scope.spawn(move || drop(clone));
            }
            scope.spawn(move || drop(view));
            gpadl.teardown()
        });
        let expected = usize::from(teardown == Teardown::Waits);
        assert_eq!(heard.0.lock().unwrap().len(), expected);
    }
}
