//! Raw images by every way of reaching the kernel: 4 KiB random requests straight to a backend's queue.
//!
//! `cargo bench -p synthvm-storage --bench raw [-- DIRECTORY]`: a 256 MiB file in DIRECTORY (default: the system's for temporary files).
//! Compare the ways within one run; the storage's own speed is in all of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use synthvm_storage::backend::{
    Backend, CacheMode, IoBuffer, IoDone, IoMode, IoRequest, Operation, Queue, RawFile, RawOptions,
};
use vmm_sys_util::tempfile::TempFile;

const SIZE: u64 = 256 << 20;
const ROUND: Duration = Duration::from_millis(400);

fn main() {
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let directory = directory.map_or_else(std::env::temp_dir, PathBuf::from);
    let file = TempFile::new_in(&directory).expect("a temporary file");
    fill(&file);
    for (cache_name, cache) in [("writeback", CacheMode::Writeback), ("none", CacheMode::None)] {
        for (operation_name, operation) in
            [("read", Operation::Read), ("write", Operation::Write { fua: false })]
        {
            for depth in [1, 32] {
                for (io_name, io) in
                    [("sync", IoMode::Sync), ("threads", IoMode::Threads), ("uring", IoMode::Uring)]
                {
                    let options = RawOptions { read_only: false, cache, io };
                    let raw = match RawFile::open_with(file.as_path(), &options) {
                        Ok(raw) => raw,
                        Err(error) => {
                            println!(
                                "raw_{cache_name}_{operation_name}_4k_qd{depth}_{io_name} skipped: {error}"
                            );
                            continue;
                        }
                    };
                    let mut queue = raw.queue().expect("a queue");
                    let (ns, cpu) = run(&mut *queue, operation, depth);
                    println!(
                        "raw_{cache_name}_{operation_name}_4k_qd{depth}_{io_name}_ns_per_io {ns:.0} cpu_ns {cpu:.0}"
                    );
                }
            }
        }
    }
}

fn fill(file: &TempFile) {
    use std::io::Write;
    let chunk = vec![0x5A; 1 << 20];
    for _ in 0..SIZE >> 20 {
        file.as_file().write_all(&chunk).expect("room for the file");
    }
    file.as_file().sync_all().expect("a flush");
}

/// Nanoseconds per request, of time and of this process's CPUs.
fn run(queue: &mut dyn Queue, operation: Operation, depth: u32) -> (f64, f64) {
    let mut batch: Vec<IoRequest> = Vec::new();
    let mut done: Vec<IoDone> = Vec::new();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut idle: Vec<Box<IoBuffer>> =
        (0..depth).map(|_| Box::new(IoBuffer::from_vec(vec![7; 8192]))).collect();
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut count = 0_u64;
    while start.elapsed() < ROUND {
        while let Some(mut buffer) = idle.pop() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = (random >> 33) % (SIZE / 4096) * 4096;
            let base = buffer.host_bytes().expect("host memory").as_ptr().addr();
            buffer.select(base.next_multiple_of(4096) - base, 4096).expect("room");
            batch.push(IoRequest { id: 0, operation, offset, length: 4096, buffer });
        }
        queue.submit(&mut batch);
        queue.poll(&mut done);
        while done.is_empty() {
            let mut poll =
                libc::pollfd { fd: queue.event().expect("an event"), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            unsafe { libc::poll(&raw mut poll, 1, -1) };
            queue.poll(&mut done);
        }
        for done in done.drain(..) {
            done.result.expect("a request");
            idle.push(done.buffer);
            count += 1;
        }
    }
    while idle.len() < depth as usize {
        queue.poll(&mut done);
        idle.extend(done.drain(..).map(|done| done.buffer));
        std::thread::yield_now();
    }
    let elapsed = start.elapsed().as_nanos() as f64;
    (elapsed / count as f64, (cpu_time() - cpu) / count as f64)
}

fn cpu_time() -> f64 {
    // SAFETY: `timespec` is plain integers, and the call fills one.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
