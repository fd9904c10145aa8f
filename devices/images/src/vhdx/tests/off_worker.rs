//! No worker waits for a VHDX's structures; copy-ups and growth share their barriers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use synthvm_block::conformance::{one, over, pattern, run, wait};
use synthvm_block::{Backend, Completion, Fault, Faulty, IoBuffer, Operation, Queue, Request};
use vmm_sys_util::tempdir::TempDir;

use crate::file::ImageFile;
use crate::mapped::{Clearing, Extents, Map, Mapped, Step};
use crate::testing::Probe;
use crate::vhdx::Vhdx;
use crate::{CreateOptions, Format, OpenOptions, create, open};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 512 * MIB;
const WRITE: Operation = Operation::Write { fua: false };

fn new_image(path: &Path, parent: Option<PathBuf>) {
    let options = CreateOptions {
        size: parent.is_none().then_some(SIZE),
        parent,
        block_size: Some(MIB),
        ..CreateOptions::new(Format::Vhdx, SIZE)
    };
    create(path, &options).unwrap();
}

/// An open image, and the probe of its file.
fn watched(path: &Path, prepare: impl FnOnce(&mut ImageFile)) -> (Arc<Vhdx>, Arc<Probe>) {
    let mut file = ImageFile::open(path, &OpenOptions::default()).unwrap();
    prepare(&mut file);
    let probe = Arc::clone(&file.probe);
    (Arc::new(Vhdx::assemble(file, path, &OpenOptions::default(), 0).unwrap()), probe)
}

struct Fixture {
    _folder: TempDir,
    path: PathBuf,
    vhdx: Arc<Vhdx>,
    probe: Arc<Probe>,
    mapped: Mapped,
}

impl Fixture {
    /// A dynamic image in which block 0 has been written.
    fn dynamic() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("disk.vhdx");
        new_image(&path, None);
        Self::of(folder, path)
    }

    /// A child of which only block 0 has been written. Its parent has `pattern(block, 1 MiB)` in
    /// the first `blocks` blocks.
    fn differencing(blocks: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let (parent, path) =
            (folder.as_path().join("parent.vhdx"), folder.as_path().join("child.vhdx"));
        new_image(&parent, None);
        let image = open(&parent, &OpenOptions::default()).unwrap();
        let mut queue = image.queue().unwrap();
        for block in 0..blocks {
            one(&mut *queue, WRITE, block * MIB, pattern(block, MIB as usize)).unwrap();
        }
        one(&mut *queue, Operation::Flush, 0, Vec::new()).unwrap();
        drop((queue, image));
        new_image(&path, Some(parent));
        Self::of(folder, path)
    }

    fn of(folder: TempDir, path: PathBuf) -> Self {
        let (vhdx, probe) = watched(&path, |_| {});
        let mapped = Mapped::new(Arc::<Vhdx>::clone(&vhdx));
        one(&mut *mapped.queue().unwrap(), WRITE, 0, pattern(0, MIB as usize)).unwrap();
        probe.take();
        Self { _folder: folder, path, vhdx, probe, mapped }
    }
}

fn request(tag: u64, operation: Operation, offset: u64, length: u64) -> Box<Request> {
    let moves = matches!(operation, Operation::Read | WRITE);
    let bytes = vec![0xEE; if moves { length as usize } else { 0 }];
    Request::new(tag, operation, offset, length, IoBuffer::from_vec(bytes))
}

fn next(queue: &mut dyn Queue) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.is_empty() {
        wait(queue.event().unwrap());
        queue.poll(&mut done);
    }
    done
}

/// Uses up free space, so that the next write of a block needs the file to grow.
fn use_up_free_space(fixture: &Fixture) -> u64 {
    let mut block = 1;
    // This calls the format directly: its thread would grow the file ahead of need.
    while fixture.vhdx.allocate(block * MIB, 512, &mut Extents::default()).unwrap() != Step::Barrier
    {
        block += 1;
    }
    block
}

#[test]
fn test_write_that_waits_for_growth_delays_no_other_request_and_no_close() {
    let fixture = Fixture::dynamic();
    let block = use_up_free_space(&fixture);
    let mut queue = fixture.mapped.queue().unwrap();
    fixture.probe.gate.close();
    queue.submit(&mut vec![request(1, WRITE, block * MIB, 512)]);
    fixture.probe.gate.wait_for(1);
    // The file's fsync waits. The same queue, and others, continue.
    let done =
        run(&mut *queue, vec![request(2, WRITE, 0, 512), request(3, Operation::Read, MIB, 512)]);
    assert!(done.iter().all(|done| done.result.is_ok()));
    let mut other = fixture.mapped.queue().unwrap();
    one(&mut *other, Operation::Write { fua: true }, 512, vec![1; 512]).unwrap();
    one(&mut *other, Operation::Flush, 0, Vec::new()).unwrap();
    assert_eq!(fixture.mapped.extent(0).map(|extent| extent.mapped), Ok(true));
    // The channel closes.
    drop(queue);
    fixture.probe.gate.open();
    one(&mut *other, WRITE, block * MIB, vec![2; 512]).unwrap();
}

