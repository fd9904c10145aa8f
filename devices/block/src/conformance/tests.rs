//! The suite on the backends in memory.

use std::sync::Arc;

use super::super::{Backend, Fault, Faulty, IoError, Operation, RamDisk};
use super::drive::request;
use super::*;

fn ram() -> Arc<RamDisk> {
    Arc::new(RamDisk::new(CAPACITY).unwrap())
}

#[test]
fn test_ram_disk_conforms() {
    check(|| ram());
}

#[test]
fn test_read_only_ram_disk_conforms() {
    check_read_only(|| {
        let disk = RamDisk::new(CAPACITY).unwrap();
        Arc::new(disk.with_geometry(|geometry| geometry.read_only = true))
    });
}

#[test]
fn test_faulty_backend_without_faults_conforms() {
    check(|| Arc::new(Faulty::new(ram(), |_| Fault::None)));
}

#[test]
fn test_faulty_backend_that_stalls_finishes_after_release() {
    let faulty = Faulty::new(ram(), |_| Fault::Stall);
    let hold = faulty.hold();
    let mut queue = faulty.queue().unwrap();
    let mut done = Vec::new();
    queue.submit(&mut vec![request(1, WRITE, 0, pattern(1, 512))]);
    queue.poll(&mut done);
    assert!(done.is_empty());
    hold.release();
    wait(queue.event().unwrap());
    queue.poll(&mut done);
    assert_eq!((done.len(), done[0].result), (1, Ok(())));
}

/// Returns a backend on a RAM disk that fails as planned. Unless it is `honest`, its flushes
/// succeed after a failed one.
fn planned(plan: &FaultPlan, honest: bool) -> Arc<dyn Backend> {
    let (plan, lost) = (plan.clone(), std::sync::atomic::AtomicBool::new(false));
    Arc::new(Faulty::new(ram(), move |request| {
        use std::sync::atomic::Ordering::Relaxed;
        let is_flush = request.operation == Operation::Flush;
        match plan.strike() {
            _ if honest && is_flush && lost.load(Relaxed) => Fault::Fail(IoError::FlushLost),
            Ok(()) => Fault::None,
            Err(error) => {
                lost.fetch_or(is_flush, Relaxed);
                Fault::Fail(error)
            }
        }
    }))
}

#[test]
fn test_fault_check_passes_a_backend_that_remembers_lost_flushes() {
    check_faults(|plan| planned(plan, true));
}

#[test]
#[should_panic(expected = "a flush succeeds after one failed")]
fn test_fault_check_finds_a_flush_that_lies() {
    check_faults(|plan| planned(plan, false));
}

#[test]
#[should_panic(expected = "the storage never asked the plan")]
fn test_fault_check_without_faults_is_no_check() {
    check_faults(|_| ram());
}

#[test]
#[should_panic(expected = "sector 8 may hold [1], but holds 0")]
fn test_model_finds_a_write_that_was_lost() {
    let mut model = Model::new(CAPACITY, true);
    let (_, stamp) = model.data(4096, 512);
    model.ended(WRITE, 4096, 512, stamp, Ok(()));
    model.judge(4096, &[0; 512]);
}

#[test]
fn test_model_allows_either_content_after_a_failure() {
    let mut model = Model::new(CAPACITY, true);
    let (bytes, stamp) = model.data(4096, 512);
    model.ended(WRITE, 4096, 512, stamp, Err(IoError::NoSpace));
    model.judge(4096, &[0; 512]);
    model.judge(4096, &bytes);
}
