//! Checks of reads and writes: the data, its location, and refused requests.

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{GuestRam, RangeAssembler};

use super::super::{Backend, IoBuffer, IoError, Operation, Request};
use super::drive::{one, over, pattern, request, run, skewed};
use super::{CAPACITY, WRITE};

pub(super) fn check(backend: &Arc<dyn Backend>) {
    fresh_medium_reads_zero(backend);
    written_bytes_are_read_back(backend);
    first_and_last_block_are_reachable(backend);
    nothing_beyond_the_end_is(backend);
    memory_may_lie_anywhere(backend);
    scattered_pieces_keep_their_order(backend);
    pieces_shorter_than_a_block_are_fine(backend);
    a_batch_comes_back_whole(backend);
    a_flush_among_writes_is_one_of_many(backend);
    queues_see_each_others_writes(backend);
    a_queue_that_is_dropped_leaves_the_others(backend);
    an_empty_batch_is_nothing(backend);
}

fn fresh_medium_reads_zero(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    assert_eq!(one(&mut *queue, Operation::Read, 4096, vec![0xAA; 65536]), Ok(vec![0; 65536]));
    assert_eq!(
        one(&mut *queue, Operation::Read, CAPACITY - 512, vec![0xAA; 512]),
        Ok(vec![0; 512])
    );
}

fn written_bytes_are_read_back(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for (offset, len, fua) in
        [(0, 512, false), (512, 1536, true), (4096, 4096, true), (1 << 20, 1 << 20, false)]
    {
        let bytes = pattern(offset, len);
        one(&mut *queue, Operation::Write { fua }, offset, bytes.clone()).unwrap();
        assert_eq!(one(&mut *queue, Operation::Flush, 0, vec![]), Ok(vec![]));
        assert_eq!(one(&mut *queue, Operation::Read, offset, vec![0; len]), Ok(bytes));
    }
}

fn first_and_last_block_are_reachable(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for offset in [0, CAPACITY - 512] {
        one(&mut *queue, WRITE, offset, pattern(offset, 512)).unwrap();
        assert_eq!(
            one(&mut *queue, Operation::Read, offset, vec![0; 512]),
            Ok(pattern(offset, 512))
        );
    }
}

/// A refused request must change neither data nor size.
fn nothing_beyond_the_end_is(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let last = one(&mut *queue, Operation::Read, CAPACITY - 512, vec![0; 512]).unwrap();
    let far = i64::MAX as u64 & !511;
    for offset in [CAPACITY, CAPACITY + 512, far, far + 512, u64::MAX - 511] {
        for operation in [Operation::Read, WRITE, Operation::Write { fua: true }] {
            let result = one(&mut *queue, operation, offset, vec![0x55; 512]);
            assert_eq!(result, Err(IoError::EndOfImage), "{operation:?} at {offset:#x}");
        }
        for operation in [Operation::Discard, Operation::WriteZeroes { unmap: true }] {
            let result = over(&mut *queue, operation, offset, 512);
            assert_eq!(result, Err(IoError::EndOfImage), "{operation:?} at {offset:#x}");
        }
    }
    let across = one(&mut *queue, Operation::Read, CAPACITY - 512, vec![0; 1024]);
    assert_eq!(across, Err(IoError::EndOfImage));
    let everything =
        over(&mut *queue, Operation::WriteZeroes { unmap: false }, 512, u64::MAX - 511);
    assert_eq!(everything, Err(IoError::EndOfImage));
    assert_eq!(one(&mut *queue, Operation::Read, CAPACITY - 512, vec![0; 512]), Ok(last));
    assert_eq!(backend.geometry().capacity, CAPACITY);
}

/// Addresses of every alignment must work, even if the storage needs a larger one.
fn memory_may_lie_anywhere(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for (at, skew) in [0, 1, 7, 64, 511, 512, 2048, 4095].into_iter().enumerate() {
        let (offset, bytes) = (at as u64 * 65536, pattern(skew as u64, 12_288));
        let write = skewed(1, WRITE, offset, &bytes, skew);
        assert_eq!(run(&mut *queue, vec![write])[0].result, Ok(()));
        let read = skewed(2, Operation::Read, offset, &vec![0; bytes.len()], 4096 - skew);
        let mut done = run(&mut *queue, vec![read]).remove(0);
        assert_eq!(done.result, Ok(()));
        assert!(
            done.request.buffer.host_bytes().unwrap()[4096 - skew..] == bytes,
            "memory {skew} bytes off"
        );
    }
}

fn scattered_pieces_keep_their_order(backend: &Arc<dyn Backend>) {
    // 1500 pages in reverse order: more pieces than one system call takes, and no two of them are
    // adjacent.
    let mut queue = backend.queue().unwrap();
    let guest = guest_ram(16 << 20);
    let pages: Vec<u64> = (100..100 + 1500).rev().collect();
    let mut buffer = guest_buffer(&guest, 0x200, 1499 * 4096, &pages);
    let bytes = pattern(3, 1499 * 4096);
    buffer.guest_mut().unwrap().write(0, &bytes).unwrap();
    buffer.select(0, bytes.len()).unwrap();
    assert!(buffer.iovecs().len() > 1024);
    let offset = 1 << 19;
    let request = |operation, buffer| Request::new(1, operation, offset, 1499 * 4096, buffer);
    assert_eq!(run(&mut *queue, vec![request(WRITE, buffer)])[0].result, Ok(()));
    assert!(one(&mut *queue, Operation::Read, offset, vec![0; bytes.len()]).as_ref() == Ok(&bytes));
    // The same data is read into other pages.
    let mut buffer = guest_buffer(&guest, 0, 1499 * 4096, &pages[..1499]);
    buffer.select(0, bytes.len()).unwrap();
    let done = run(&mut *queue, vec![request(Operation::Read, buffer)]);
    let mut seen = vec![0; bytes.len()];
    done[0].request.buffer.guest().unwrap().read(0, &mut seen).unwrap();
    assert!(seen == bytes);
}

