//! A backend that moves requests from host memory to guest memory, so that the requests of the
//! conformance suite use the same memory as a guest's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vmbus_gpadl::GuestRam;

use super::super::RawFile;
use crate::conformance::guest_buffer;
use crate::{Backend, Completion, IoBuffer, Queue, Request, Wrapper};

const PAGE: usize = 4096;

/// A raw image whose requests are copied to guest memory before, and back when they are complete.
#[derive(Debug)]
pub(super) struct InGuest {
    inner: RawFile,
    ram: GuestRam,
    /// Guest pages that no request uses, in random order.
    pages: Arc<Mutex<Vec<u64>>>,
    /// The counter to which a closed image adds its own count.
    total: Arc<AtomicU64>,
}

impl InGuest {
    pub(super) fn new(inner: RawFile, ram: &GuestRam, pages: u64, total: &Arc<AtomicU64>) -> Self {
        // Some pages stay neighbours: requests then have pieces of one page and of several.
        let mut free: Vec<u64> = (0..pages).collect();
        free.sort_unstable_by_key(|page| (page / 3 * 37 % 101, *page));
        Self {
            inner,
            ram: ram.clone(),
            pages: Arc::new(Mutex::new(free)),
            total: Arc::clone(total),
        }
    }
}

impl Drop for InGuest {
    fn drop(&mut self) {
        self.total.fetch_add(self.inner.fixed_calls().unwrap_or(0), Ordering::Relaxed);
    }
}

impl Wrapper for InGuest {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    fn wrap_queue(&self, inner: Box<dyn Queue>) -> std::io::Result<Box<dyn Queue>> {
        let (ram, pages) = (self.ram.clone(), Arc::clone(&self.pages));
        Ok(Box::new(InGuestQueue { inner, ram, pages, moved: Vec::new() }))
    }
}

struct InGuestQueue {
    // The first field, because no request uses the pages after its drop.
    inner: Box<dyn Queue>,
    ram: GuestRam,
    pages: Arc<Mutex<Vec<u64>>>,
    /// By the tag that the inner request has.
    moved: Vec<Option<Moved>>,
}

struct Moved {
    tag: u64,
    original: IoBuffer,
    _pages: Taken,
}

/// The guest pages of a request.
struct Taken {
    pages: Vec<u64>,
    from: Arc<Mutex<Vec<u64>>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.from.lock().unwrap().append(&mut self.pages);
    }
}

impl Queue for InGuestQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        let mut batch = Vec::new();
        for mut request in requests.drain(..) {
            let original = std::mem::replace(&mut request.buffer, IoBuffer::empty());
            // The copy begins at the same offset in its page as the original.
            let skew = original.iovecs().first().map_or(0, |piece| piece.iov_base.addr() % PAGE);
            let wanted = (skew + original.len()).div_ceil(PAGE);
            let mut free = self.pages.lock().unwrap();
            let at = free.len().checked_sub(wanted).expect("enough guest memory for the suite");
            let pages = if original.is_empty() { Vec::new() } else { free.split_off(at) };
            drop(free);
            if !original.is_empty() {
                let bytes: Vec<u8> = original.slices().flat_map(|slice| copy_of(&slice)).collect();
                let mut guest = guest_buffer(&self.ram, skew as u32, bytes.len() as u32, &pages);
                guest.guest_mut().unwrap().write(0, &bytes).unwrap();
                guest.select(0, bytes.len()).unwrap();
                request.buffer = guest;
            }
            let pages = Taken { pages, from: Arc::clone(&self.pages) };
            let moved = Moved { tag: request.tag, original, _pages: pages };
            request.tag = self.moved.len() as u64;
            self.moved.push(Some(moved));
            batch.push(request);
        }
        self.inner.submit(&mut batch);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let mut inner = Vec::new();
        self.inner.poll(&mut inner);
        for mut one in inner {
            let Moved { tag, original, _pages } =
                self.moved[one.request.tag as usize].take().expect("comes back once");
            if let Some(guest) = one.request.buffer.guest() {
                let mut at = 0;
                for slice in original.slices() {
                    let mut bytes = vec![0; slice.len()];
                    guest.read(at, &mut bytes).unwrap();
                    slice.copy_from(&bytes);
                    at += bytes.len();
                }
            }
            (one.request.tag, one.request.buffer) = (tag, original);
            done.push(one);
        }
    }

    fn event(&self) -> Option<std::os::fd::RawFd> {
        self.inner.event()
    }
}

fn copy_of(slice: &vm_memory::VolatileSlice<'_>) -> Vec<u8> {
    let mut bytes = vec![0; slice.len()];
    slice.copy_to(&mut bytes);
    bytes
}