#[test]
fn test_growth_ahead_of_need_lets_no_writer_wait_for_the_file() {
    let fixture = Fixture::dynamic();
    let mut barriers = 0;
    for block in 1..400 {
        let mut extents = Extents::default();
        if fixture.vhdx.allocate(block * MIB, 512, &mut extents).unwrap() == Step::Barrier {
            barriers += 1;
            fixture.vhdx.barrier().unwrap();
        }
        fixture.vhdx.idle();
    }
    assert_eq!(barriers, 0, "the first write of all has waited");
    let (syncs, _) = fixture.probe.take();
    assert!((3..=8).contains(&syncs), "{syncs} fsyncs for 400 MiB");
}

#[test]
fn test_discards_of_parts_of_blocks_that_the_child_lacks_copy_and_sync_nothing() {
    let fixture = Fixture::differencing(64);
    let mut queue = fixture.mapped.queue().unwrap();
    assert_eq!(fixture.mapped.geometry().discard.map(|discard| discard.zeroes), Some(false));
    let requests =
        (1..64).map(|block| request(block, Operation::Discard, block * MIB + 4096, 8192));
    assert!(run(&mut *queue, requests.collect()).iter().all(|done| done.result.is_ok()));
    assert_eq!(fixture.probe.take(), (0, 0));
    let seen = one(&mut *queue, Operation::Read, 7 * MIB, vec![0; MIB as usize]).unwrap();
    assert!(seen == pattern(7, MIB as usize), "the parent's");
    // A whole block, and a part of one that the child has.
    over(&mut *queue, Operation::Discard, 5 * MIB - 512, MIB + 1024).unwrap();
    over(&mut *queue, Operation::Discard, 4096, 8192).unwrap();
    let seen = one(&mut *queue, Operation::Read, 5 * MIB, vec![1; MIB as usize]).unwrap();
    assert!(seen.iter().all(|&byte| byte == 0));
    let (syncs, written) = fixture.probe.take();
    assert_eq!((syncs, written), (0, 8), "one entry of the table");
}

#[test]
fn test_zeroes_for_parts_of_blocks_that_the_child_lacks_share_their_barrier() {
    const COUNT: u32 = 16;
    let fixture = Fixture::differencing(40);
    let mut queue = fixture.mapped.queue().unwrap();
    let zeroes = Operation::WriteZeroes { unmap: true };
    let clear = |block: u64| request(block, zeroes, block * MIB + 4096, 8192);
    // All writes but the first arrive while the first one's barrier is in progress.
    fixture.probe.gate.close();
    queue.submit(&mut vec![clear(1)]);
    fixture.probe.gate.wait_for(1);
    queue.submit(&mut (2..=u64::from(COUNT)).map(clear).collect());
    fixture.probe.gate.open();
    let mut done = Vec::new();
    while done.len() < COUNT as usize {
        done.extend(next(&mut *queue));
    }
    assert!(done.iter().all(|done| done.result.is_ok()));
    let (syncs, written) = fixture.probe.take();
    assert_eq!(syncs, 2, "for {COUNT} copy-ups");
    assert_eq!(written, u64::from(COUNT) * (MIB + 8), "each block once, and its entry");
    for block in 1..=u64::from(COUNT) {
        let mut expected = pattern(block, MIB as usize);
        expected[4096..12288].fill(0);
        let seen = one(&mut *queue, Operation::Read, block * MIB, vec![1; MIB as usize]).unwrap();
        assert!(seen == expected, "block {block}");
    }
    // If the parent has no data there, zeroes need no copy.
    over(&mut *queue, zeroes, 50 * MIB + 4096, 8192).unwrap();
    over(&mut *queue, Operation::WriteZeroes { unmap: false }, 51 * MIB + 4096, 8192).unwrap();
    assert_eq!(fixture.probe.take(), (0, 0));
}

#[test]
fn test_copy_up_that_is_lost_by_a_failed_sync_is_made_again() {
    let fixture = Fixture::differencing(4);
    let vhdx = &fixture.vhdx;
    let write = |vhdx: &Vhdx| vhdx.allocate(MIB + 512, 512, &mut Extents::default()).unwrap();
    while write(vhdx) == Step::Again {}
    let first = fixture.probe.take().1;
    assert!(vhdx.lock().copies[&1].is_complete(MIB));
    fixture.probe.fail_next_sync();
    assert!(vhdx.barrier().is_err());
    while write(vhdx) == Step::Again {}
    assert_eq!(write(vhdx), Step::Barrier);
    assert_eq!((first, fixture.probe.take().1), (MIB, MIB), "copied twice");
    vhdx.barrier().unwrap();
    assert_eq!(write(vhdx), Step::Done(512));
}

