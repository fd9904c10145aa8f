//! `cargo xtask package`: packages the SDK's crates as for a registry, and builds the documentation
//! of all crates.
//!
//! The SDK's crates depend on each other and are in no registry. So all are packaged in one call,
//! then unpacked next to each other and built as a workspace, which replaces the registry's crates.
//! `cargo package` would build them too, but it unpacks them into cargo's cache by name and
//! version, and finds those of an earlier run there. The SDK's doctests are part of `cargo xtask
//! test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use guest_images::cache::workspace_dir;
use serde::Deserialize;

/// cargo's metadata of the workspace.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

/// A crate.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    /// The registries that it may be published to; `None` for all.
    publish: Option<Vec<String>>,
}

pub(crate) fn main() -> Result<(), String> {
    let root = workspace_dir();
    let metadata = cargo(&root, &["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("starting cargo: {error}"))?;
    let Metadata { packages, target_directory } = published(&metadata.stdout)?;

    // Uncommitted changes are allowed. Offline, because the lock file has all versions, and a query
    // of the registry for newer ones takes half a minute.
    let options = ["--quiet", "--offline", "--no-verify", "--allow-dirty"];
    let mut package = cargo(&root, &["package"]);
    package.args(options);
    package.args(packages.iter().flat_map(|package| ["--package", &package.name]));
    step(&format!("packaging {} crates", packages.len()), &mut package)?;

    let folder = target_directory.join("package/unpacked");
    unpack(&packages, &target_directory.join("package"), &folder, &root)?;
    // The build of the workspace has already compiled most dependencies.
    let build = |name: &str, arguments: &[&str]| {
        let mut check = cargo(&folder, &["check", "--quiet", "--offline", "--target-dir"]);
        step(name, check.arg(&target_directory).args(arguments))
    };
    build("building the packages", &["--workspace", "--all-features", "--lib", "--examples"])?;
    build("building the SDK's package without features", &["--package", "vmbus"])?;

    let mut doc = cargo(&root, &["doc", "--quiet", "--no-deps", "--workspace", "--all-features"]);
    step("making documentation", doc.env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Returns the crates that may be published, from the output of `cargo metadata`.
fn published(json: &[u8]) -> Result<Metadata, String> {
    let mut metadata: Metadata =
        serde_json::from_slice(json).map_err(|e| format!("reading cargo metadata: {e}"))?;
    metadata.packages.retain(|package| package.publish.is_none());
    if metadata.packages.is_empty() {
        return Err("no crate may be published".to_owned());
    }
    Ok(metadata)
}

/// Unpacks the packages in `from` into the new folder `to`, as a workspace. Its lock file and
/// profiles are those of the workspace in `root`, so that cargo builds the same dependencies.
fn unpack(packages: &[Package], from: &Path, to: &Path, root: &Path) -> Result<(), String> {
    let failed = |what: &str, path: &Path| {
        let place = format!("{what} {}", path.display());
        move |error: std::io::Error| format!("{place}: {error}")
    };
    if to.exists() {
        fs::remove_dir_all(to).map_err(failed("removing", to))?;
    }
    fs::create_dir_all(to).map_err(failed("making", to))?;
    for package in packages {
        let file = from.join(format!("{}-{}.crate", package.name, package.version));
        // All files in packages have the same time: without a new one, cargo would see no change.
        let mut tar = Command::new("tar");
        let status =
            tar.args(["--extract", "--touch", "--gzip", "--file"]).arg(&file).arg("-C").arg(to);
        let status = status.status().map_err(failed("unpacking", &file))?;
        if !status.success() {
            return Err(format!("unpacking {}: {status}", file.display()));
        }
    }
    let manifest = root.join("Cargo.toml");
    let manifest = fs::read_to_string(&manifest).map_err(failed("reading", &manifest))?;
    let (file, lock) = (to.join("Cargo.toml"), root.join("Cargo.lock"));
    fs::write(&file, workspace(packages, &manifest)).map_err(failed("writing", &file))?;
    fs::copy(&lock, to.join("Cargo.lock")).map_err(failed("copying", &lock))?;
    Ok(())
}

/// Returns the manifest of a workspace of unpacked packages, with the profiles of `manifest`.
fn workspace(packages: &[Package], manifest: &str) -> String {
    let folders: Vec<String> =
        packages.iter().map(|package| format!("{}-{}", package.name, package.version)).collect();
    let patches: Vec<String> = packages
        .iter()
        .zip(&folders)
        .map(|(package, folder)| format!("{} = {{ path = \"{folder}\" }}\n", package.name))
        .collect();
    let profiles = manifest.find("[profile.").and_then(|start| manifest.get(start..));
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = {folders:?}\n\n[patch.crates-io]\n{}\n{}",
        patches.concat(),
        profiles.unwrap_or_default()
    )
}

/// Runs a command and prints its duration.
fn step(name: &str, command: &mut Command) -> Result<(), String> {
    println!("{name}");
    let start = Instant::now();
    let status = command.status().map_err(|error| format!("starting cargo: {error}"))?;
    println!("  {:.1} s", start.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

/// Returns a cargo command with these arguments, in `folder`.
fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(folder).stdin(Stdio::null());
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"target_directory": "t", "packages": [
        {"name": "a", "version": "1.2.3", "publish": null},
        {"name": "b", "version": "1.2.3", "publish": []}]}"#;

    #[test]
    fn test_published_crates_are_those_without_a_list_of_registries() {
        let packages = published(JSON.as_bytes()).unwrap().packages;
        assert_eq!(packages.iter().map(|package| &package.name).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn test_published_crates_of_a_workspace_without_any_is_an_error() {
        assert!(published(JSON.replace("null", "[]").as_bytes()).is_err());
    }

    #[test]
    fn test_workspace_of_packages_takes_them_in_place_of_the_registry() {
        let packages = published(JSON.as_bytes()).unwrap().packages;
        let text = workspace(&packages, "[workspace]\n[profile.dev]\nopt-level = 1\n");
        let expected = "[workspace]\nresolver = \"3\"\nmembers = [\"a-1.2.3\"]\n\n\
            [patch.crates-io]\na = { path = \"a-1.2.3\" }\n\n[profile.dev]\nopt-level = 1\n";
        assert_eq!(text, expected);
    }
}
