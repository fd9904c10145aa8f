//! Checks of other sizes, for backends that support them.

use std::sync::Arc;

use super::super::{Backend, IoError, Operation};
use super::drive::{one, pattern};
use super::{CAPACITY, WRITE};

/// A queue that existed before must use the new size, too.
pub(super) fn check(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    one(&mut *queue, WRITE, CAPACITY - 4096, pattern(1, 4096)).unwrap();
    match backend.resize(CAPACITY * 2) {
        Ok(()) => {}
        Err(IoError::Unsupported) => {
            assert_eq!(backend.geometry().capacity, CAPACITY, "a refused size changes nothing");
            assert_eq!(
                one(&mut *queue, Operation::Read, CAPACITY, vec![0; 512]),
                Err(IoError::EndOfImage)
            );
            return;
        }
        Err(other) => panic!("cannot grow: {other}"),
    }
    assert_eq!(backend.geometry().capacity, CAPACITY * 2);
    assert_eq!(
        one(&mut *queue, Operation::Read, CAPACITY - 4096, vec![0; 4096]),
        Ok(pattern(1, 4096))
    );
    assert_eq!(one(&mut *queue, Operation::Read, CAPACITY, vec![1; 1 << 20]), Ok(vec![0; 1 << 20]));
    one(&mut *queue, WRITE, CAPACITY * 2 - 512, pattern(2, 512)).unwrap();
    assert_eq!(one(&mut *queue, Operation::Flush, 0, vec![]), Ok(vec![]));
    assert_eq!(
        one(&mut *backend.queue().unwrap(), Operation::Read, CAPACITY * 2 - 512, vec![0; 512]),
        Ok(pattern(2, 512))
    );
    assert_eq!(
        one(&mut *queue, Operation::Read, CAPACITY * 2, vec![0; 512]),
        Err(IoError::EndOfImage)
    );
    // The old size again. Removed data must not reappear when the backend grows again. A backend
    // may refuse to lose data.
    if backend.resize(CAPACITY).is_ok() {
        assert_eq!(backend.geometry().capacity, CAPACITY);
        assert_eq!(
            one(&mut *queue, Operation::Read, CAPACITY, vec![0; 512]),
            Err(IoError::EndOfImage)
        );
        assert_eq!(
            one(&mut *queue, Operation::Flush, 0, vec![]),
            Ok(vec![]),
            "nothing in reach was lost"
        );
        backend.resize(CAPACITY * 2).unwrap();
        assert_eq!(
            one(&mut *queue, Operation::Read, CAPACITY * 2 - 512, vec![1; 512]),
            Ok(vec![0; 512])
        );
    }
    let size = backend.geometry().capacity;
    for capacity in [0, size + 1, size + 511] {
        assert!(backend.resize(capacity).is_err(), "{capacity} bytes are no whole blocks");
    }
    assert!(backend.resize(!511).is_err(), "no medium is that large");
    assert_eq!(backend.geometry().capacity, size);
    assert_eq!(
        one(&mut *queue, Operation::Read, CAPACITY - 4096, vec![0; 4096]),
        Ok(pattern(1, 4096))
    );
}
