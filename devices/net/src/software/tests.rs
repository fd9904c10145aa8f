use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert_eq, proptest};

use super::shape::{Shape, check_segment, word};
use super::*;
use crate::conformance::{Memory, OverSwitch, check};
use crate::{Backend, Offloads, Queue, Segmentation, SendError, Switch, VnetHeader};

/// Splits the frame, checks each segment, and that the payload is the same.
fn check_split(shape: Shape, size: u16) {
    let frame = shape.build();
    let plan = Plan::new(&frame, &shape.request(size)).unwrap();
    assert_eq!(plan.count(), shape.payload.div_ceil(size.into()).max(1), "{shape:?}");
    let (mut payload, mut out) = (Vec::<u8>::new(), Vec::new());
    for index in 0..plan.count() {
        plan.write(&frame, index, &mut out).unwrap();
        let (first, last) = (index == 0, index + 1 == plan.count());
        if shape.tcp {
            let at = shape.transport();
            let sequence = u32::from_be_bytes(out[at + 4..at + 8].try_into().unwrap());
            assert_eq!(sequence, 0xffff_f000_u32.wrapping_add(payload.len() as u32));
            let flags = 0x10 | if first { 0x80 } else { 0 } | if last { 0x09 } else { 0 };
            assert_eq!(out[at + 13], flags, "segment {index} of {}", plan.count());
        }
        if !shape.v6 {
            let id = word(&out, shape.network() + 4) as u16;
            assert_eq!(id, 0xfffe_u16.wrapping_add(index as u16));
        }
        let part = check_segment(&shape, &out);
        assert!(last || part.len() == usize::from(size));
        payload.extend(part);
    }
    assert!(payload == frame[shape.payload_at()..], "{shape:?} in segments of {size}");
    assert_eq!(plan.write(&frame, plan.count(), &mut out), Err(Malformed));
}

#[test]
fn test_split_frames_of_all_shapes_keep_their_payload() {
    for tags in 0..=2 {
        for (v6, extra) in [(false, 0), (false, 4), (false, 40), (true, 0), (true, 8), (true, 256)]
        {
            for (tcp, options) in [(false, 0), (true, 0), (true, 12), (true, 40)] {
                for (payload, size) in
                    [(0, 1448), (1, 1448), (1448, 1448), (1449, 1448), (5000, 7), (64_000, 1460)]
                {
                    check_split(Shape { tags, v6, extra, tcp, options, payload }, size);
                }
            }
        }
    }
}

#[test]
fn test_split_with_a_wrong_request_is_refused() {
    let shape = Shape { tags: 0, v6: false, extra: 0, tcp: true, options: 0, payload: 3000 };
    let frame = shape.build();
    let good = shape.request(1000);
    let plan = |frame: &[u8], request| Plan::new(frame, &request).err();
    assert_eq!(plan(&frame, good), None);
    let wrong = Some(Malformed);
    assert_eq!(plan(&frame, VnetHeader { checksum_start: 35, ..good }), wrong);
    assert_eq!(plan(&frame, good.split(Segmentation::Tcp6, 1000, 54)), wrong, "v4 as v6");
    assert_eq!(plan(&frame, good.split(Segmentation::Udp, 1000, 54)), wrong, "TCP as UDP");
    assert_eq!(plan(&frame, good.split(Segmentation::Tcp4, 1, 54)), wrong, "3000 segments");
    assert_eq!(plan(&frame[..53], good), wrong, "cut in the TCP header");
    let mut changed = frame.clone();
    changed[20] = 0x20;
    assert_eq!(plan(&changed, good), wrong, "a fragment");
    let mut changed = frame.clone();
    changed[14] = 0x44;
    assert_eq!(plan(&changed, good), wrong, "a header length below 20");
    let mut changed = frame;
    changed[46] = 0x40;
    assert_eq!(plan(&changed, good), wrong, "a TCP header length below 20");
}

