//! The project's own commands: demo, test, host, bench.

fn main() {}
