//! Backends that complete requests that they do not have. The errors count for their own disk, and
//! such a completion ends no other request of the guest.

mod guest;

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::{
    Backend, Completion, Fault, Faulty, Geometry, IoBuffer, IoError, Operation, Queue, RamDisk,
    Request,
};
use synthvm_storvsp::{DiskOptions, ScsiController};

/// Tags of requests, in the order in which they were submitted.
type Tags = Arc<Mutex<Vec<u64>>>;

/// A RAM disk that records the tags of its requests in `seen`, and adds a failed completion for
/// each tag in `foreign` to each batch of completions.
#[derive(Debug)]
struct Forger {
    disk: Arc<RamDisk>,
    foreign: Tags,
    seen: Tags,
}

impl Backend for Forger {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn identity(&self) -> &[u8] {
        b"forger"
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        let (foreign, seen) = (Arc::clone(&self.foreign), Arc::clone(&self.seen));
        Ok(Box::new(ForgerQueue { inner: self.disk.queue()?, foreign, seen, fresh: Vec::new() }))
    }
}

struct ForgerQueue {
    inner: Box<dyn Queue>,
    foreign: Tags,
    seen: Tags,
    /// Tags since the last poll; the next poll makes them old.
    fresh: Vec<u64>,
}

impl Queue for ForgerQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        self.fresh.extend(requests.iter().map(|request| request.tag));
        self.inner.submit(requests);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.extend(self.foreign.lock().unwrap().iter().map(|&tag| {
            let request = Request::new(tag, Operation::Read, 0, 512, IoBuffer::empty());
            request.complete(Err(IoError::Os(libc::EIO)), 0)
        }));
        self.inner.poll(done);
        self.seen.lock().unwrap().append(&mut self.fresh);
    }

    fn event(&self) -> Option<RawFd> {
        self.inner.event()
    }
}

fn ram_disk() -> Arc<RamDisk> {
    let disk = RamDisk::new(1 << 20).unwrap();
    disk.write(0, &pattern(1, 1 << 20)).unwrap();
    Arc::new(disk)
}

fn start(backends: Vec<Arc<dyn Backend>>) -> (BareGuest, BareChannel, ScsiController) {
    let controller = ScsiController::new(0, 0);
    for (lun, backend) in (0..).zip(backends) {
        controller.add_disk(lun, backend, DiskOptions::default()).unwrap();
    }
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let mut channel = guest.open(guest.offers[0], 4);
    channel.initialise();
    (guest, channel, controller)
}

#[test]
fn test_request_completed_again_after_its_entry_was_used_again_completes_no_other() {
    let tags = Tags::default();
    let forger = Forger { disk: ram_disk(), foreign: Arc::clone(&tags), seen: Arc::clone(&tags) };
    let (_guest, mut channel, controller) = start(vec![Arc::new(forger)]);
    for block in 0..20 {
        let outcome = channel.execute(&read_srb(0, block, 1), &[GuestRange::at(DATA, 512)]);
        assert_eq!(outcome, Outcome::good(512), "block {block}");
        assert!(channel.peek(DATA, 0, 512) == pattern(1, 1 << 20)[block as usize * 512..][..512]);
    }
    assert_eq!(channel.try_receive(), None, "each request is completed once");
    // Each poll completes every older request once more.
    assert_eq!(controller.disks()[0].stats.errors, 19 * 20 / 2);
    assert_eq!(controller.disks()[0].stats.in_flight, 0);
}

#[test]
fn test_completion_of_a_request_of_another_lun_is_ignored() {
    let (foreign, seen) = (Tags::default(), Tags::default());
    let stalled = Faulty::new(ram_disk(), {
        let foreign = Arc::clone(&foreign);
        move |request| match request.operation {
            Operation::Read => {
                foreign.lock().unwrap().push(request.tag);
                Fault::Stall
            }
            _ => Fault::None,
        }
    });
    let hold = stalled.hold();
    let forger = Forger { disk: ram_disk(), foreign, seen };
    let (_guest, mut channel, controller) = start(vec![Arc::new(stalled), Arc::new(forger)]);
    channel.send(100, &read_srb(0, 7, 1), &[GuestRange::at(DATA, 512)]);
    let outcome = channel.execute(&read_srb(1, 3, 1), &[GuestRange::at(DATA + 1, 512)]);
    assert_eq!(outcome, Outcome::good(512));
    assert_eq!(channel.try_receive(), None, "the other disk's read is still in flight");
    assert_eq!(controller.disks()[0].stats.in_flight, 1);
    assert_eq!(controller.disks()[1].stats.errors, 1);
    hold.release();
    assert_eq!(Outcome::of(&channel.completion(100)), Outcome::good(512));
    assert!(channel.peek(DATA, 0, 512) == pattern(1, 1 << 20)[7 * 512..][..512]);
    assert_eq!(controller.disks()[0].stats.errors, 0);
}
