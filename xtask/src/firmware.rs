//! `cargo xtask firmware`: fetches the distribution's OVMF, and builds the UEFI driver for VMBus.

use guest_images::Ovmf;
use guest_images::cache::Cache;
use guest_images::option_rom::option_rom;

/// Puts OVMF into the cache, where `synthvm run --firmware ovmf` finds it, and prints the path of
/// the option ROM, which is built if its sources have changed.
pub(crate) fn main() -> Result<(), String> {
    let cache = Cache::project();
    Ovmf::Trixie4M.fetch(&cache).map_err(|error| error.to_string())?;
    let path = option_rom(&cache).map_err(|error| error.to_string())?;
    println!("{}", path.display());
    Ok(())
}
