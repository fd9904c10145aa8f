//! The `synthvm` program.

use synthvm::cli::{self, Exit};

fn main() -> Exit {
    cli::main(std::env::args_os())
}
