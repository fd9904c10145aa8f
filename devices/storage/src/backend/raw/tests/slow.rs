//! Calls that take long: which thread makes them, and what goes on meanwhile.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use vmm_sys_util::tempfile::TempFile;

use super::super::call::Call;
use super::super::limits::MAX_CLEARING;
use super::super::*;
use super::guest::channel::Memory;
use super::guest::scsi::{NO_DATA, Outcome, TO_DISK, read_srb, srb};
use super::guest::{DATA, Guest};
use super::{image, modes};
use crate::backend::conformance::{one, run, wait};
use crate::backend::{IoBuffer, IoRequest, Operation};
use crate::{ControllerOptions, DiskOptions, ScsiController};

type Act = dyn Fn(&Call) -> Option<i32> + Send + Sync;

/// Sees each call on the thread that makes it, and may give its result.
pub(in super::super) struct Watch(Box<Act>);

impl Watch {
    pub(in super::super) fn call(&self, call: &Call) -> Option<i32> {
        (self.0)(call)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Where all calls of BLKDISCARD wait.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Threads that came by.
    callers: Vec<ThreadId>,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.callers.push(thread::current().id());
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open).unwrap());
    }

    fn wait_for(&self, callers: usize) -> Vec<ThreadId> {
        let state = self.state.lock().unwrap();
        self.changed.wait_while(state, |state| state.callers.len() < callers).unwrap().callers.clone()
    }

    fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }
}

/// A file that is taken for a block device, whose discards wait at the gate and then succeed.
fn device(io: IoMode) -> (TempFile, RawFile, Arc<Gate>) {
    let file = image(1 << 20);
    let mut raw = RawFile::open_with(file.as_path(), &RawOptions { io, ..RawOptions::default() }).unwrap();
    let gate = Arc::new(Gate::default());
    let pass = Arc::clone(&gate);
    let image = Arc::get_mut(&mut raw.image).unwrap();
    image.is_device = true;
    image.watch = Some(Watch(Box::new(move |call| {
        matches!(call, Call::DiscardBlocks { .. }).then(|| {
            pass.pass();
            0
        })
    })));
    (file, raw, gate)
}

fn modes_here() -> Vec<IoMode> {
    let uring = modes::uring_is_here().then_some(IoMode::Uring);
    uring.into_iter().chain([IoMode::Threads]).collect()
}

fn discard(id: u32) -> IoRequest {
    let (operation, buffer) = (Operation::Discard, Box::new(IoBuffer::from_vec(Vec::new())));
    IoRequest { id, operation, offset: 0, length: 4096, buffer }
}

#[test]
fn test_discard_of_a_device_is_made_by_another_thread_and_delays_nothing() {
    for io in modes_here() {
        let (_file, raw, gate) = device(io);
        let mut queue = raw.queue().unwrap();
        queue.submit(&mut vec![discard(1)]);
        let callers = gate.wait_for(1);
        assert!(!callers.contains(&thread::current().id()), "{io:?}");
        for operation in [Operation::Write { fua: false }, Operation::Read, Operation::Flush] {
            let bytes = if operation == Operation::Flush { vec![] } else { vec![1; 512] };
            one(&mut *queue, operation, 0, bytes).unwrap();
        }
        gate.open();
        // One more, so that the event is set up twice.
        for id in [1, 2] {
            let mut done = Vec::new();
            while done.is_empty() {
                wait(queue.event().unwrap());
                queue.poll(&mut done);
            }
            assert_eq!((done.len(), done[0].id, done[0].result), (1, id, Ok(())), "{io:?}");
            if id == 1 {
                queue.submit(&mut vec![discard(2)]);
            }
        }
    }
}

#[test]
fn test_discards_leave_threads_to_reads_and_writes() {
    for io in modes_here() {
        let (_file, raw, gate) = device(io);
        let mut queue = raw.queue().unwrap();
        queue.submit(&mut (0..32).map(discard).collect());
        gate.wait_for(MAX_CLEARING);
        // More threads than that would have come by now.
        for _ in 0..100 {
            one(&mut *queue, Operation::Write { fua: true }, 0, vec![1; 512]).unwrap();
        }
        assert_eq!(gate.wait_for(0).len(), MAX_CLEARING, "{io:?}");
        gate.open();
        let mut done = Vec::new();
        while done.len() < 32 {
            wait(queue.event().unwrap());
            queue.poll(&mut done);
        }
        assert!(done.iter().all(|done| done.result.is_ok()));
    }
}

#[test]
fn test_queue_dropped_during_a_discard_waits_for_nothing_and_the_image_stays_locked() {
    for io in modes_here() {
        let (file, raw, gate) = device(io);
        let mut queue = raw.queue().unwrap();
        queue.submit(&mut vec![discard(1), discard(2)]);
        gate.wait_for(1);
        // The call still waits: that this returns is the test.
        drop((queue, raw));
        let again = RawFile::open(file.as_path(), false);
        assert!(matches!(again, Err(OpenError::Locked { .. })), "{io:?}: {again:?}");
        gate.open();
    }
}

#[test]
fn test_discards_of_devices_conform_with_other_requests_in_one_batch() {
    for io in modes_here() {
        let (_file, raw, gate) = device(io);
        gate.open();
        let mut queue = raw.queue().unwrap();
        for round in 0..50 {
            let write = |id| IoRequest {
                id,
                operation: Operation::Write { fua: false },
                offset: 512,
                length: 512,
                buffer: Box::new(IoBuffer::from_vec(vec![round; 512])),
            };
            let done = run(&mut *queue, vec![discard(1), write(2), discard(3), write(4)]);
            assert!(done.iter().all(|done| done.result.is_ok()), "{io:?}");
        }
    }
}

/// An UNMAP whose call hangs holds up its own disk's queue depth, and nothing else.
#[test]
fn test_channel_serves_other_disks_pauses_and_closes_while_an_unmap_hangs() {
    for io in modes_here() {
        let (_file, slow, gate) = device(io);
        let other = image(1 << 20);
        let other = RawFile::open_with(other.as_path(), &RawOptions { io, ..RawOptions::default() }).unwrap();
        let pause_limit = Duration::from_millis(20);
        let options = ControllerOptions { pause_limit, ..ControllerOptions::default() };
        let controller = ScsiController::with_options(0, options);
        let disks: [Arc<dyn Backend>; 2] = [Arc::new(slow), Arc::new(other)];
        for (lun, disk) in (0..).zip(disks) {
            controller.add_disk(lun, disk, DiskOptions::default()).unwrap();
        }
        let (mut guest, _) = Guest::new(std::slice::from_ref(&controller));
        let mut channel = guest.open(guest.offers[0], 4);
        channel.initialise();
        // One descriptor: 8 blocks from block 0 on.
        let mut list = [0; 24];
        list[..4].copy_from_slice(&[0, 22, 0, 16]);
        list[19] = 8;
        channel.poke(DATA, 0, &list);
        let unmap = srb(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], TO_DISK, 24);
        channel.send(1, &unmap, &[Memory::at(DATA, 24)]);
        gate.wait_for(1);
        for lun in [1, 0, 1] {
            let read = read_srb(lun, 3, 1);
            assert_eq!(channel.execute(&read, &[Memory::at(DATA + 1, 512)]), Outcome::good(512), "{io:?}");
        }
        // The pause ends by its limit, the close by its own: with the call still under way.
        guest.bus.pause();
        guest.bus.resume();
        assert_eq!(channel.execute(&srb(1, &[0; 6], NO_DATA, 0), &[]), Outcome::good(0));
        guest.close(channel);
        gate.open();
    }
}
