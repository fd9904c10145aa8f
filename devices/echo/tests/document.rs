//! Checks that the document shows the device's current code.

/// Maximum lines of code of the smallest backend.
const PROMISED: usize = 45;

const DOCUMENT: &str = include_str!("../../../docs/writing-a-backend.md");
const SOURCE: &str = include_str!("../src/lib.rs");

/// Returns the first program of the document.
fn shown() -> &'static str {
    let (_, rest) = DOCUMENT.split_once("```rust\n").unwrap();
    rest.split_once("```\n").unwrap().0
}

#[test]
fn test_document_shows_the_device_line_by_line() {
    let start = SOURCE.find("use std").unwrap();
    let end = SOURCE.find("\n/// The programs of").unwrap();
    assert_eq!(shown(), &SOURCE[start..end]);
}

#[test]
fn test_document_keeps_its_promise_of_a_backend_in_at_most_45_lines() {
    let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let lines = shown().lines().filter(code).count();
    assert!(lines <= PROMISED, "{lines}");
}
