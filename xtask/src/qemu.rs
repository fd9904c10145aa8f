//! `cargo xtask qemu`: fetches QEMU's programs.

use std::process::ExitCode;

use guest_images::cache::Cache;
use guest_images::qemu;

/// Prints the folder of QEMU's programs, which are fetched if they are missing:
/// `SYNTHVM_QEMU=$(cargo xtask qemu) cargo test -p synthvm-images`.
pub(crate) fn main() -> ExitCode {
    match qemu::folder(&Cache::project()) {
        Ok(folder) => {
            println!("{}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cargo xtask qemu: {error}");
            ExitCode::FAILURE
        }
    }
}
