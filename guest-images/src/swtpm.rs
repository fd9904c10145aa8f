//! The program swtpm, a TPM in software, unpacked into the cache with its libraries. Nothing is
//! installed.

use std::path::PathBuf;

use crate::programs::Programs;
use crate::{Error, cache::Cache};

/// The variable with the path of the swtpm that tests of the TPM use. `cargo xtask test` sets it
/// for its tests.
pub const VARIABLE: &str = "SYNTHVM_SWTPM";

/// Of bookworm: the oldest version that SynthVM works with.
const SWTPM: Programs = Programs {
    name: "swtpm",
    suite: "bookworm",
    programs: &[("swtpm", "usr/bin/swtpm")],
    libraries: &[],
};

/// Returns the path of swtpm, after fetching it if it is missing.
///
/// # Errors
/// The packages cannot be fetched.
pub fn program(cache: &Cache) -> Result<PathBuf, Error> {
    Ok(SWTPM.folder(cache)?.join("swtpm"))
}