/// A guest may divide its memory anywhere: here a block lies in up to three pieces.
fn pieces_shorter_than_a_block_are_fine(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let guest = guest_ram(1 << 20);
    let bytes = pattern(9, 3 * 4096);
    for (at, offset_in_page) in [4, 100, 510, 3800].into_iter().enumerate() {
        let offset = (2 << 20) + at as u64 * 65536;
        let mut buffer = guest_buffer(&guest, offset_in_page, 3 * 4096, &[9, 7, 5, 3]);
        buffer.guest_mut().unwrap().write(0, &bytes).unwrap();
        buffer.select(0, bytes.len()).unwrap();
        assert_eq!(buffer.iovecs().len(), 4);
        let request = Request::new(1, WRITE, offset, 3 * 4096, buffer);
        assert_eq!(run(&mut *queue, vec![request])[0].result, Ok(()));
        assert!(
            one(&mut *queue, Operation::Read, offset, vec![0; bytes.len()]).as_ref() == Ok(&bytes)
        );
    }
}

fn a_batch_comes_back_whole(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let at = |tag: u64| tag * 512;
    let writes = (0..2000).map(|tag| request(tag, WRITE, at(tag), pattern(tag, 512))).collect();
    let done = run(&mut *queue, writes);
    assert!(done.iter().all(|done| done.result.is_ok()));
    let reads = (0..2000).map(|tag| request(tag, Operation::Read, at(tag), vec![0; 512])).collect();
    for mut done in run(&mut *queue, reads) {
        assert_eq!(done.result, Ok(()));
        assert_eq!(*done.request.buffer.host_bytes().unwrap(), pattern(done.request.tag, 512));
    }
}

fn a_flush_among_writes_is_one_of_many(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let batch = (0..60).map(|id| match id % 3 {
        0 => request(id, Operation::Flush, 0, vec![]),
        1 => request(id, WRITE, id * 4096, pattern(id, 4096)),
        _ => request(id, Operation::Write { fua: true }, id * 4096, pattern(id, 4096)),
    });
    assert!(run(&mut *queue, batch.collect()).iter().all(|done| done.result.is_ok()));
    for id in (0..60).filter(|id| id % 3 != 0) {
        assert_eq!(
            one(&mut *queue, Operation::Read, id * 4096, vec![0; 4096]),
            Ok(pattern(id, 4096))
        );
    }
}

fn queues_see_each_others_writes(backend: &Arc<dyn Backend>) {
    let (mut first, mut second) = (backend.queue().unwrap(), backend.queue().unwrap());
    for seed in 0..50 {
        one(&mut *first, WRITE, 8192 + seed % 3 * 512, pattern(seed, 4096)).unwrap();
        let seen = one(&mut *second, Operation::Read, 8192 + seed % 3 * 512, vec![0; 4096]);
        assert_eq!(seen, Ok(pattern(seed, 4096)));
        std::mem::swap(&mut first, &mut second);
    }
}

/// The queue has requests in flight. When the drop returns, each of them is complete or will never
/// be carried out.
fn a_queue_that_is_dropped_leaves_the_others(backend: &Arc<dyn Backend>) {
    let mut other = backend.queue().unwrap();
    for round in 0..10 {
        let mut queue = backend.queue().unwrap();
        let mut batch: Vec<_> =
            (0..32).map(|id| request(id, WRITE, id * 65536, pattern(round, 65536))).collect();
        queue.submit(&mut batch);
        drop(queue);
        one(&mut *other, WRITE, 0, pattern(100 + round, 4096)).unwrap();
        assert_eq!(
            one(&mut *other, Operation::Read, 0, vec![0; 4096]),
            Ok(pattern(100 + round, 4096))
        );
    }
}

fn an_empty_batch_is_nothing(backend: &Arc<dyn Backend>) {
    assert!(run(&mut *backend.queue().unwrap(), vec![]).is_empty());
}

/// Returns guest RAM of `size` bytes from address 0 on.
pub(crate) fn guest_ram(size: usize) -> GuestRam {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).expect("memory");
    GuestRam::new(memory).expect("a memory map")
}

/// Returns a buffer of one range: `len` bytes from `offset` into the first of `pages`.
pub(crate) fn guest_buffer(ram: &GuestRam, offset: u32, len: u32, pages: &[u64]) -> IoBuffer {
    let mut buffer = IoBuffer::new(ram.clone());
    let mut list = Vec::new();
    list.extend_from_slice(&len.to_le_bytes());
    list.extend_from_slice(&offset.to_le_bytes());
    list.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    RangeAssembler::assemble(buffer.guest_mut().expect("guest memory"), 1, &list)
        .expect("sound pages");
    buffer
}
