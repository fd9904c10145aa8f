//! `cargo xtask qemu`: fetches QEMU's programs.

use guest_images::cache::Cache;
use guest_images::qemu;

/// Prints the folder of QEMU's programs, which are fetched if they are missing:
/// `SYNTHVM_QEMU=$(cargo xtask qemu) cargo test -p synthvm-images`.
pub(crate) fn main() -> Result<(), String> {
    let folder = qemu::folder(&Cache::project()).map_err(|error| error.to_string())?;
    println!("{}", folder.display());
    Ok(())
}
