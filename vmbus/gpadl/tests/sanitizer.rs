//! Shows that the sanitizer of `cargo xtask test` is active and detects errors. Without this test,
//! an inactive sanitizer would look like one that finds no error.

use std::process::Command;

/// The variable that makes the child process commit the error.
const PLANT: &str = "SYNTHVM_PLANT_ERROR";

const NAME: &str = "test_sanitizer_ends_a_program_that_reads_behind_its_memory";

#[test]
#[ignore = "needs AddressSanitizer: cargo xtask test runs it with that"]
fn test_sanitizer_ends_a_program_that_reads_behind_its_memory() {
    if std::env::var_os(PLANT).is_some() {
        let bytes = vec![1_u8; std::hint::black_box(24)];
        // SAFETY: none, because this is the error: a read one byte after the allocation. It happens
        // in a process of its own, which the sanitizer ends here.
        let behind = unsafe { bytes.as_ptr().add(std::hint::black_box(24)).read_volatile() };
        println!("read {behind} and lived on");
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--ignored", "--exact", NAME]).env(PLANT, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the error was not seen: {output:?}");
    assert!(said.contains("AddressSanitizer: heap-buffer-overflow"), "{said}");
}
