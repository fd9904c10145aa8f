//! The `synthvm` program.

fn main() {}
