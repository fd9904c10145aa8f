//! Firmware of our own that speaks the contract of Hyper-V's generation 2 firmware.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cache::{Cache, target_dir, workspace_dir};
use crate::init_binary::hash_of;
use crate::progress::Task;
use crate::{Error, logged};

const FOLDER: &str = "guest-images/msvm-stub";

/// Builds the firmware if its sources changed, and returns the path of the image.
pub fn msvm_stub(cache: &Cache) -> Result<PathBuf, Error> {
    let path = cache.root().join("msvm-stub").join(format!("{}.fd", hash_of(&[FOLDER], &[])?));
    if path.exists() {
        return Ok(path);
    }
    let _lock = cache.lock("msvm-stub")?;
    if path.exists() {
        return Ok(path);
    }
    let program = build_now(cache)?;
    let image = synthvm_msvm::wrap_flat(&program)
        .ok_or_else(|| Error::Unusable(format!("{FOLDER}: the program is too large")))?;
    cache.write(&path, &image)?;
    Ok(path)
}

/// Returns the flat program.
fn build_now(cache: &Cache) -> Result<Vec<u8>, Error> {
    // The compiler's own target: a target without a system may not be installed.
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let task = Task::start("building msvm-stub");
    let target = target_dir().join("msvm-stub");
    let folder = workspace_dir().join(FOLDER);
    let flags = [
        "-C relocation-model=static -C target-feature=+crt-static".to_owned(),
        "-C link-arg=-nostartfiles -C link-arg=-nostdlib -C link-arg=-static".to_owned(),
        format!("-C link-arg=-Wl,-T,{}", folder.join("link.ld").display()),
    ];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .env("RUSTFLAGS", flags.join(" "))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    logged::cargo(cache, &mut command, "building msvm-stub", &task)?;
    task.finish();
    let path = target.join(TARGET).join("release/msvm-stub");
    fs::read(&path).map_err(Error::file("reading", &path))
}