#[test]
fn test_unmap_of_a_large_disk_takes_many_steps_of_bounded_work() {
    let fixture = Fixture::dynamic();
    for block in 1..400 {
        while fixture.vhdx.allocate(block * MIB, 512, &mut Extents::default()).unwrap()
            != Step::Done(512)
        {
            fixture.vhdx.barrier().unwrap();
        }
    }
    fixture.probe.take();
    let (mut done, mut steps, mut most) = (0, 0, 0);
    while done < SIZE {
        match fixture
            .vhdx
            .clear(Clearing::Discard, done, SIZE - done, &mut Extents::default())
            .unwrap()
        {
            Step::Done(bytes) => done += bytes,
            other => panic!("{other:?}"),
        }
        steps += 1;
        most = most.max(fixture.probe.take().1 / 8);
    }
    assert!(steps >= 400 / 32 && most <= 32, "{steps} steps, at most {most} entries in one");
}

/// None of 32,768 blocks is allocated: nothing changes, but each block has to be inspected.
#[test]
fn test_unmap_of_a_disk_without_blocks_examines_a_bounded_number_of_them_in_a_step() {
    const BLOCKS: u64 = 32768;
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("disk.vhdx");
    let large = CreateOptions::new(Format::Vhdx, BLOCKS * MIB);
    create(&path, &CreateOptions { block_size: Some(MIB), ..large }).unwrap();
    let (vhdx, _) = watched(&path, |_| {});
    let mut extents = Extents::default();
    // Before the first change of an image no request is handled on a worker.
    assert_eq!(vhdx.try_clear(Clearing::Discard, 0, MIB, &mut extents), None);
    assert_eq!(vhdx.clear(Clearing::Discard, 0, MIB, &mut extents), Ok(Step::Done(MIB)));
    assert_eq!(vhdx.try_clear(Clearing::Discard, 0, 16 * MIB, &mut extents), Some(Ok(())));
    assert_eq!(vhdx.try_clear(Clearing::Discard, 0, 17 * MIB, &mut extents), None);
    assert_eq!(
        vhdx.clear(Clearing::Discard, 0, BLOCKS * MIB, &mut extents),
        Ok(Step::Done(BLOCKS / 2 * MIB))
    );
}

#[test]
fn test_copy_up_of_a_large_block_takes_steps_of_bounded_work() {
    let folder = TempDir::new().unwrap();
    let [parent, path] = ["parent.vhdx", "child.vhdx"].map(|name| folder.as_path().join(name));
    let plain = CreateOptions::new(Format::Vhdx, SIZE);
    let options = CreateOptions { block_size: Some(4 * MIB), ..plain };
    create(&parent, &options).unwrap();
    let image = open(&parent, &OpenOptions::default()).unwrap();
    one(&mut *image.queue().unwrap(), WRITE, 0, pattern(0, 4 * MIB as usize)).unwrap();
    drop(image);
    create(&path, &CreateOptions { size: None, parent: Some(parent), ..options }).unwrap();
    let (vhdx, probe) = watched(&path, |_| {});
    let write = |offset| vhdx.allocate(offset, 512, &mut Extents::default()).unwrap();
    // A write to another block makes the file grow first.
    while write(64 * MIB) != Step::Done(512) {
        vhdx.barrier().unwrap();
    }
    probe.take();
    for expected in [Step::Again, Step::Again, Step::Again, Step::Barrier] {
        assert_eq!((write(512), probe.take().1), (expected, MIB));
    }
}

/// A forced write immediately after its block's entry becomes visible must flush that entry before
/// it completes.
#[test]
fn test_forced_write_that_sees_a_new_block_flushes_the_entry() {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("disk.vhdx");
    new_image(&path, None);
    let flushes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&flushes);
    let (vhdx, _) = watched(&path, |file| {
        file.wrap_raw(|raw| {
            Arc::new(Faulty::new(raw, move |request| {
                count
                    .fetch_add(u64::from(request.operation == Operation::Flush), Ordering::Relaxed);
                Fault::None
            }))
        });
    });
    let mapped = Mapped::new(Arc::<Vhdx>::clone(&vhdx));
    let (mut first, mut second) = (mapped.queue().unwrap(), mapped.queue().unwrap());
    let (sender, seen) = mpsc::channel();
    vhdx.published.set(move |block| {
        // The other queue writes at the moment at which its lookup finds the block.
        one(&mut *second, Operation::Write { fua: true }, block * MIB + 4096, vec![9; 512])
            .unwrap();
        sender.send(flushes.load(Ordering::Relaxed)).unwrap();
    });
    one(&mut *first, WRITE, 3 * MIB, vec![1; 512]).unwrap();
    assert_eq!(seen.recv().unwrap(), 1, "flushes before the forced write was done");
}

#[test]
fn test_image_with_copies_under_way_is_sound_when_it_is_closed() {
    let fixture = Fixture::differencing(8);
    for block in 1..8 {
        fixture.vhdx.allocate(block * MIB + 512, 512, &mut Extents::default()).unwrap();
    }
    let Fixture { _folder, path, vhdx, mapped, .. } = fixture;
    drop((mapped, vhdx));
    let image = open(&path, &OpenOptions::default()).unwrap();
    for block in 0..8 {
        let seen =
            one(&mut *image.queue().unwrap(), Operation::Read, block * MIB, vec![0; MIB as usize]);
        assert!(seen.unwrap() == pattern(block, MIB as usize), "block {block}");
    }
}
