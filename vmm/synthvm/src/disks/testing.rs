//! A host and a backend for tests. Each of their calls waits while its gate is closed.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use synthvm_block::conformance::Gate;
use synthvm_block::{
    Backend, Completion, FixedError, FixedMemory, Geometry, IoError, Operation, Queue, RamDisk,
    Request,
};
use vmbus_gpadl::GuestRam;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::host::Host;
use super::{DiskError, DiskSet};
use crate::config::DiskConfig;
use crate::storage_guest::scsi::{FROM_DISK, Outcome, StorageChannel, srb, write_srb};
use crate::storage_guest::{BareChannel, BareGuest, DATA, GuestRange};

/// A disk in memory with gates for its calls. It records the completed requests.
#[derive(Debug)]
pub(crate) struct Probe {
    disk: RamDisk,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Gate,
    resizes: Gate,
    requests: Gate,
    done: Mutex<Vec<Operation>>,
    flush_error: Mutex<Option<IoError>>,
    /// Number of submitted writes that are not done.
    pending_writes: AtomicUsize,
    /// Number of flushes submitted while writes were pending.
    early_flushes: AtomicUsize,
}

impl Probe {
    pub(crate) fn new() -> Arc<Self> {
        let disk = RamDisk::growable(1 << 20, 2 << 20)
            .unwrap()
            .with_geometry(|geometry| geometry.write_cache = true);
        Arc::new(Probe { disk, shared: Arc::default() })
    }

    /// Returns the gate that holds the opening of a queue.
    pub(crate) fn queue_gate(&self) -> &Gate {
        &self.shared.queue
    }

    /// Returns the gate that holds a resize.
    pub(crate) fn resize_gate(&self) -> &Gate {
        &self.shared.resizes
    }

    /// Returns the gate that holds the execution of requests. Dropping a queue waits for its
    /// requests, as with real backends.
    pub(crate) fn request_gate(&self) -> &Gate {
        &self.shared.requests
    }

    /// Returns the operations done so far.
    pub(crate) fn done(&self) -> Vec<Operation> {
        self.shared.done.lock().unwrap().clone()
    }

    /// Returns the number of flushes submitted before an earlier write was done.
    pub(crate) fn early_flushes(&self) -> usize {
        self.shared.early_flushes.load(Ordering::SeqCst)
    }

    pub(crate) fn fail_flushes(&self, error: IoError) {
        *self.shared.flush_error.lock().unwrap() = Some(error);
    }
}

impl Backend for Probe {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn identity(&self) -> &[u8] {
        b"probe"
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        self.shared.queue.pass();
        let event = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        self.shared.requests.write_when_opened(Arc::clone(&event));
        let (inner, shared) = (self.disk.queue()?, Arc::clone(&self.shared));
        Ok(Box::new(ProbeQueue { inner, shared, event, held: Vec::new() }))
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.shared.resizes.pass();
        self.disk.resize(capacity)
    }

    fn use_fixed(&self, _memory: &Arc<FixedMemory>) -> Result<(), IoError> {
        Ok(())
    }
}

struct ProbeQueue {
    inner: Box<dyn Queue>,
    shared: Arc<Shared>,
    event: Arc<EventFd>,
    held: Vec<Box<Request>>,
}

impl Queue for ProbeQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        let (writes, early) = (&self.shared.pending_writes, &self.shared.early_flushes);
        for request in &*requests {
            match request.operation {
                Operation::Write { .. } => _ = writes.fetch_add(1, Ordering::SeqCst),
                Operation::Flush if writes.load(Ordering::SeqCst) != 0 => {
                    early.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
        self.held.append(requests);
        self.event.write(1).unwrap();
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let _ = self.event.read();
        if self.shared.requests.is_closed() {
            return;
        }
        let operations: Vec<_> =
            self.held.iter().map(|request| (request.tag, request.operation)).collect();
        self.shared.done.lock().unwrap().extend(operations.iter().map(|(_, operation)| *operation));
        let is_write = |operation: &Operation| matches!(operation, Operation::Write { .. });
        let writes = operations.iter().filter(|(_, operation)| is_write(operation)).count();
        self.shared.pending_writes.fetch_sub(writes, Ordering::SeqCst);
        self.inner.submit(&mut self.held);
        let first = done.len();
        self.inner.poll(done);
        if let Some(error) = *self.shared.flush_error.lock().unwrap() {
            let is_flush = |tag| operations.contains(&(tag, Operation::Flush));
            done[first..]
                .iter_mut()
                .filter(|done| is_flush(done.request.tag))
                .for_each(|done| done.result = Err(error));
        }
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }
}

impl Drop for ProbeQueue {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.shared.requests.pass();
            self.poll(&mut Vec::new());
        }
    }
}

/// A host that opens the same [`Probe`] for every path.
#[derive(Clone, Debug)]
pub(crate) struct TestHost {
    pub(crate) probe: Arc<Probe>,
    pub(crate) open_gate: Arc<Gate>,
    pub(crate) pin_gate: Arc<Gate>,
}

impl TestHost {
    pub(crate) fn new() -> Self {
        TestHost { probe: Probe::new(), open_gate: Arc::default(), pin_gate: Arc::default() }
    }
}

impl Host for TestHost {
    fn open(&self, _disk: &DiskConfig) -> Result<Arc<dyn Backend>, DiskError> {
        self.open_gate.pass();
        Ok(Arc::clone(&self.probe) as _)
    }

    fn pin(&self, ram: &GuestRam) -> Result<Arc<FixedMemory>, FixedError> {
        self.pin_gate.pass();
        FixedMemory::new(ram)
    }
}

/// A guest with a channel to a disk that is a [`Probe`].
pub(crate) struct Rig {
    pub(crate) disks: Arc<DiskSet>,
    pub(crate) host: TestHost,
    pub(crate) guest: BareGuest,
    pub(crate) channel: BareChannel,
}

impl Rig {
    /// Returns a rig. A removal of its disks waits for `removal_timeout`.
    pub(crate) fn new(removal_timeout: Duration) -> Self {
        let host = TestHost::new();
        let disks = DiskSet::new(1).with_host(host.clone()).with_removal_timeout(removal_timeout);
        disks.add(&DiskConfig::new(Path::new("/probe.img"))).unwrap();
        Self::with_disks(disks, host)
    }

    /// Returns a rig with the set `disks`.
    pub(crate) fn with_disks(disks: DiskSet, host: TestHost) -> Self {
        let (mut guest, _) = BareGuest::new(Vec::new());
        disks.offer(&guest.bus).unwrap();
        guest.await_offers(1);
        let mut channel = guest.open(guest.offers[0], 16);
        channel.initialise();
        Rig { disks: Arc::new(disks), host, guest, channel }
    }

    /// Sends a write that the request gate holds, and waits until it is in flight.
    pub(crate) fn hold_a_write(&mut self) {
        self.hold(&write_srb(0, 0, 1), 512);
    }

    /// Sends a read of the disc in a drive that the request gate holds, and waits until it is in
    /// flight.
    pub(crate) fn hold_a_disc_read(&mut self) {
        // The first answers report the new disc.
        while self.channel.test_unit_ready(0) != Outcome::good(0) {}
        self.hold(&srb(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], FROM_DISK, 2048), 2048);
    }

    fn hold(&mut self, srb: &[u8], bytes: u32) {
        self.host.probe.request_gate().close();
        self.channel.send(1, srb, &[GuestRange::at(DATA, bytes)]);
        while self.disks.reports().iter().all(|(disk, ..)| disk.stats.in_flight == 0) {
            std::thread::yield_now();
        }
    }
}
