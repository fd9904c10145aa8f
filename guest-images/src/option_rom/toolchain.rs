//! The packaged Rust, and the build of the driver by it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Cache, target_dir, workspace_dir};
use crate::libraries::Libraries;
use crate::packages::{Package, Packages};
use crate::programs::{Set, script};
use crate::progress::Task;
use crate::{Error, logged};

/// The suite of the packages, whose updates bring a Rust as new as the project's own.
const SET: Set<'static> = Set { suite: "bookworm", name: "uefi-rust" };
const TARGET: &str = "x86_64-unknown-uefi";

/// Packages with programs: package, path in it, name of the script.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("rustc-web", "usr/bin/rustc", "rustc"),
    ("cargo-web", "usr/bin/cargo", "cargo"),
    // The linker takes its kind from its name.
    ("lld-16", "usr/lib/llvm-16/bin/lld", "lld-link"),
];

/// Packages with the libraries of the building machine, and with the sources of the core libraries;
/// paths in them and below `lib/rustlib`.
const LIBRARIES: [(&str, &str, &str); 2] = [
    ("libstd-rust-web-dev", "usr/lib/rustlib/x86_64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"),
    ("rust-web-src", "usr/lib/rustlib/src", "src"),
];

/// Returns the driver, a PE image.
pub(super) fn build(cache: &Cache) -> Result<Vec<u8>, Error> {
    let bin = match SET.made(cache) {
        Some(made) => made,
        None => make(cache)?,
    };
    let doing = "building the UEFI driver for VMBus";
    let task = Task::start(doing);
    let top = bin.parent().unwrap_or(&bin);
    let workspace = workspace_dir();
    // The image must not depend on where these folders are.
    let moved = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let sources = top.join("sysroot/lib/rustlib/src/rust");
    let flags =
        [moved(&workspace, "/synthvm"), moved(&sources, "/rust"), moved(&cargo_home(), "/cargo")]
            .join("\x1f");
    let mut command = Command::new(bin.join("cargo"));
    command
        .args(["build", "--release", "--locked", "--package", "uefi-vmbus", "--bin", "uefi-vmbus"])
        .args(["--target", TARGET, "-Zbuild-std=core,alloc,compiler_builtins"])
        .arg("-Zbuild-std-features=compiler-builtins-mem")
        .arg("--target-dir")
        .arg(target())
        .current_dir(&workspace)
        // Permits the options that begin with Z.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", bin.join("rustc"))
        .env("CARGO_TARGET_X86_64_UNKNOWN_UEFI_LINKER", bin.join("lld-link"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    for other in ["CARGO", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET"] {
        command.env_remove(other);
    }
    logged::cargo(cache, &mut command, doing, &task)?;
    task.finish();
    let path = target().join(TARGET).join("release/uefi-vmbus.efi");
    fs::read(&path).map_err(Error::file("reading", &path))
}

/// Returns the target folder of the build. It is not the usual one, whose lock another cargo may
/// hold.
pub(super) fn target() -> PathBuf {
    target_dir().join("uefi")
}

/// Makes the folder of the toolchain.
fn make(cache: &Cache) -> Result<PathBuf, Error> {
    let suite = Packages::new(cache, SET.suite);
    let get = |(name, path, short): (&str, &str, &'static str)| {
        let package = suite.get(name)?;
        let path = package.root.join(path);
        Ok((package, path, short))
    };
    let programs = PROGRAMS.into_iter().map(get).collect::<Result<Vec<_>, Error>>()?;
    let libraries = LIBRARIES.into_iter().map(get).collect::<Result<Vec<_>, Error>>()?;
    check_versions(programs.iter().take(2).chain(&libraries).map(|(package, ..)| package))?;

    let packages: Vec<Package> = programs.iter().map(|(package, ..)| package.clone()).collect();
    let files: Vec<_> = programs.iter().map(|(package, path, _)| (package, &**path)).collect();
    let shared = Libraries::new(&suite, &packages).of(&files)?;

    let mut links = BTreeMap::new();
    links.extend(shared.into_iter().map(|(name, path)| (format!("lib/{name}"), path)));
    let mut scripts = BTreeMap::new();
    for (_, path, name) in programs {
        links.insert(format!("program/{name}"), path);
        let (before, arguments) = match name {
            // Cargo compares paths below the sysroot as text.
            "rustc" => ("top=$(cd \"$top\" && pwd)\n", " --sysroot \"$top/sysroot\""),
            _ => ("", ""),
        };
        scripts.insert(name.to_owned(), script(name, before, arguments));
    }
    for (_, path, name) in libraries {
        links.insert(format!("sysroot/lib/rustlib/{name}"), path);
    }
    SET.assemble(cache, &links, &scripts)
}

/// Checks that the packages are of one build: a compiler accepts only its own libraries.
fn check_versions<'a>(packages: impl Iterator<Item = &'a Package>) -> Result<(), Error> {
    let versions: Vec<&str> = packages.map(|package| package.version.as_str()).collect();
    match versions.windows(2).find(|pair| pair[0] != pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::Unusable(format!(
            "the packages of Rust have versions {} and {}; delete the cache's `resolved` folder",
            pair[0], pair[1]
        ))),
    }
}

/// Returns cargo's folder, in which the sources of other crates are.
fn cargo_home() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}