#[test]
fn test_completed_headers_with_the_checksum_filled_in_are_valid() {
    for (v6, extra) in [(false, 0), (false, 40), (true, 0), (true, 8)] {
        for (tcp, options) in [(false, 0), (true, 0), (true, 12)] {
            let shape = Shape { tags: 1, v6, extra, tcp, options, payload: 9001 };
            let mut frame = shape.build();
            let length = frame.len();
            let headers = complete_headers(&mut frame[..shape.payload_at()], length).unwrap();
            assert_eq!(
                (headers.transport, headers.payload),
                (shape.transport(), shape.payload_at())
            );
            let offset = if tcp { 16 } else { 6 };
            checksum::fill(&mut frame, headers.transport, offset).unwrap();
            check_segment(&shape, &frame);
            let short = complete_headers(&mut frame[..shape.payload_at() - 1], length);
            assert_eq!(short, Err(Malformed));
            let long = complete_headers(&mut frame, 65_536 + shape.transport());
            assert_eq!(long, Err(Malformed));
        }
    }
}

proptest! {
    #[test]
    fn test_plan_of_random_shapes_keeps_the_payload(
        (tags, v6, extra, tcp, options) in
            (0..3_usize, any::<bool>(), 0..5_usize, any::<bool>(), 0..11_usize),
        payload in 0..20_000_usize,
        size in 10..9000_u16,
    ) {
        check_split(Shape { tags, v6, extra: extra * 8, tcp, options: options * 4, payload }, size);
    }

    #[test]
    fn test_plan_of_random_bytes_never_panics(
        start in vec(any::<u8>(), 0..60),
        length in 0..200_usize,
        (ethertype, version) in (0..3_usize, 4..7_u8),
        header in any::<[u8; 12]>(),
        (gso, flags, size) in (0..6_u8, 0..4_u8, 0..40_u16),
        start_at in 14..120_u16,
    ) {
        let mut frame = start;
        frame.resize(frame.len().max(15) + length, 6);
        frame[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0]][ethertype]);
        frame[14] = version << 4 | frame[14] & 0xf;
        let random = VnetHeader::from_bytes(&header);
        let likely = VnetHeader {
            flags,
            gso_type: gso,
            header_length: 0,
            gso_size: size,
            checksum_start: start_at,
            checksum_offset: 6,
        };
        let mut out = Vec::new();
        for request in [random, likely] {
            let Ok(plan) = Plan::new(&frame, &request) else { continue };
            for index in 0..plan.count() {
                if plan.write(&frame, index, &mut out).is_ok() {
                    prop_assert_eq!(&out[..12], &frame[..12]);
                }
            }
        }
    }
}

/// A frame of TCP over IPv4 that asks for segments of 1000 bytes.
fn large() -> (Shape, Vec<u8>) {
    let shape = Shape { tags: 0, v6: false, extra: 0, tcp: true, options: 12, payload: 60_000 };
    (shape, shape.build())
}

fn send_large(queue: &mut dyn Queue) -> Result<(), SendError> {
    let (shape, bytes) = large();
    let mut memory = Memory::odd(&bytes);
    let pieces = memory.pieces();
    queue.send(&Frame { header: shape.request(1000), ..Frame::new(&pieces) })
}

#[test]
fn test_software_offload_does_all_that_a_backend_must() {
    check(|| OverSwitch::new(|port| SoftwareOffload::new(Arc::new(port))));
}

/// Receives any frame.
fn take(queue: &mut dyn Queue) -> Option<(Vec<u8>, VnetHeader)> {
    let mut memory = Memory::whole(&vec![0; 66_000]);
    let received = queue.receive(&memory.pieces()).unwrap()?;
    Some((memory.bytes()[..received.length].to_vec(), received.header))
}

#[test]
fn test_switch_port_without_receive_offloads_gets_segments() {
    let switch = Switch::new(2).unwrap();
    let ports = [switch.port(0).unwrap(), switch.port(1).unwrap()];
    let mut queues = ports.each_ref().map(|port| port.queue(0).unwrap());
    send_large(&mut *queues[0]).unwrap();
    let (shape, bytes) = large();
    let mut payload = Vec::<u8>::new();
    while let Some((segment, header)) = take(&mut *queues[1]) {
        assert_eq!(header, VnetHeader::default());
        payload.extend(check_segment(&shape, &segment));
    }
    assert!(payload == bytes[shape.payload_at()..]);
    ports[1].set_receive_offloads(Offloads::RECEIVE).unwrap();
    send_large(&mut *queues[0]).unwrap();
    assert!(take(&mut *queues[1]) == Some((bytes, shape.request(1000))), "as it was sent");
}
