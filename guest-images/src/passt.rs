//! The program passt, unpacked into the cache. Nothing is installed.

use std::path::PathBuf;

use crate::packages::Packages;
use crate::{Error, cache::Cache};

/// The suite of the program. It needs no library but libc, and runs with that of later suites.
const SUITE: &str = "bookworm";

/// Returns the path of passt, after fetching it if it is missing.
///
/// # Errors
/// The package cannot be fetched.
pub fn program(cache: &Cache) -> Result<PathBuf, Error> {
    Ok(Packages::new(cache, SUITE).get("passt")?.root.join("usr/bin/passt"))
}
