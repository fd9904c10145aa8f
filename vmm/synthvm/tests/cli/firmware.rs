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

#[test]
fn test_profile_windows_printed_is_a_machine_of_explicit_options() {
    let scratch = Scratch::new();
    let line = ["run", "--profile", "windows", "--disk", "w.vhdx,size=64G", "--tpm", "none"];
    let printed = scratch.synthvm(&[&line[..], &["--net", "none", "--print-config"]].concat());
    assert_eq!(printed.status, 0, "{}", printed.stderr);
    let has = |part: &str| assert!(printed.stdout.contains(part), "{}", printed.stdout);
    for part in ["rtc = \"local\"", "size = \"4G\"", "cpus = 2", "w.vhdx.vars", "\"64G\""] {
        has(part);
    }
    assert!(!scratch.path().join("w.vhdx").exists());
}

#[test]
fn test_install_without_a_usable_disc_or_host_creates_no_disk() {
    let scratch = Scratch::new();
    volume(&scratch, "code", 1 << 20, &[7; 16]);
    let disk = ["--disk", "new.vhdx,size=1G", "--kvm", "none", "--firmware", "code"];
    let refuses = |disc: &str, status: i32, parts: &[&str]| {
        scratch.refuses(&[&["run", "--install", disc], &disk[..]].concat(), status, parts);
    };
    refuses("none.iso", 4, &["--install none.iso", "No such file"]);
    refuses(".", 4, &["--install .", "a directory"]);
    scratch.file("a.iso", 2048);
    refuses("a.iso", 4, &["--firmware code", "template="]);
    scratch.kernel("k");
    let direct = ["--disk", "new.vhdx,size=1G", "--kvm", "none"];
    scratch.refuses_run(&direct, 3, &["--kvm none"]);
    scratch.refuses_run(&["--disk", "new,size=1G"], 4, &["--disk new", "format=raw"]);
    scratch.refuses_run(&["--disk", "no/a.img,size=1G"], 4, &["--disk no/a.img", "directory no"]);
}
