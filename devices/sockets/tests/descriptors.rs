//! A process without file descriptors. A program of its own, because the limit is the process's.

mod common;

use std::io::Read;

use vmbus_protocol::message::MessageType;

use common::{Machine, PORT, send};
use synthvm_sockets::protocol::service_of;

/// Sets the soft limit of descriptors. Returns the earlier one.
fn set_limit(number: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let before = std::mem::replace(&mut limit.rlim_cur, number);
    // SAFETY: the call reads one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    before
}

#[test]
fn test_process_without_descriptors_refuses_connections_and_recovers() {
    let mut machine = Machine::new();
    let listener = machine.listen(PORT);
    let endpoint = machine.endpoint();
    let before = set_limit(0);
    machine.post_connect(endpoint, service_of(PORT));
    machine.guest.expect(MessageType::TlConnectResult);
    machine.await_report(|report| report.failed == 1 && report.no_listener == 0);
    set_limit(before);
    let offer = machine.connect(PORT);
    set_limit(0);
    // The channel needs descriptors too: the open fails, and the connection is gone.
    let refused =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| machine.guest.open(offer, 4)));
    set_limit(before);
    assert!(refused.is_err(), "the open must fail");
    machine.await_rescind(offer.relid);
    machine.guest.release(offer.relid);
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    machine.assert_empty();

    let offer = machine.connect(PORT);
    let mut channel = machine.guest.open(offer, 4);
    let (mut stream, _) = listener.accept().unwrap();
    send(&mut channel, b"fine");
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"fine");
    let report = machine.report();
    assert_eq!((report.failed, report.from_guest), (1, 1));
}
