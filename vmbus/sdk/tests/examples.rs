//! Tests of the examples and their promises.

#[path = "../examples/bench.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod bench;
#[path = "../examples/block_device.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod block_device;
#[path = "../examples/echo.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod echo;

#[test]
fn test_example_echo_prints_each_answer() {
    let mut out = Vec::new();
    echo::run(&mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("\"hello\" came back, with 3 bytes of padding\n"), "{out}");
    assert_eq!(out.matches("came back").count(), 3, "{out}");
}

#[test]
fn test_example_block_device_compares_what_it_reads_and_refuses_what_is_wrong() {
    let mut out = Vec::new();
    block_device::run(&mut out, 2 << 20).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out.matches(", compared\n").count(), 6, "{out}");
    assert_eq!(out.matches("refused ").count(), 4, "{out}");
    assert!(out.ends_with("returned 257 pages: the host has no view of them\n"), "{out}");
}

#[test]
fn test_example_block_device_is_a_device_of_at_most_100_lines() {
    let source = include_str!("../examples/block_device.rs");
    let (device, _) = source.split_once("\n// The guest.\n").unwrap();
    let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let lines = device.lines().filter(code).count();
    assert!(lines <= 100, "{lines}");
}

#[test]
fn test_example_bench_prints_each_number_beside_its_limit() {
    let mut out = Vec::new();
    bench::run(&mut out, bench::Effort { rounds: 2, packets: 128 }).unwrap();
    let out = String::from_utf8(out).unwrap();
    let rows: Vec<&str> = out.lines().filter(|line| line.contains(" x ")).collect();
    assert_eq!(rows.len(), 7, "{out}");
}
