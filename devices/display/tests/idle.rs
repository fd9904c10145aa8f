//! A server whose viewers have nothing to be told sleeps without a time limit. This is its own test
//! program, as it looks for the server's thread by its name.

mod common;

use std::path::PathBuf;

use common::client::{Client, TIGHT, pair};
use common::guest::Guest;
use synthvm_display::{DisplayOptions, Security};

#[test]
fn test_idle_screen_lets_the_server_sleep_without_a_time_limit() {
    let mut guest = Guest::new(320, 240);
    let server = guest.server(DisplayOptions::default());
    let (mine, theirs) = pair();
    server.add_viewer(theirs, Security::none());
    let mut client = Client::connect(mine);
    client.set_encodings(&[TIGHT]);
    guest.draw();
    client.await_picture(guest.width, guest.height, &guest.pixels);
    client.request(true);
    let call = thread().join("syscall");
    // The number of epoll_wait, and its fourth argument, a time limit of -1.
    let is_asleep = |call: &str| {
        let words: Vec<_> = call.split_whitespace().collect();
        words.first() == Some(&"232")
            && words
                .get(4)
                .and_then(|word| u64::from_str_radix(&word[2..], 16).ok())
                .is_some_and(|limit| limit as i32 == -1)
    };
    while !is_asleep(&std::fs::read_to_string(&call).unwrap()) {
        std::thread::yield_now();
    }
    let before = server.report();
    guest.draw();
    client.await_picture(guest.width, guest.height, &guest.pixels);
    assert_ne!(server.report(), before, "a change wakes it up");
}

/// Returns the folder of the server's thread.
fn thread() -> PathBuf {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut paths = tasks.map(|task| task.unwrap().path());
    let is_server = |path: &PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "display-server")
    };
    paths.find(is_server).unwrap()
}
