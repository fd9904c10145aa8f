//! `--tpm`: its errors, before a machine exists.

use crate::support::Scratch;

#[test]
fn test_tpm_that_cannot_start_is_refused_with_its_option_and_the_remedy() {
    let scratch = Scratch::new();
    scratch.kernel("k");
    scratch.write("file", "precious");
    let cases: &[(&str, i32, &[&str])] = &[
        ("swtpm,program=none", 3, &["none`; install swtpm", "program=PATH"]),
        ("swtpm,program=/bin/false", 3, &["swtpm ended during SET_DATAFD"]),
        ("swtpm,state=no/folder", 4, &["no/folder: No such file", "in which you can write"]),
        ("swtpm,state=file", 4, &["file: not a directory"]),
        ("hardware", 2, &["swtpm"]),
    ];
    for (tpm, status, parts) in cases {
        let words = ["run", "--kernel", "k", "--kvm", "none", "--tpm", tpm];
        scratch.refuses(&words, *status, &[&["--tpm"], *parts].concat());
    }
}
