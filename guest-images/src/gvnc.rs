//! The program gvnccapture, a VNC client without a window, unpacked into the cache with its
//! libraries. Nothing is installed.

use std::path::PathBuf;

use crate::programs::Programs;
use crate::{Error, cache::Cache};

/// The variable with the path of the gvnccapture that tests of the display server use. `cargo xtask
/// test` sets it for its tests.
pub const VARIABLE: &str = "SYNTHVM_GVNCCAPTURE";

/// Its library is that of virt-viewer and GNOME Boxes. The suite whose gdk-pixbuf writes PNG files
/// by itself.
const GVNC: Programs = Programs {
    name: "gvnc",
    suite: "bookworm",
    programs: &[("gvncviewer", "usr/bin/gvnccapture")],
    libraries: &[],
};

/// Returns the path of gvnccapture, after fetching it if it is missing.
///
/// # Errors
/// The packages cannot be fetched.
pub fn program(cache: &Cache) -> Result<PathBuf, Error> {
    Ok(GVNC.folder(cache)?.join("gvnccapture"))
}
