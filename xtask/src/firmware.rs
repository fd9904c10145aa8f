//! `cargo xtask firmware`: builds the UEFI driver for VMBus.

use guest_images::cache::Cache;
use guest_images::option_rom::option_rom;

/// Prints the path of the option ROM, which is built if its sources have changed.
pub(crate) fn main() -> Result<(), String> {
    let path = option_rom(&Cache::project()).map_err(|error| error.to_string())?;
    println!("{}", path.display());
    Ok(())
}
