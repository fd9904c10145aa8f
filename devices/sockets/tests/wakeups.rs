//! Wake-ups of the thread. A program of its own, so that there is only one such thread.

mod common;

use std::io::{Read, Write};
use std::path::PathBuf;

use common::{Machine, receive, send};

/// Returns how often the sockets' thread has slept.
fn sleeps() -> u64 {
    let is_ours = |path: &PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "vsock")
    };
    let folder = std::fs::read_dir("/proc/self/task").unwrap();
    let path = folder.map(|entry| entry.unwrap().path()).find(is_ours).unwrap();
    let status = std::fs::read_to_string(path.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn test_program_that_reads_what_it_has_been_sent_does_not_wake_the_loop() {
    const FRAMES: usize = 64;
    let mut machine = Machine::new();
    let (mut channel, mut stream) = machine.pair(8);
    for number in 1..=FRAMES {
        send(&mut channel, &[1; 100]);
        // One system call each, so that each has a buffer that a read of the program releases.
        machine.await_report(|report| report.writes == number as u64);
    }
    let before = sleeps();
    let mut bytes = [0; 100];
    for _ in 0..FRAMES {
        stream.read_exact(&mut bytes).unwrap();
    }
    // The loop is done with the events of these reads when it has passed on this answer.
    stream.write_all(b"end").unwrap();
    assert_eq!(receive(&mut channel), b"end");
    let slept = sleeps() - before;
    assert!(slept < FRAMES as u64 / 4, "the loop slept {slept} times");
}
