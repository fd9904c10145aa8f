//! Loads and unloads the kernel modules that the image's builder packed.
//!
//! The builder has worked out what needs what: each line of `/modules/order` names a module and then all modules that
//! it needs, in the order in which they load. `/modules/boot` names those to load at the start.

use std::fs::{self, File};
use std::io;

use crate::sys;

/// The names of all packed modules in the order in which they load.
pub fn order() -> Vec<String> {
    let text = fs::read_to_string("/modules/order").unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The modules to load at the start.
pub fn at_boot() -> Vec<String> {
    let text = fs::read_to_string("/modules/boot").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Loads a module after all that it needs. What is there already is no error.
pub fn load(name: &str, parameters: &str) -> io::Result<()> {
    let name = name.replace('-', "_");
    let order = fs::read_to_string("/modules/order").unwrap_or_default();
    for needed in needs(&order, &name) {
        load_one(needed, "")?;
    }
    load_one(&name, parameters)
}

/// Unloads one module; fails when something still uses it.
pub fn unload(name: &str) -> io::Result<()> {
    sys::delete_module(&name.replace('-', "_"))
}

fn needs<'a>(order: &'a str, name: &str) -> Vec<&'a str> {
    let line = order.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_default().split_whitespace().skip(1).collect()
}

fn load_one(name: &str, parameters: &str) -> io::Result<()> {
    let file = File::open(format!("/modules/{name}.ko"))?;
    match sys::finit_module(&file, parameters) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_needs_of_a_module_are_the_rest_of_its_line() {
        let order = "scsi_common\nscsi_mod scsi_common\nsd_mod scsi_common scsi_mod\n";
        assert_eq!(needs(order, "sd_mod"), ["scsi_common", "scsi_mod"]);
        assert_eq!(needs(order, "scsi_common"), Vec::<&str>::new());
        assert_eq!(needs(order, "sd"), Vec::<&str>::new());
    }
}
