//! Frames with offload requests through the kernel, between two TAP interfaces on a bridge.

use super::tests::{ip, with_tap};
use super::*;
use crate::conformance::{Memory, frame, receive, wait_readable};
use crate::software::shape::{Shape, check_segment};
use crate::software::{Plan, complete_headers};
use crate::vlan::{Tag, strip};
use crate::{Frame, Received, VnetHeader};

const SIZE: u16 = 1400;

/// `t0` and `t1` on a bridge, with a queue each.
struct Bridge {
    taps: [Tap; 2],
    queues: [Box<dyn Queue>; 2],
}

/// Returns the bridge after the first frame has passed. `None`, with the reason on standard error,
/// if it cannot be made.
fn bridge() -> Option<Bridge> {
    with_tap("")?;
    for command in [
        "link set t0 mtu 1500",
        "tuntap add dev t1 mode tap",
        "link set t1 up",
        "link add br0 type bridge",
        "link set br0 up",
        "link set t0 master br0",
        "link set t1 master br0",
    ] {
        if !ip(command) {
            eprintln!("left out: no bridge can be made: ip {command}");
            return None;
        }
    }
    let taps = ["t0", "t1"].map(|name| Tap::open(name, 1).unwrap());
    let mut queues = taps.each_ref().map(|tap| tap.queue(0).unwrap());
    // The kernel enables the bridge ports asynchronously, and drops frames until then.
    for _ in 0..10_000 {
        queues[0].send(&Frame::new(&Memory::whole(&frame(60, 1)).pieces())).unwrap();
        let event = queues[1].event().unwrap();
        let mut entry = libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut entry, 1, 1) };
        if receive(&mut *queues[1], 2000).unwrap().is_some() {
            while receive(&mut *queues[1], 2000).unwrap().is_some() {}
            return Some(Bridge { taps, queues });
        }
    }
    panic!("no frame passes the bridge");
}

impl Bridge {
    /// Sends a frame with an offload request.
    fn send(&mut self, bytes: &[u8], header: VnetHeader, tag: Option<Tag>) {
        let mut memory = Memory::odd(bytes);
        let pieces = memory.pieces();
        self.queues[0].send(&Frame { header, tag, pieces: &pieces }).unwrap();
    }

    /// Receives the next TCP or UDP frame, without its tag.
    fn receive(&mut self) -> (Vec<u8>, VnetHeader, Option<Tag>) {
        loop {
            let mut memory = Memory::odd(&vec![0; 66_000]);
            let pieces = memory.pieces();
            let Some(mut received) = self.queues[1].receive(&pieces).unwrap() else {
                wait_readable(self.queues[1].event().unwrap());
                continue;
            };
            let tag = strip(&pieces, &mut received);
            let Received { offset, length, header } = received;
            drop(pieces);
            let bytes = memory.bytes()[offset..offset + length].to_vec();
            // Those of the test have this source.
            if bytes[6..12] == [2, 0, 0, 0, 0, 2] {
                return (bytes, header, tag);
            }
        }
    }
}

fn shapes(offloads: Offloads) -> impl Iterator<Item = Shape> {
    let udp = if offloads.contains(Offloads::USO) { &[true, false][..] } else { &[true][..] };
    udp.iter().flat_map(|tcp| {
        [(false, 0), (true, 0)].map(|(v6, extra)| Shape {
            tags: 0,
            v6,
            extra,
            tcp: *tcp,
            options: if *tcp { 12 } else { 0 },
            payload: 40_001,
        })
    })
}

#[test]
fn test_tap_frames_that_the_kernel_splits_keep_their_payload() {
    let Some(mut bridge) = bridge() else { return };
    for shape in shapes(bridge.taps[0].offloads()) {
        for tag in [None, Some(Tag(0x2005))] {
            let mut bytes = shape.build();
            let length = bytes.len();
            complete_headers(&mut bytes[..shape.payload_at()], length).unwrap();
            bridge.send(&bytes, shape.request(SIZE), tag);
            let mut payload = Vec::<u8>::new();
            while payload.len() < shape.payload {
                let (segment, header, found) = bridge.receive();
                assert_eq!((header.needs_checksum(), found), (false, tag), "{shape:?}");
                payload.extend(check_segment(&shape, &segment));
            }
            assert!(payload == bytes[shape.payload_at()..], "{shape:?} {tag:?}");
        }
    }
}

#[test]
fn test_tap_with_receive_offloads_gets_the_frame_as_it_was_sent() {
    let Some(mut bridge) = bridge() else { return };
    bridge.taps[1].set_receive_offloads(Offloads::RECEIVE).unwrap();
    for shape in shapes(Offloads::empty()) {
        let mut bytes = shape.build();
        let length = bytes.len();
        complete_headers(&mut bytes[..shape.payload_at()], length).unwrap();
        bridge.send(&bytes, shape.request(SIZE), None);
        let (frame, header, _) = bridge.receive();
        assert!(frame == bytes, "{shape:?}");
        let expected = shape.request(SIZE);
        // TCP with CWR is marked, and the kernel counts the headers by itself.
        assert_eq!(header.segmentation(), expected.segmentation());
        assert_eq!((header.gso_size, header.checksum_start), (SIZE, expected.checksum_start));
        assert!(Plan::new(&frame, &header).is_ok());
    }
}

#[test]
fn test_tap_frame_without_checksum_gets_one() {
    let Some(mut bridge) = bridge() else { return };
    for shape in shapes(Offloads::USO).map(|shape| Shape { payload: 999, ..shape }) {
        let mut bytes = shape.build();
        let length = bytes.len();
        let headers = complete_headers(&mut bytes, length).unwrap();
        let offset = if shape.tcp { 16 } else { 6 };
        bridge.send(&bytes, VnetHeader::checksum(headers.transport as u16, offset), None);
        let (frame, header, _) = bridge.receive();
        assert!(!header.needs_checksum());
        assert!(check_segment(&shape, &frame) == &bytes[shape.payload_at()..], "{shape:?}");
    }
}
