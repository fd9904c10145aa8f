//! Tests that unusable files and devices are reported before anything is created.

use std::os::unix::net::UnixListener;

use crate::support::Scratch;

/// Returns a directory with a kernel.
fn with_kernel() -> Scratch {
    let scratch = Scratch::new();
    scratch.kernel("k");
    scratch
}

#[test]
fn test_kernel_absent_empty_or_no_file_is_refused() {
    let scratch = Scratch::new();
    scratch.refuses(&["run", "--kernel", "none"], 4, &["--kernel none", "No such file"]);
    scratch.file("empty", 0);
    scratch.refuses(&["run", "--kernel", "empty"], 4, &["--kernel empty", "is empty", "bzImage"]);
    scratch.refuses(&["run", "--kernel", "."], 4, &["--kernel .", "a directory"]);
    scratch.refuses(
        &["run", "--kernel", "/dev/null"],
        4,
        &["--kernel /dev/null", "a character device"],
    );
}

#[test]
fn test_kernel_that_is_none_or_cut_off_is_refused_on_any_host() {
    let scratch = with_kernel();
    scratch.file("zeros", 4096);
    scratch.refuses(
        &["run", "--kernel", "zeros", "--kvm", "none"],
        4,
        &["--kernel zeros", "not a Linux kernel"],
    );
    let image = std::fs::read(scratch.path().join("k")).unwrap();
    std::fs::write(scratch.path().join("cut"), &image[..image.len() - 512]).unwrap();
    scratch.refuses(
        &["run", "--kernel", "cut", "--kvm", "none"],
        4,
        &["--kernel cut", "truncated"],
    );
    let long = "x".repeat(3000);
    scratch.refuses_run(&["--cmdline", &long], 2, &["--cmdline", "at most 2047"]);
}

#[test]
fn test_kernel_that_is_a_pipe_is_refused_and_not_waited_for() {
    let scratch = Scratch::new();
    let made =
        std::process::Command::new("mkfifo").arg(scratch.path().join("pipe")).status().unwrap();
    assert!(made.success());
    scratch.refuses(&["run", "--kernel", "pipe"], 4, &["--kernel pipe", "a pipe"]);
}

#[test]
fn test_initrd_absent_or_empty_is_refused() {
    let scratch = with_kernel();
    scratch.refuses_run(&["--initrd", "none"], 4, &["--initrd none", "No such file"]);
    scratch.file("empty", 0);
    scratch.refuses_run(&["--initrd", "empty"], 4, &["--initrd empty", "is empty"]);
}

#[test]
fn test_disk_absent_says_how_to_make_one() {
    let parts =
        ["--disk none.img", "cannot open: No such file or directory", "truncate -s 1G none.img"];
    with_kernel().refuses_run(&["--disk", "path=none.img"], 4, &parts);
}

#[test]
fn test_disk_size_that_is_no_multiple_of_its_block_is_refused() {
    let scratch = with_kernel();
    scratch.file("odd.img", 1000);
    let parts =
        ["--disk odd.img", "1000 bytes", "not a multiple of 512", "truncate -s 1024 odd.img"];
    scratch.refuses_run(&["--disk", "odd.img"], 4, &parts);
    scratch.file("small.img", 512);
    let parts = ["not a multiple of 4096"];
    scratch.refuses_run(&["--disk", "small.img,block-size=4096"], 4, &parts);
    scratch.file("empty.img", 0);
    scratch.refuses_run(&["--disk", "empty.img"], 4, &["--disk empty.img", "is empty"]);
}

#[test]
fn test_disk_with_smaller_blocks_than_its_image_is_refused() {
    let scratch = with_kernel();
    scratch.accepts(&["image", "create", "a.vhdx", "--size", "64M", "--sector-size", "4096"]);
    let parts = ["--disk a.vhdx: block-size=512", "4096 bytes", "leave block-size out"];
    scratch.refuses_run(&["--disk", "a.vhdx,block-size=512"], 4, &parts);
}

#[test]
fn test_disk_that_is_no_image_is_refused() {
    let scratch = with_kernel();
    scratch.refuses_run(&["--disk", "/dev/null"], 4, &["--disk /dev/null", "a character device"]);
    scratch.refuses_run(&["--disk", "."], 4, &["--disk .", "a directory"]);
}

#[test]
fn test_disc_that_is_no_image_is_refused() {
    let scratch = with_kernel();
    scratch.file("empty.iso", 0);
    for (dvd, why) in [("none.iso", "cannot open"), ("empty.iso", "is empty"), (".", "a directory")]
    {
        let option = format!("--dvd {dvd}");
        scratch.refuses_run(&["--dvd", dvd], 4, &[&option, why, "without a path"]);
    }
}

#[test]
fn test_disk_second_one_is_checked_too() {
    let scratch = with_kernel();
    scratch.file("a.img", 512);
    scratch.file("b.img", 513);
    scratch.refuses_run(&["--disk", "a.img", "--disk", "b.img"], 4, &["--disk b.img"]);
}

