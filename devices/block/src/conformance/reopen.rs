//! Checks of the content of a backend that is opened again.

use std::sync::Arc;

use super::super::{Backend, Operation};
use super::CAPACITY;
use super::drive::run;
use super::model::{Random, draw, model_of, read_all};

/// Writes to a backend, flushes it, drops it without any further call, and opens it again, several
/// times. `open` returns the same backend each time; the first one must be like that of
/// [`super::check`].
///
/// # Panics
/// Flushed data is missing, or the size or identity changed.
pub fn check_reopen(open: impl Fn() -> Arc<dyn Backend>) {
    let mut backend = open();
    let mut model = model_of(&backend);
    let identity = backend.identity().to_vec();
    let mut random = Random(0x5EED_0DE1);
    for _ in 0..5 {
        let mut queue = backend.queue().unwrap();
        for id in 0..60 {
            let offset = random.below(CAPACITY / 512 / 2) * 512;
            let length = (1 + random.below(400)) * 512;
            let (request, stamp) = draw(id, &mut model, &mut random, offset, length);
            let operation = request.operation;
            let done = run(&mut *queue, vec![request]).remove(0);
            assert_eq!(done.result, Ok(()), "{operation:?}");
            model.ended(operation, offset, length, stamp, Ok(()));
        }
        let flush = super::drive::request(0, Operation::Flush, 0, vec![]);
        assert_eq!(run(&mut *queue, vec![flush])[0].result, Ok(()));
        drop(queue);
        drop(backend);
        backend = open();
        assert_eq!((backend.geometry().capacity, backend.identity()), (CAPACITY, &identity[..]));
        read_all(&mut *backend.queue().unwrap(), &model);
    }
}
