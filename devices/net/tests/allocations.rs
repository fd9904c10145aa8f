//! A warm backend allocates nothing per frame. A separate program, as it has an allocator of its own.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use synthvm_net::passt::Passt;
use synthvm_net::software::SoftwareOffload;
use synthvm_net::{
    Backend, Frame, Loop, NullNet, Pieces, Queue, Segmentation, Switch, UnixLink, VnetHeader,
};
use vm_memory::VolatileSlice;
use vmbus_heap::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Memory of one frame and the list of its pieces, which is used again.
struct Buffer {
    bytes: Vec<u8>,
    list: Pieces<'static>,
}

impl Buffer {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, list: Pieces::new() }
    }

    /// Calls `with` with the bytes in pieces of 1,000.
    fn with<T>(&mut self, with: impl FnOnce(&Pieces<'_>) -> T) -> T {
        let mut pieces = std::mem::take(&mut self.list).recycle();
        for part in self.bytes.chunks_mut(1000) {
            pieces.push(VolatileSlice::from(part)).expect("few pieces");
        }
        let result = with(&pieces);
        self.list = pieces.recycle();
        result
    }
}

/// A TCP frame over IPv4 of `payload` bytes.
fn tcp(payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.resize(54 + payload, 7);
    frame
}

/// Sends frames on `from` and receives them on `to` (`None`: on `from`). Returns the number of
/// allocations after 100 rounds.
fn allocations(from: &mut dyn Queue, mut to: Option<&mut dyn Queue>, large: bool) -> u64 {
    let mut frame = Buffer::new(tcp(if large { 50_000 } else { 1000 }));
    let mut space = Buffer::new(vec![0; 66_000]);
    let split = VnetHeader::checksum(34, 16).split(Segmentation::Tcp4, 1000, 54);
    let header = if large { split } else { VnetHeader::default() };
    let (mut before, mut frames) = (0, 0);
    for round in 0..300 {
        if round == 100 {
            before = vmbus_heap::allocations();
        }
        // A full backend is as good: its frames wait.
        let _ = frame.with(|pieces| from.send(&Frame { header, ..Frame::new(pieces) }));
        loop {
            let received = space.with(|pieces| match &mut to {
                Some(to) => to.receive(pieces),
                None => from.receive(pieces),
            });
            if !matches!(received, Ok(Some(_))) {
                break;
            }
            frames += 1;
        }
    }
    let after = vmbus_heap::allocations();
    assert!(frames >= 300 || from.event().is_none(), "{frames} frames received");
    after - before
}

/// One test, so that no other one allocates meanwhile.
#[test]
fn test_backends_once_warm_allocate_nothing() {
    let queue = |backend: &dyn Backend| backend.queue(0).expect("a queue");
    for large in [false, true] {
        assert_eq!(allocations(&mut *queue(&NullNet::new(1)), None, large), 0, "null");
        assert_eq!(allocations(&mut *queue(&Loop::new(1)), None, large), 0, "loop");

        let switch = Switch::new(2).unwrap();
        let mut ports = [0, 1].map(|index| queue(&switch.port(index).unwrap()));
        let [a, b] = &mut ports;
        assert_eq!(allocations(&mut **a, Some(&mut **b), large), 0, "switch");

        let (near, far) = UnixLink::pair().unwrap();
        let (mut near, mut far) = (queue(&SoftwareOffload::new(Arc::new(near))), queue(&far));
        assert_eq!(allocations(&mut *near, Some(&mut *far), large), 0, "a link by socket");

        let (near, far) = UnixStream::pair().unwrap();
        let near = Arc::new(Passt::from_fd(near.into()).unwrap());
        let far = Passt::from_fd(far.into()).unwrap();
        let (mut near, mut far) = (queue(&SoftwareOffload::new(near)), queue(&far));
        assert_eq!(allocations(&mut *near, Some(&mut *far), large), 0, "passt");
    }
}
