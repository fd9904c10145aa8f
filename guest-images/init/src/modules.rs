//! Loads and unloads the kernel modules that the image's builder packed.
//!
//! The builder has worked out what needs what: `/modules/order` names the modules, each after all that it needs.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use crate::sys;

/// The names of all packed modules in the order in which they load.
pub fn order() -> Vec<String> {
    let text = fs::read_to_string("/modules/order").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Loads one module. One that is there already is no error.
pub fn load(name: &str, parameters: &str) -> io::Result<()> {
    let name = name.replace('-', "_");
    let path = PathBuf::from(format!("/modules/{name}.ko"));
    let file = File::open(&path)?;
    match sys::finit_module(&file, parameters) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Unloads one module; fails when something still uses it.
pub fn unload(name: &str) -> io::Result<()> {
    sys::delete_module(&name.replace('-', "_"))
}