#[test]
fn test_disk_twice_is_refused_also_under_another_name() {
    let scratch = with_kernel();
    scratch.file("a.img", 512);
    std::os::unix::fs::symlink("a.img", scratch.path().join("b.img")).unwrap();
    let words = ["--disk", "a.img,readonly", "--disk", "b.img"];
    scratch.refuses_run(&words, 4, &["--disk b.img", "same image as a.img", "readonly=on"]);
}

#[test]
fn test_disk_twice_read_only_passes() {
    let scratch = with_kernel();
    scratch.file("a.img", 512);
    let disks = ["--disk", "a.img,readonly", "--disk", "a.img,readonly"];
    // The next check is that of the host.
    scratch.refuses_run(
        &[&disks[..], &["--kvm", "/nonexistent/kvm"]].concat(),
        3,
        &["--kvm /nonexistent/kvm"],
    );
}

#[test]
fn test_serial_file_without_its_directory_is_refused() {
    let scratch = with_kernel();
    let words = ["--serial", "file=no/console.log"];
    scratch.refuses_run(&words, 4, &["--serial no/console.log", "no directory no"]);
}

#[test]
fn test_control_socket_in_use_is_refused_and_left_alone() {
    let scratch = with_kernel();
    let _live = UnixListener::bind(scratch.path().join("sock")).unwrap();
    let words = ["--control", "sock"];
    scratch.refuses_run(&words, 4, &["--control sock", "another program listens there"]);
    scratch.write("file", "precious");
    let words = ["--control", "file"];
    scratch.refuses_run(&words, 4, &["--control file", "is not a socket"]);
}

#[test]
fn test_serial_socket_that_would_replace_something_is_refused_before_the_host_is_looked_at() {
    let scratch = with_kernel();
    let _live = UnixListener::bind(scratch.path().join("sock")).unwrap();
    scratch.write("file", "precious");
    std::os::unix::fs::symlink("nowhere", scratch.path().join("link")).unwrap();
    drop(UnixListener::bind(scratch.path().join("dead")).unwrap());
    let run = |option: &str, name: &str, status, texts: &[&str]| {
        let socket = format!("socket={name}");
        let words = [option, &socket, "--kvm", "/nonexistent/kvm"];
        scratch.refuses_run(&words, status, texts);
    };
    run("--serial", "sock", 4, &["--serial sock", "another program listens there"]);
    run("--serial2", "file", 4, &["--serial2 file", "is not a socket"]);
    run("--serial", "link", 4, &["--serial link", "is not a socket"]);
    // The dead socket is replaced only after all other checks.
    run("--serial", "dead", 3, &["--kvm /nonexistent/kvm"]);
    assert_eq!(std::fs::read_to_string(scratch.path().join("file")).unwrap(), "precious");
    assert!(scratch.path().join("dead").exists());
}

#[test]
fn test_vsock_socket_that_would_replace_something_is_refused() {
    let scratch = with_kernel();
    scratch.file("file", 1);
    let _listener = UnixListener::bind(scratch.path().join("used")).unwrap();
    scratch.refuses_run(&["--vsock", "file"], 4, &["--vsock file", "is not a socket"]);
    scratch.refuses_run(
        &["--vsock", "used"],
        4,
        &["--vsock used", "another program listens there"],
    );
    scratch.refuses_run(&["--vsock", "no/vm.sock"], 4, &["--vsock no/vm.sock", "no directory no"]);
    scratch.refuses_run(&["--vsock", "v,service=agent"], 2, &["--vsock", "GUID:PATH"]);
}

#[test]
fn test_host_without_kvm_is_refused_and_the_control_socket_given_back() {
    let scratch = with_kernel();
    let words = ["--control", "sock", "--kvm", "none"];
    scratch.refuses_run(&words, 3, &["--kvm none", "cannot open: No such file", "modprobe"]);
    scratch.refuses_run(&["--kvm", "/dev/null"], 3, &["--kvm /dev/null", "not KVM"]);
}

#[test]
fn test_disk_locked_by_another_machine_is_refused() {
    let scratch = with_kernel();
    scratch.file("a.img", 512);
    let held = synthvm_block::RawFile::open(&scratch.path().join("a.img"), false).unwrap();
    for disk in ["a.img", "a.img,readonly=on"] {
        scratch.refuses_run(&["--disk", disk], 4, &["--disk a.img", "in use by another SynthVM"]);
    }
    drop(held);
    let words = ["--disk", "a.img", "--kvm", "none"];
    scratch.refuses_run(&words, 3, &["--kvm none"]);
}

#[test]
fn test_disk_in_memory_larger_than_the_host_is_refused_before_the_machine_is_made() {
    let scratch = with_kernel();
    let parts = ["--disk ram:4T", "more memory than this host has", "use an image"];
    scratch.refuses_run(&["--disk", "ram:4T"], 3, &parts);
    // Disks without a file need none: only KVM is missing here.
    let words = ["--disk", "ram:1M", "--disk", "null:1T", "--kvm", "none"];
    scratch.refuses_run(&words, 3, &["none"]);
}
