//! The UEFI driver: see the library.
#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod uefi;

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("this program is a UEFI driver; `cargo xtask firmware` builds it");
}
