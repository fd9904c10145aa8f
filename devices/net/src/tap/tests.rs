use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::conformance::{
    Fixture, Memory, check, frame, is_readable, is_test_frame, receive_wait, wait_readable,
};
use crate::{Frame, ReceiveError};

/// Moves this thread to a new network namespace with a TAP interface `t0`. `None`, with the reason
/// on standard error, if that is not permitted. It needs CAP_SYS_ADMIN, CAP_NET_ADMIN and access to
/// /dev/net/tun: `unshare -Urn` provides the capabilities.
pub(super) fn with_tap(options: &str) -> Option<()> {
    // SAFETY: only this thread's namespace changes.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("left out: no network namespace: {}", std::io::Error::last_os_error());
        return None;
    }
    // Fewer frames of the host's own.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let made = add(options);
    if !made {
        eprintln!("left out: no TAP interface can be made by `ip`");
    }
    made.then_some(())
}

fn add(options: &str) -> bool {
    ip(&format!("tuntap add dev t0 mode tap {options}")) && ip("link set t0 up mtu 65521")
}

/// Runs `ip` in this thread's namespace.
pub(super) fn ip(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A TAP interface and a packet socket on it.
struct Bench {
    tap: Tap,
    socket: OwnedFd,
}

impl Bench {
    fn new(queues: usize) -> Self {
        Self { tap: Tap::open("t0", queues).unwrap(), socket: packet_socket() }
    }
}

impl Fixture for Bench {
    fn backend(&self) -> &dyn Backend {
        &self.tap
    }

    fn inject(&mut self, frame: &[u8]) {
        let (fd, bytes) = (self.socket.as_raw_fd(), frame.as_ptr().cast());
        // The kernel takes no frame until it has noticed the carrier of an interface that was
        // opened just now.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // SAFETY: the bytes outlive the call.
            let sent = unsafe { libc::send(fd, bytes, frame.len(), 0) };
            if sent == frame.len() as isize {
                break;
            }
            let error = std::io::Error::last_os_error();
            let is_early = error.raw_os_error() == Some(libc::ENOBUFS);
            assert!(is_early && Instant::now() < deadline, "{error}");
            std::thread::yield_now();
        }
    }

    fn take(&mut self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.try_take() {
                return frame;
            }
            wait_readable(self.socket.as_raw_fd());
        }
    }

    fn try_take(&mut self) -> Option<Vec<u8>> {
        loop {
            let frame = receive_packet(&self.socket)?;
            if is_test_frame(&frame) {
                return Some(frame);
            }
        }
    }

    fn disconnect(&mut self) -> bool {
        ip("link del t0")
    }
}

fn packet_socket() -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is passed; the new descriptor is owned here alone.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, kind, i32::from(protocol));
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: the name ends with a zero; the address and the number outlive the calls.
    unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(c"t0".as_ptr()) as i32;
        let length = size_of_val(&address) as u32;
        assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length), 0);
        let on = 1_i32;
        // Without the bypass, the queueing discipline of an interface whose carrier is not yet
        // noticed drops frames without an error.
        for option in [libc::PACKET_AUXDATA, libc::PACKET_QDISC_BYPASS] {
            let (fd, level, value) = (socket.as_raw_fd(), libc::SOL_PACKET, (&raw const on).cast());
            assert_eq!(libc::setsockopt(fd, level, option, value, 4), 0);
        }
    }
    socket
}

/// Takes one packet. The kernel has moved its tag to the control data: it is put back.
fn receive_packet(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 70_000];
    let mut control = [0_u64; 16];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all parts of the message outlive the call, and the control data is aligned.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let read = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
        bytes.truncate(usize::try_from(read).ok()?);
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        if !first.is_null() && (*first).cmsg_type == libc::PACKET_AUXDATA {
            let data = libc::CMSG_DATA(first).cast::<[u8; 20]>().read_unaligned();
            let valid = data[0] & (1 << 4) != 0;
            if valid {
                let tag = [data[19], data[18], data[17], data[16]];
                bytes.splice(12..12, [tag[0], tag[1], tag[2], tag[3]]);
            }
        }
    }
    Some(bytes)
}

