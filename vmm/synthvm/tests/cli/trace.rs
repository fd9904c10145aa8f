//! `--trace-bus` and `synthvm trace`, up to the start of a machine.

use crate::support::Scratch;

#[test]
fn test_trace_file_that_exists_is_left_alone_and_one_that_was_not_needed_is_removed() {
    let scratch = Scratch::new();
    scratch.kernel("k");
    scratch.write("file", "precious");
    let run = |trace, status, parts: &[&str]| {
        let words = ["run", "--kernel", "k", "--kvm", "none", "--trace-bus", trace];
        scratch.refuses(&words, status, parts);
    };
    run("file", 4, &["--trace-bus file", "left alone"]);
    assert_eq!(std::fs::read_to_string(scratch.path().join("file")).unwrap(), "precious");
    run("no/trace", 4, &["--trace-bus no/trace", "cannot create"]);
    run("trace", 3, &["--kvm none"]);
    assert!(!scratch.path().join("trace").exists());
}

#[test]
fn test_trace_show_of_a_file_that_is_no_trace_is_one_clear_error() {
    let scratch = Scratch::new();
    scratch.write("text", "this is no trace, but it is longer than the header of one");
    scratch.refuses(&["trace", "show", "text"], 4, &["text: is no trace of"]);
    scratch.refuses(&["trace", "show", "none"], 4, &["none: cannot open"]);
}
