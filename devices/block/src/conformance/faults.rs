//! Errors of the storage below a backend, at every access.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Backend, IoError, Operation};
use super::CAPACITY;
use super::drive::run;
use super::model::{Random, draw, model_of, read_all};

/// A plan for one failed access to the storage below a backend. The maker of a backend for
/// [`check_faults`] must call [`FaultPlan::strike`] before each access of the backend to its
/// storage (each read, write, flush, discard, growth of the file), and fail that access with the
/// returned error. Clones share one plan.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    accesses: AtomicU64,
    /// The number of the access to fail, and its error.
    fault: Mutex<Option<(u64, IoError)>>,
    strikes: AtomicU64,
}

impl FaultPlan {
    /// Returns a plan that fails access number `nth`, counted from 0, with `error`. All other
    /// accesses succeed. With [`FaultPlan::default`] every access succeeds.
    pub fn nth(nth: u64, error: IoError) -> Self {
        let plan = Self::default();
        plan.arm(nth, error);
        plan
    }

    /// Counts an access to the storage.
    ///
    /// # Errors
    /// The error with which this access must fail, without effect.
    pub fn strike(&self) -> Result<(), IoError> {
        let access = self.inner.accesses.fetch_add(1, Ordering::Relaxed);
        let fault = *self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some((nth, error)) if nth == access => {
                self.inner.strikes.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Returns the number of accesses so far.
    pub fn accesses(&self) -> u64 {
        self.inner.accesses.load(Ordering::Relaxed)
    }

    /// Counts accesses from 0 again. Access number `nth` then fails.
    fn arm(&self, nth: u64, error: IoError) {
        let mut fault = self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.accesses.store(0, Ordering::Relaxed);
        *fault = Some((nth, error));
    }

    fn strikes(&self) -> u64 {
        self.inner.strikes.load(Ordering::Relaxed)
    }
}

/// Requests of one script.
const REQUESTS: u64 = 40;

/// Runs a script repeatedly on fresh backends. Each run fails one later access to the storage
/// below, once with EIO and once with ENOSPC, until the script has no such access. `make` returns a
/// backend like that of [`super::check`], whose storage calls the plan; accesses before it returns
/// do not count.
///
/// A request during which the storage failed may fail, with that error or [`IoError::FlushLost`]; a
/// flush must fail. All acknowledged changes stay, a failed request may have been carried out in
/// part, and no other bytes change. After a failed flush all later flushes must fail.
///
/// # Panics
/// The backend does not conform, or never calls the plan.
pub fn check_faults(make: impl Fn(&FaultPlan) -> Arc<dyn Backend>) {
    for error in [IoError::Os(libc::EIO), IoError::NoSpace] {
        let mut nth = 0;
        loop {
            let plan = FaultPlan::default();
            let backend = make(&plan);
            plan.arm(nth, error);
            script(&backend, &plan, error);
            if plan.strikes() == 0 {
                break;
            }
            nth += 1;
        }
        assert!(nth > 0, "the storage never asked the plan");
    }
}

fn script(backend: &Arc<dyn Backend>, plan: &FaultPlan, error: IoError) {
    let mut queue = backend.queue().unwrap();
    let mut model = model_of(backend);
    let mut random = Random(0x5EED_FA17);
    let mut flush_lost = false;
    for id in 0..REQUESTS {
        let offset = random.below(CAPACITY / 512 / 2) * 512;
        let length = (1 + random.below(300)) * 512;
        let (request, stamp) = draw(id, &mut model, &mut random, offset, length);
        let operation = request.operation;
        let before = plan.strikes();
        let done = run(&mut *queue, vec![request]).remove(0);
        let struck = plan.strikes() != before;
        let expected =
            matches!(done.result, Err(seen) if seen == error || seen == IoError::FlushLost);
        assert!(
            done.result.is_ok() || expected,
            "{error:?} became {:?} of {operation:?}",
            done.result
        );
        if operation == Operation::Flush {
            assert!(
                !struck || done.result.is_err(),
                "a flush succeeds although the storage failed it"
            );
            assert!(!flush_lost || done.result.is_err(), "a flush succeeds after one failed");
            flush_lost |= done.result.is_err();
        }
        model.ended(operation, offset, length, stamp, done.result);
    }
    read_all(&mut *queue, &model);
}