#[test]
fn test_tap_does_all_that_a_backend_must() {
    if with_tap("multi_queue vnet_hdr").is_none() {
        return;
    }
    check(|| {
        if !ip("link show t0") {
            assert!(add("multi_queue vnet_hdr"));
        }
        Bench::new(2)
    });
}

#[test]
fn test_tap_deleted_and_made_again_reconnects() {
    if with_tap("").is_none() {
        return;
    }
    let tap = Tap::open("t0", 1).unwrap();
    let mut queue = tap.queue(0).unwrap();
    assert_eq!((tap.name().as_str(), tap.mtu_limit()), ("t0", 65_521));
    assert_ne!(tap.host_mac().unwrap(), [0; 6]);
    tap.set_receive_offloads(Offloads::RECEIVE).unwrap();
    assert!(ip("link del t0"));
    assert!(is_readable(queue.event().unwrap()), "the worker is woken");
    let mut memory = Memory::whole(&[0; 100]);
    assert_eq!(queue.receive(&memory.pieces()), Err(ReceiveError::LinkDown));
    assert_eq!(tap.link(), LinkState::Down);
    assert!(tap.reconnect().unwrap_err().to_string().contains("ip tuntap add dev t0"));
    assert!(add(""));
    tap.reconnect().unwrap();
    assert!(is_readable(tap.link_event().unwrap()));
    assert_eq!(tap.link(), LinkState::Up);
    check_frames_pass(tap, &mut *queue);
}

#[test]
fn test_tap_taken_down_by_the_host_is_a_link_change() {
    if with_tap("").is_none() {
        return;
    }
    let tap = Tap::open("t0", 1).unwrap();
    let mut queue = tap.queue(0).unwrap();
    let event = tap.link_event().unwrap();
    // This takes the notices of the interface's start.
    assert_eq!(tap.link(), LinkState::Up);
    for (down, up) in [
        ("link set t0 down", "link set t0 up"),
        ("link set t0 carrier off", "link set t0 carrier on"),
    ] {
        assert!(ip(down));
        wait_link(&tap, event, LinkState::Down);
        assert!(tap.reconnect().unwrap_err().to_string().contains("ip link set t0 up"));
        assert!(ip(up));
        wait_link(&tap, event, LinkState::Up);
        tap.reconnect().unwrap();
    }
    check_frames_pass(tap, &mut *queue);
}

#[test]
fn test_tap_that_is_down_shows_when_a_frame_is_sent() {
    if with_tap("").is_none() {
        return;
    }
    let mut tap = Tap::open("t0", 1).unwrap();
    // As where no netlink socket can be had.
    tap.monitor = None;
    let mut queue = tap.queue(0).unwrap();
    assert!(ip("link set t0 down") && !tap.is_interface_up().unwrap());
    assert_eq!(tap.link(), LinkState::Up);
    let mut send = || queue.send(&Frame::new(&Memory::whole(&frame(100, 2)).pieces()));
    assert_eq!(send(), Err(crate::SendError::LinkDown));
    assert_eq!(tap.link(), LinkState::Down);
    assert_eq!(send(), Err(crate::SendError::LinkDown));
    assert!(ip("link set t0 up") && tap.is_interface_up().unwrap());
    assert_eq!(send(), Ok(()));
    assert_eq!(tap.link(), LinkState::Up);
    assert!(ip("link set t0 down"));
    drop(queue);
    drop(tap);
    assert_eq!(Tap::open("t0", 1).unwrap().link(), LinkState::Down, "opened while it is down");
}

/// No queue and no frame is needed: the kernel's notices say so.
#[test]
fn test_tap_deleted_while_no_queue_is_open_is_a_link_change() {
    if with_tap("").is_none() {
        return;
    }
    let tap = Tap::open("t0", 1).unwrap();
    let event = tap.link_event().unwrap();
    for _ in 0..2 {
        assert!(ip("link del t0"));
        wait_link(&tap, event, LinkState::Down);
        assert!(add(""));
        wait_readable(event);
        tap.reconnect().unwrap();
        wait_link(&tap, event, LinkState::Up);
    }
}

