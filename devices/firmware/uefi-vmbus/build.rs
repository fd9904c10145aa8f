//! Makes the linker's output a boot-service driver, the same for the same sources.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "uefi") {
        // The target's own default is an application, which firmware unloads when it returns.
        println!("cargo::rustc-link-arg-bins=/SUBSYSTEM:EFI_BOOT_SERVICE_DRIVER");
        // Without it the header contains the time of the build.
        println!("cargo::rustc-link-arg-bins=/Brepro");
    }
}
