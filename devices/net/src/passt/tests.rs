use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use crate::conformance::{
    Fixture, Memory, check, check_stream, frame, receive, receive_wait, wait_readable,
};
use crate::software::SoftwareOffload;
use crate::{Frame, ReceiveError, SendError};

/// The environment's name for a passt to test with.
const PROGRAM: &str = "SYNTHVM_PASST";

/// A backend, and a far end that speaks passt's framing.
struct Bench {
    backend: SoftwareOffload,
    far: Option<Far>,
}

struct Far {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Far {
    /// Takes the next frame that has arrived completely.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((prefix, rest)) = self.input.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*prefix) as usize;
                assert!(length < 70_000, "the stream is in step");
                if let Some(frame) = rest.get(..length) {
                    let frame = frame.to_vec();
                    self.input.drain(..4 + length);
                    return Some(frame);
                }
            }
            let mut bytes = [0; 10_000];
            match self.stream.read(&mut bytes) {
                Ok(read) if read != 0 => self.input.extend(&bytes[..read]),
                _ => return None,
            }
        }
    }
}

fn connected() -> (Passt, Far) {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    (Passt::from_fd(near.into()).unwrap(), Far { stream: far, input: Vec::new() })
}

impl Fixture for Bench {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn inject(&mut self, frame: &[u8]) {
        self.far.as_mut().unwrap().stream.write_all(&framed(frame)).unwrap();
    }

