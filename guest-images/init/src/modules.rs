//! Loads and unloads the kernel modules that the image's builder packed.
//!
//! The builder has determined the dependencies: each line of `/modules/order` has a module and then
//! all modules that it needs, in load order. `/modules/boot` has the modules to load at the start.

use std::fs::{self, File};
use std::io;
use std::thread;
use std::time::Duration;

use crate::sys;

/// Returns the names of all packed modules in load order.
pub fn order() -> Vec<String> {
    let text = fs::read_to_string("/modules/order").unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Returns the modules to load at the start.
pub fn at_boot() -> Vec<String> {
    let text = fs::read_to_string("/modules/boot").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Loads a module after its dependencies. A module that is already loaded is no error.
pub fn load(name: &str, parameters: &str) -> io::Result<()> {
    let name = name.replace('-', "_");
    let order = fs::read_to_string("/modules/order").unwrap_or_default();
    for needed in needs(&order, &name) {
        load_one(needed, "")?;
    }
    load_one(&name, parameters)
}

/// Unloads one module; fails if it is still in use after half a minute.
///
/// The module may be in use for a moment: the kernel examines a newly found disk on its own thread,
/// and holds the driver during that time. There is no event for the end of the last use, so this
/// call retries.
pub fn unload(name: &str) -> io::Result<()> {
    let name = name.replace('-', "_");
    for _ in 1..BUSY_LOOK.1 {
        match sys::delete_module(&name) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(BUSY_LOOK.0),
            other => return other,
        }
    }
    sys::delete_module(&name)
}

/// The interval and the number of attempts to unload a module.
const BUSY_LOOK: (Duration, u32) = (Duration::from_millis(20), 1500);

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
