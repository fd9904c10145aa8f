//! A load of random requests at a queue depth, and the cost of one request.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

use synthvm_block::{Completion, IoBuffer, Operation, Queue, Request};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{GuestRam, RangeAssembler};

/// Bytes of the image.
const IMAGE: u64 = 256 << 20;
/// Bytes of the guest's memory.
const RAM: usize = 64 << 20;
const PAGE: usize = 4096;
/// Length of a round.
const ROUND: Duration = Duration::from_millis(300);

/// The size of a request and its layout in guest memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// One page.
    Page,
    /// 128 KiB of contiguous memory.
    Run,
    /// 128 KiB in 32 pages, no two adjacent.
    Scattered,
}

/// A load.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) operation: Operation,
    pub(crate) memory: Memory,
    pub(crate) depth: usize,
}

/// The cost of one request: nanoseconds of wall-clock time, and of CPU time of the process
/// including the kernel's part.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

impl Load {
    /// Runs the load for one round. Each batch of completed requests is replaced by one batch.
    pub(crate) fn run(self, queue: &mut dyn Queue, ram: &GuestRam) -> Spent {
        let (pages, step) = match self.memory {
            Memory::Page => (1, 1),
            Memory::Run => (32, 1),
            Memory::Scattered => (32, 3),
        };
        let bytes = pages * PAGE;
        let mut idle: Vec<_> =
            (0..self.depth).map(|at| self.request(ram, at * pages * step, pages, step)).collect();
        let (mut batch, mut done): (Vec<Box<Request>>, Vec<Completion>) = Default::default();
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let (start, cpu, mut count) = (Instant::now(), cpu_time(), 0_u64);
        loop {
            let is_over = start.elapsed() >= ROUND;
            if is_over && idle.len() == self.depth {
                break;
            }
            while let Some(mut request) = idle.pop_if(|_| !is_over) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                request.offset = (random >> 33) % (IMAGE / bytes as u64) * bytes as u64;
                request.buffer.select(0, bytes).expect("as long as that");
                batch.push(request);
            }
            queue.submit(&mut batch);
            queue.poll(&mut done);
            while done.is_empty() {
                wait(queue);
                queue.poll(&mut done);
            }
            for done in done.drain(..) {
                done.result.expect("a request");
                idle.push(done.request);
                count += 1;
            }
        }
        let of_one = |spent: Duration| spent.as_secs_f64() * 1e9 / count as f64;
        Spent { wall: of_one(start.elapsed()), cpu: of_one(cpu_time() - cpu) }
    }

    fn request(self, ram: &GuestRam, first: usize, pages: usize, step: usize) -> Box<Request> {
        let buffer = buffer(ram, first, pages, step);
        Request::new(0, self.operation, 0, (pages * PAGE) as u64, buffer)
    }
}

/// Returns guest memory like that of a machine: a memfd, mapped shared.
pub(crate) fn guest_memory() -> Result<GuestRam, String> {
    // SAFETY: a valid name and no flags; the result is checked before use.
    let fd = unsafe { libc::memfd_create(c"bench".as_ptr(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error().to_string());
    }
    // SAFETY: the descriptor was just created, and has no other owner.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(RAM as u64).map_err(|error| error.to_string())?;
    let range = (GuestAddress(0), RAM, Some(FileOffset::new(file, 0)));
    let memory =
        GuestMemoryMmap::from_ranges_with_files([range]).map_err(|error| error.to_string())?;
    GuestRam::new(memory).map_err(|error| error.to_string())
}

/// Fills the image, so that every block is allocated.
pub(crate) fn fill(mut file: &File) -> io::Result<()> {
    let chunk = vec![0x5A; 1 << 20];
    (0..IMAGE >> 20).try_for_each(|_| file.write_all(&chunk))?;
    file.sync_all()
}

fn buffer(ram: &GuestRam, first: usize, pages: usize, step: usize) -> IoBuffer {
    let mut buffer = IoBuffer::new(ram.clone());
    let mut list = Vec::new();
    list.extend_from_slice(&((pages * PAGE) as u32).to_le_bytes());
    list.extend_from_slice(&0_u32.to_le_bytes());
    list.extend((0..pages).flat_map(|page| ((first + page * step) as u64).to_le_bytes()));
    let guest = buffer.guest_mut().expect("guest memory");
    RangeAssembler::assemble(guest, 1, &list).expect("pages that are there");
    buffer
}

fn wait(queue: &dyn Queue) {
    let mut poll =
        libc::pollfd { fd: queue.event().expect("an event"), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&raw mut poll, 1, -1) };
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
