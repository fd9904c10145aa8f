//! `cargo xtask web-libraries` and `cargo xtask chromium`: what the browser console is made of, and
//! the browser that tests it.

use guest_images::cache::Cache;
use guest_images::{chromium, web_libraries};

/// Prints the folder with noVNC and xterm.js, which are fetched if they are missing. A build of the
/// program after that has them in it.
pub(crate) fn main() -> Result<(), String> {
    let path = web_libraries::folder(&Cache::project()).map_err(|error| error.to_string())?;
    println!("{}", path.display());
    Ok(())
}

/// Prints the path of Chromium, which is fetched if it is missing:
/// `SYNTHVM_CHROMIUM=$(cargo xtask chromium) cargo test -p synthvm --test browser`.
pub(crate) fn chromium() -> Result<(), String> {
    let path = chromium::program(&Cache::project()).map_err(|error| error.to_string())?;
    println!("{}", path.display());
    Ok(())
}
