//! `synthvm console` against a machine that the test plays.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use crate::support::Scratch;

/// Plays a machine with one client: it answers the request, prints old output, and prints all
/// input in capitals when the client has no more. Returns the request and the input.
fn machine(socket: &Path) -> JoinHandle<(String, String)> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = BufReader::new(stream);
        let (mut request, mut input) = (String::new(), String::new());
        stream.read_line(&mut request).unwrap();
        stream.get_mut().write_all(b"{\"ok\":true,\"value\":null}\nold output\r\n").unwrap();
        stream.read_to_string(&mut input).unwrap();
        // The client may have left.
        let _ = stream.get_mut().write_all(input.to_uppercase().as_bytes());
        (request, input)
    })
}

#[test]
fn test_console_with_pipes_carries_all_bytes_until_the_machine_ends() {
    let scratch = Scratch::new();
    let machine = machine(&scratch.path().join("vm.sock"));
    let mut console = Command::new(env!("CARGO_BIN_EXE_synthvm"))
        .args(["console", "vm.sock", "--port", "2"])
        .current_dir(scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The detach key has no meaning in a pipe.
    console.stdin.take().unwrap().write_all(b"a\x1Db\n").unwrap();
    let output = console.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "old output\r\nA\x1DB\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let (request, input) = machine.join().unwrap();
    assert_eq!(request, "{\"do\":\"open-serial\",\"port\":2}\n");
    assert_eq!(input, "a\x1Db\n");
}

/// script(1) and stty(1) belong to every Debian system.
#[test]
fn test_console_in_a_terminal_leaves_by_the_key_and_restores_the_terminal() {
    let scratch = Scratch::new();
    let machine = machine(&scratch.path().join("vm.sock"));
    let program = env!("CARGO_BIN_EXE_synthvm");
    let command = format!("stty -g; '{program}' console vm.sock; echo status $?; stty -g");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", &command, "/dev/null"])
        .current_dir(scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut shown = BufReader::new(terminal.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("old output") {
        assert!(shown.read_line(&mut text).unwrap() > 0, "{text}");
    }
    assert!(text.contains("Connected to serial port 1. Ctrl-] leaves."), "{text}");
    // Ctrl-C is the guest's.
    keys.write_all(b"ls\x03\x1Dnot sent").unwrap();
    assert_eq!(machine.join().unwrap().1, "ls\x03");
    shown.read_to_string(&mut text).unwrap();
    terminal.wait().unwrap();
    assert!(text.contains("Left the console.") && text.contains("status 0"), "{text}");
    let modes: Vec<&str> = text.lines().filter(|line| line.matches(':').count() > 10).collect();
    assert!(matches!(modes[..], [before, after] if before == after), "{modes:?}");
}

#[test]
fn test_console_wrong_options_are_refused_with_a_reason() {
    let scratch = Scratch::new();
    let refuses = |words: &[&str], status: i32, part: &str| {
        let ended = scratch.synthvm(&[&["console", "vm.sock"], words].concat());
        assert_eq!(ended.status, status, "{ended:?}");
        assert!(ended.stderr.contains(part), "{ended:?}");
    };
    refuses(&[], 1, "--control PATH");
    refuses(&["--port", "3"], 2, "--port");
    refuses(&["--detach-key", "]"], 2, "control key");
    refuses(&["--web=127.0.0.1"], 2, "--web");
    refuses(&["--web", "--web-libraries", "absent"], 4, "absent");
    refuses(&["--web-libraries", "absent"], 2, "--web");
    let displays = ["0.0.0.0:80", "192.0.2.1:80"];
    for address in displays {
        let display = format!("web={address}");
        scratch.refuses_run(&["--display", &display], 2, &["--display", "loopback"]);
    }
    scratch.refuses_run(&["--display", "web=8006"], 2, &["--display", "127.0.0.1:8006"]);
}
