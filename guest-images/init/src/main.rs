//! The static init of test guests: loads modules, runs named checks, reports JSON lines.

fn main() {}