    fn take(&mut self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.try_take() {
                return frame;
            }
            wait_readable(std::os::fd::AsRawFd::as_raw_fd(&self.far.as_ref().unwrap().stream));
        }
    }

    fn try_take(&mut self) -> Option<Vec<u8>> {
        self.far.as_mut().unwrap().next()
    }

    fn disconnect(&mut self) -> bool {
        self.far.take().is_some()
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn send(queue: &mut dyn Queue, bytes: &[u8]) -> Result<(), SendError> {
    queue.send(&Frame::new(&Memory::odd(bytes).pieces()))
}

#[test]
fn test_passt_does_all_that_a_backend_must() {
    check(|| {
        let (passt, far) = connected();
        Bench { backend: SoftwareOffload::new(Arc::new(passt)), far: Some(far) }
    });
}

#[test]
fn test_passt_frames_that_arrive_byte_by_byte_are_whole() {
    let (passt, mut far) = connected();
    let mut queue = passt.queue(0).unwrap();
    let bytes = [framed(&frame(100, 1)), framed(&[7; 13]), framed(&frame(14, 2))].concat();
    let mut received = Vec::new();
    for byte in bytes {
        far.stream.write_all(&[byte]).unwrap();
        received.extend(receive(&mut *queue, 100).unwrap());
    }
    assert_eq!(received, [frame(100, 1), frame(14, 2)]);
    assert_eq!(queue.counters().receive_invalid, 1, "13 bytes are no frame");
}

#[test]
fn test_passt_given_a_frame_that_it_would_not_take_refuses_it() {
    let (passt, mut far) = connected();
    let mut queue = passt.queue(0).unwrap();
    assert_eq!(send(&mut *queue, &frame(65_536, 1)), Err(SendError::Length(65_536)));
    let bytes = frame(65_532, 1);
    let mut memory = Memory::odd(&bytes);
    let pieces = memory.pieces();
    let tagged = Frame { tag: Some(crate::vlan::Tag(1)), ..Frame::new(&pieces) };
    assert_eq!(queue.send(&tagged), Err(SendError::Length(65_532)));
    send(&mut *queue, &frame(65_535, 2)).unwrap();
    assert!(far.next() == Some(frame(65_535, 2)));
}

#[test]
fn test_passt_with_a_length_that_no_frame_has_is_disconnected() {
    let (passt, mut far) = connected();
    let mut queue = passt.queue(0).unwrap();
    far.stream.write_all(&framed(&frame(100, 1))).unwrap();
    far.stream.write_all(&[0, 1, 0, 18]).unwrap();
    assert_eq!(receive(&mut *queue, 100), Ok(Some(frame(100, 1))));
    assert_eq!(receive(&mut *queue, 100), Err(ReceiveError::LinkDown));
    assert_eq!(passt.link(), LinkState::Down);
    assert_eq!(send(&mut *queue, &frame(60, 1)), Err(SendError::LinkDown));
    assert!(passt.reconnect().is_err(), "a socket that was given");
}

#[test]
fn test_passt_queue_closed_within_a_frame_continues_with_it() {
    let (passt, mut far) = connected();
    let mut queue = passt.queue(0).unwrap();
    let mut sent = 0;
    while send(&mut *queue, &frame(50_000, sent)).is_ok() {
        sent += 1;
    }
    let half = framed(&frame(1000, 99));
    far.stream.write_all(&half[..500]).unwrap();
    assert_eq!(receive(&mut *queue, 1000), Ok(None));
    drop(queue);
    let mut queue = passt.queue(0).unwrap();
    for seed in 0..sent {
        while far.input.is_empty() || receive(&mut *queue, 1000) != Ok(None) {
            let Some(bytes) = far.next() else { continue };
            assert!(bytes == frame(50_000, seed), "frame {seed} of {sent}");
            break;
        }
    }
    far.stream.write_all(&half[500..]).unwrap();
    assert!(receive_wait(&mut *queue) == frame(1000, 99));
}

#[test]
fn test_passt_by_path_connects_again() {
    let path = std::env::temp_dir().join(format!("synthvm-passt-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let passt = Passt::connect(&path).unwrap();
    let mut queue = passt.queue(0).unwrap();
    for seed in 0..3 {
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(&framed(&frame(300, seed))).unwrap();
        assert!(receive_wait(&mut *queue) == frame(300, seed));
        // The stream ends within a length: the next stream does not continue it.
        far.write_all(&[0, 0, 1]).unwrap();
        assert_eq!(receive(&mut *queue, 300), Ok(None));
        drop(far);
        assert_eq!(receive(&mut *queue, 300), Err(ReceiveError::LinkDown));
        assert_eq!(passt.link(), LinkState::Down);
        passt.reconnect().unwrap();
        assert_eq!(passt.link(), LinkState::Up);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn test_passt_child_that_ends_takes_the_link_down_until_it_is_restarted() {
    // It refuses its arguments and ends.
    let options = PasstOptions { program: "/bin/false".into(), ..PasstOptions::default() };
    let passt = Passt::spawn(options).unwrap();
    let mut queue = passt.queue(0).unwrap();
    let mut ends = || {
        wait_readable(queue.event().unwrap());
        assert_eq!(receive(&mut *queue, 100), Err(ReceiveError::LinkDown));
        assert_eq!(passt.link(), LinkState::Down);
    };
    ends();
    passt.reconnect().unwrap();
    assert_eq!(passt.link(), LinkState::Up);
    ends();
    let early = passt.reconnect().unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock, "a child that ends each time");
    assert_eq!(passt.link(), LinkState::Down);
    let missing = PasstOptions { program: "/no/passt".into(), ..PasstOptions::default() };
    assert!(Passt::spawn(missing).unwrap_err().to_string().contains("install passt"));
}

#[test]
fn test_passt_options_become_its_arguments() {
    let tcp = Forward { protocol: Protocol::Tcp, address: None, host: 2222, guest: 22 };
    let local = Some("127.0.0.1".parse().unwrap());
    let udp = Forward { protocol: Protocol::Udp, address: local, host: 53, guest: 5353 };
    let options = PasstOptions {
        forwards: vec![tcp, udp],
        arguments: vec!["--no-map-gw".into()],
        ..PasstOptions::default()
    };
    let expected = "--foreground --quiet --fd 7 --tcp-ports 2222:22 \
                    --udp-ports 127.0.0.1/53:5353 --no-map-gw";
    let arguments: Vec<_> = expected.split_whitespace().collect();
    assert_eq!(options.arguments(7), arguments);
}

#[test]
fn test_passt_itself_answers_the_guest() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        eprintln!("left out: {PROGRAM} names no passt");
        return;
    };
    let forward = Forward { protocol: Protocol::Tcp, address: None, host: 0, guest: 0 };
    let forwards = vec![Forward { host: 42_022, guest: 22, ..forward }];
    let options = PasstOptions { program: program.into(), forwards, ..PasstOptions::default() };
    let passt = Passt::spawn(options).unwrap();
    let mut queue = passt.queue(0).unwrap();
    // Who has 10.99.0.1? Tell 10.99.0.2.
    let mut request = vec![0xff; 6];
    request.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend([2, 0, 0, 0, 0, 9, 10, 99, 0, 2, 0, 0, 0, 0, 0, 0, 10, 99, 0, 1]);
    send(&mut *queue, &request).unwrap();
    loop {
        let mut memory = Memory::odd(&[0; 2000]);
        match queue.receive(&memory.pieces()).expect("passt runs") {
            None => wait_readable(queue.event().unwrap()),
            Some(_) if memory.bytes()[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] => {
                assert_eq!(memory.bytes()[28..32], [10, 99, 0, 1], "the address asked for");
                break;
            }
            Some(_) => {}
        }
    }
}

#[test]
fn test_passt_between_threads_loses_no_frame() {
    let (near, far) = UnixStream::pair().unwrap();
    let near = SoftwareOffload::new(Arc::new(Passt::from_fd(near.into()).unwrap()));
    let far = Passt::from_fd(far.into()).unwrap();
    let (mut from, mut to) = (near.queue(0).unwrap(), far.queue(0).unwrap());
    check_stream(&mut *from, &mut *to, true);
}

proptest! {
    #[test]
    fn test_passt_given_random_bytes_neither_panics_nor_hangs(
        chunks in vec((any::<bool>(), vec(any::<u8>(), 0..3000)), 1..20),
    ) {
        let (passt, mut far) = connected();
        let mut queue = passt.queue(0).unwrap();
        let mut down = false;
        for (is_framed, bytes) in chunks {
            let bytes = if is_framed { framed(&bytes) } else { bytes };
            if far.stream.write_all(&bytes).is_err() {
                break;
            }
            let mut memory = Memory::whole(&[0; 1500]);
            // Each call takes a frame, or says why it does not.
            for _ in 0..10_000 {
                match queue.receive(&memory.pieces()) {
                    Ok(Some(received)) => prop_assert!(received.length <= 1500),
                    Err(ReceiveError::TooLong) => {}
                    Ok(None) => break,
                    Err(error) => {
                        prop_assert_eq!(error, ReceiveError::LinkDown);
                        down = true;
                        break;
                    }
                }
            }
        }
        prop_assert_eq!(passt.link() == LinkState::Down, down);
    }
}
