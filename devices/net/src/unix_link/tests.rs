use super::*;
use crate::conformance::{Fixture, Memory, check, check_stream, frame, receive, receive_wait};
use crate::software::SoftwareOffload;

/// One end with software offloads, and a queue of the other end.
struct Bench {
    backend: SoftwareOffload,
    far: Option<(UnixLink, Box<dyn Queue>)>,
}

impl Bench {
    fn new() -> Self {
        let (near, far) = UnixLink::pair().unwrap();
        let queue = far.queue(0).unwrap();
        Self { backend: SoftwareOffload::new(Arc::new(near)), far: Some((far, queue)) }
    }

    fn far(&mut self) -> &mut dyn Queue {
        &mut *self.far.as_mut().unwrap().1
    }
}

impl Fixture for Bench {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn inject(&mut self, frame: &[u8]) {
        send(self.far(), frame).unwrap();
    }

    fn take(&mut self) -> Vec<u8> {
        receive_wait(self.far())
    }

    fn try_take(&mut self) -> Option<Vec<u8>> {
        receive(self.far(), 66_000).unwrap()
    }

    fn disconnect(&mut self) -> bool {
        self.far.take().is_some()
    }
}

fn send(queue: &mut dyn Queue, bytes: &[u8]) -> Result<(), SendError> {
    queue.send(&Frame::new(&Memory::odd(bytes).pieces()))
}

#[test]
fn test_unix_link_does_all_that_a_backend_must() {
    check(Bench::new);
}

#[test]
fn test_unix_link_by_path_comes_back_with_its_peer() {
    let folder = std::env::temp_dir().join(format!("synthvm-net-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("link");
    let server = UnixLink::listen(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600, "for its user only");
    let mut queue = server.queue(0).unwrap();
    assert_eq!(server.link(), LinkState::Down);
    assert_eq!(server.reconnect().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    for seed in 0..3 {
        let client = UnixLink::connect(&path).unwrap();
        server.reconnect().unwrap();
        assert_eq!(server.link(), LinkState::Up);
        let mut far = client.queue(0).unwrap();
        send(&mut *far, &frame(500, seed)).unwrap();
        assert!(receive_wait(&mut *queue) == frame(500, seed));
        drop((far, client));
        assert_eq!(receive(&mut *queue, 500), Err(ReceiveError::LinkDown));
        assert_eq!(server.link(), LinkState::Down);
    }
    assert!(path.exists());
    drop((queue, server));
    assert!(!path.exists(), "the socket is removed");
    std::fs::remove_dir(folder).unwrap();
}

#[test]
fn test_unix_link_given_short_messages_counts_them_and_continues() {
    let (near, far) = socket::pair(libc::SOCK_SEQPACKET).unwrap();
    let link = UnixLink::from_fd(near).unwrap();
    let mut queue = link.queue(0).unwrap();
    let mut vectors = Vectors::default();
    for bytes in [vec![1; 5], vec![1; 13], frame(100, 4)] {
        let mut memory = Memory::whole(&bytes);
        let pieces = memory.pieces();
        let fd = std::os::fd::AsFd::as_fd(&far);
        vectors.write(fd, Kind::Socket, &[], &Frame::new(&pieces)).unwrap();
    }
    assert!(receive_wait(&mut *queue) == frame(100, 4));
    assert_eq!(queue.counters().receive_invalid, 2);
    let stream = socket::pair(libc::SOCK_STREAM).unwrap().0;
    assert!(UnixLink::from_fd(stream).is_err());
}

#[test]
fn test_unix_link_between_threads_loses_no_frame() {
    let (near, far) = UnixLink::pair().unwrap();
    let (mut from, mut to) = (near.queue(0).unwrap(), far.queue(0).unwrap());
    check_stream(&mut *from, &mut *to, true);
}
