//! The `synthvm` program under test.

use std::path::PathBuf;
use std::process::Command;

use guest_images::cache::{Cache, target_dir, workspace_dir};
use guest_images::logged;
use guest_images::progress::Task;

/// The variable with the path of a program to test instead of cargo's build.
pub const OVERRIDE: &str = "SYNTHVM_PROGRAM";

/// Returns the program's path: `$SYNTHVM_PROGRAM`, or cargo's build of this profile.
pub fn path() -> PathBuf {
    match std::env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => target_dir()
            .join(if cfg!(debug_assertions) { "debug" } else { "release" })
            .join("synthvm"),
    }
}

/// Builds the program, unless the caller set its path.
///
/// # Errors
/// A message, if the build fails.
pub fn build() -> Result<PathBuf, String> {
    build_as(!cfg!(debug_assertions), path())
}

/// Builds the program in the release profile, regardless of the caller's profile, unless the caller
/// set its path.
///
/// # Errors
/// A message, if the build fails.
pub fn build_release() -> Result<PathBuf, String> {
    let path = std::env::var_os(OVERRIDE)
        .map_or_else(|| target_dir().join("release/synthvm"), PathBuf::from);
    build_as(true, path)
}

fn build_as(release: bool, path: PathBuf) -> Result<PathBuf, String> {
    if std::env::var_os(OVERRIDE).is_none() {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // With the workspace's features, like the tests, so that nothing is built twice.
        command.args(["build", "--workspace", "--bin", "synthvm"]).current_dir(workspace_dir());
        if release {
            command.arg("--release");
        }
        let doing = "building synthvm";
        let task = Task::start(doing);
        logged::cargo(&Cache::project(), &mut command, doing, &task)
            .map_err(|error| error.to_string())?;
        task.finish();
    }
    if path.is_file() { Ok(path) } else { Err(format!("there is no program {}", path.display())) }
}
