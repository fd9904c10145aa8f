//! Tests that unusable firmware is reported before anything is created.

use crate::support::Scratch;

/// Writes a firmware volume of `len` bytes with the file system `guid`, and a byte of code at its
/// end.
fn volume(scratch: &Scratch, name: &str, len: usize, guid: &[u8; 16]) {
    let mut bytes = vec![0; len];
    bytes[16..32].copy_from_slice(guid);
    bytes[32..40].copy_from_slice(&(len as u64).to_le_bytes());
    bytes[40..44].copy_from_slice(b"_FVH");
    bytes[len - 16] = 0x90;
    std::fs::write(scratch.path().join(name), bytes).unwrap();
}

#[test]
fn test_firmware_absent_empty_or_no_file_is_refused() {
    let scratch = Scratch::new();
    scratch.refuses(&["run", "--firmware", "none"], 4, &["--firmware none", "No such file"]);
    scratch.file("empty", 0);
    scratch.refuses(&["run", "--firmware", "empty"], 4, &["--firmware empty", "is empty"]);
    scratch.refuses(&["run", "--firmware", "."], 4, &["--firmware .", "a directory"]);
}

#[test]
fn test_firmware_foreign_or_of_wrong_size_is_refused_on_any_host() {
    let scratch = Scratch::new();
    scratch.file("zeros", 2 << 20);
    let refuses = |options: &[&str], parts: &[&str]| {
        scratch.refuses(&[&["run", "--kvm", "none"], options].concat(), 4, parts);
    };
    refuses(&["--firmware", "zeros"], &["--firmware zeros", "not UEFI firmware"]);
    scratch.file("odd", 1000);
    refuses(&["--firmware", "odd"], &["--firmware odd", "whole pages"]);
    scratch.file("large", 32 << 20);
    refuses(&["--firmware", "large"], &["--firmware large", "at most 16 MiB"]);
    volume(&scratch, "code", 1 << 20, &[7; 16]);
    refuses(&["--firmware", "code"], &["--firmware code", "template="]);
    scratch.file("foreign", 4096);
    let template = "vars.fd,template=foreign";
    refuses(
        &["--firmware", "code", "--firmware-vars", template],
        &["foreign", "not a file of UEFI variables"],
    );
    refuses(&["--firmware", "code,option-rom=zeros"], &["--firmware", "template="]);
    assert!(!scratch.path().join("vars.fd").exists());
}

#[test]
fn test_firmware_variables_without_firmware_are_refused() {
    let scratch = Scratch::new();
    scratch.kernel("k");
    scratch.refuses_run(
        &["--firmware-vars", "v.fd"],
        2,
        &["--firmware-vars v.fd", "add --firmware"],
    );
}