/// A frame passes each way.
fn check_frames_pass(tap: Tap, queue: &mut dyn Queue) {
    let mut bench = Bench { tap, socket: packet_socket() };
    bench.inject(&frame(100, 1));
    assert!(receive_wait(queue) == frame(100, 1));
    queue.send(&Frame::new(&Memory::whole(&frame(100, 2)).pieces())).unwrap();
    assert!(bench.take() == frame(100, 2));
}

/// Waits by the event until the link has this state.
fn wait_link(backend: &dyn Backend, event: RawFd, state: LinkState) {
    while backend.link() != state {
        wait_readable(event);
    }
}

#[test]
fn test_tap_that_cannot_be_opened_says_what_to_do() {
    if with_tap("").is_none() {
        return;
    }
    let error = |name: &str, queues| Tap::open(name, queues).unwrap_err().to_string();
    assert!(error("t1", 1).contains("ip tuntap add dev t1"));
    assert!(error("t0", 2).contains("multi_queue"), "{}", error("t0", 2));
    assert!(error("lo", 1).contains("no TAP interface"), "{}", error("lo", 1));
    for name in ["", "a/b", "a b", "sixteen-bytes-ab"] {
        assert!(matches!(Tap::open(name, 1), Err(TapError::Name(_))), "{name}");
    }
    assert!(matches!(Tap::open("t0", 0), Err(TapError::Queues(0))));
    let _first = Tap::open("t0", 1).unwrap();
    assert!(matches!(Tap::open("t0", 1), Err(TapError::Busy(_))));
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(Tap::from_fds(vec![null.into()]), Err(TapError::Descriptor(_))));
}

#[test]
fn test_tap_from_descriptors_works_and_stays_down_once_deleted() {
    if with_tap("multi_queue").is_none() {
        return;
    }
    let (_, fds) = open::open("t0", 2).unwrap();
    let tap = Tap::from_fds(fds).unwrap();
    let mut bench = Bench { tap, socket: packet_socket() };
    let mut queues: Vec<_> = (0..2).map(|index| bench.tap.queue(index).unwrap()).collect();
    for (seed, queue) in queues.iter_mut().enumerate() {
        queue.send(&Frame::new(&Memory::odd(&frame(99, seed as u8)).pieces())).unwrap();
        assert!(bench.take() == frame(99, seed as u8));
    }
    assert!(bench.disconnect());
    let sent = queues[1].send(&Frame::new(&Memory::odd(&frame(99, 1)).pieces()));
    assert_eq!(sent, Err(crate::SendError::LinkDown));
    assert!(bench.tap.reconnect().is_err());
    assert!(queues.iter().all(|queue| !is_readable(queue.event().unwrap())));
}

#[test]
fn test_tap_queues_that_are_not_open_get_no_frames() {
    if with_tap("multi_queue").is_none() {
        return;
    }
    let mut bench = Bench::new(4);
    let mut queues: Vec<_> = [0, 2].map(|index| bench.tap.queue(index).unwrap()).into();
    // Frames of many flows: the kernel chooses the queue by a hash of addresses and ports.
    let mut arrived = |queues: &mut Vec<Box<dyn Queue>>| -> Vec<usize> {
        for port in 0..100 {
            bench.inject(&flow(port));
        }
        queues.iter_mut().map(|queue| count_flows(&mut **queue)).collect()
    };
    let counts = arrived(&mut queues);
    assert_eq!(counts.iter().sum::<usize>(), 100, "{counts:?}");
    assert!(counts.iter().all(|count| *count != 0), "{counts:?}");
    queues.pop();
    assert_eq!(arrived(&mut queues), [100]);
}

/// A UDP frame from this port.
fn flow(port: u8) -> Vec<u8> {
    let shape = crate::software::shape::Shape {
        tags: 0,
        v6: false,
        extra: 0,
        tcp: false,
        options: 0,
        payload: 100,
    };
    let mut bytes = shape.build();
    bytes[shape.transport() + 1] = port;
    bytes
}

fn count_flows(queue: &mut dyn Queue) -> usize {
    let mut count = 0;
    let mut memory = Memory::whole(&[0; 2000]);
    while queue.receive(&memory.pieces()).unwrap().is_some() {
        // Those of the test have this source.
        count += usize::from(memory.bytes()[6..12] == [2, 0, 0, 0, 0, 2]);
    }
    count
}
